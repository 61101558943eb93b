"""RecBole's sequential dataset over the interaction log, without the prefix table."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pandas.api.types import union_categoricals
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureType

from recbole_kuaiformer.compat import notice_other_order
from recbole_kuaiformer.data.atomic_files import DataError
from recbole_kuaiformer.data.history import LOG_ROW
from recbole_kuaiformer.data.log import IntArray, InteractionLog, time_order
from recbole_kuaiformer.data.splits import by_ratio, by_time, leave_one_out


class LoggedDataset(SequentialDataset):
    """RecBole's sequential dataset, histories gathered from a log when a batch is asked for.

    ``inter_feat`` holds one row for each interaction that has a history (the rows of RecBole's table, in
    its order, without its lists), so RecBole's filters and splits work on it unchanged. Every split shares
    ``log``, so memory grows with the interactions, whatever MAX_ITEM_LIST_LENGTH.

    Raises:
        DataError: nothing has a history, or an interaction has no time.
    """

    log: InteractionLog
    inter_feat: Any

    # ---- loading -------------------------------------------------------------------------------------

    def _load_feat(self, filepath: str, source: Any) -> Any:
        """As RecBole's, tokens as categories: hashed once here, and not again to be counted and numbered."""
        frame = super()._load_feat(filepath, source)
        for field in frame if frame is not None else ():
            if self.field2type[field] == FeatureType.TOKEN:
                codes, tokens = pd.factorize(frame[field])
                frame[field] = pd.Categorical.from_codes(codes, categories=tokens)
        return frame

    def _remap(self, remap_list: list[tuple[Any, str, FeatureType]]) -> None:
        """RecBole's numbering, in order of appearance; categories are numbered without their tokens."""
        coded = [feat[field].array for feat, field, _ in remap_list]
        if not coded or not all(isinstance(one, pd.Categorical) for one in coded):
            for feat, field, kind in remap_list:
                if kind == FeatureType.TOKEN:
                    feat[field] = feat[field].astype(object)
            super()._remap(remap_list)
            return
        numbers, tokens = pd.factorize(union_categoricals(coded))
        names = np.array(["[PAD]", *tokens])
        ids = {name: number for number, name in enumerate(names)}
        parts = np.split(numbers + 1, np.cumsum([len(one) for one in coded])[:-1])
        for (feat, field, _), part in zip(remap_list, parts):
            self.field2id_token.setdefault(field, names)
            self.field2token_id.setdefault(field, ids)
            feat[field] = part

    def _filter_by_inter_num(self) -> None:
        """RecBole's filter by number of interactions, counted in numpy: theirs counts in Python."""
        intervals = {
            field: self._parse_intervals_str(self.config[f"{name}_inter_num_interval"])
            for field, name in ((self.uid_field, "user"), (self.iid_field, "item"))
        }
        if not any(intervals.values()):
            return
        codes = {field: _factorized(self.inter_feat[field]) for field in intervals}
        alive = np.ones(len(self.inter_feat), dtype=bool)
        while True:
            banned = {
                field: self._banned(field, codes[field], alive=alive, intervals=intervals[field])
                for field in intervals
                if intervals[field]
            }
            if not any(len(ids) for ids in banned.values()):
                break
            for field, ids in banned.items():
                numbers, known = codes[field]
                alive &= ~known.isin(ids)[numbers]
        if not alive.all():
            self.inter_feat = self.inter_feat[alive]

    def _banned(self, field: str, coded: Any, *, alive: npt.NDArray[np.bool_], intervals: Any) -> pd.Index:
        """Ids whose number of interactions is out of the intervals; they leave the item or user file too."""
        numbers, ids = coded
        counts = np.bincount(numbers[alive], minlength=len(ids))
        banned = ids[(counts > 0) & ~self._within_intervals(counts, intervals)]
        name = "user_feat" if field == self.uid_field else "item_feat"
        feat = getattr(self, name)
        if feat is None:
            return banned
        places = ids.get_indexer(feat[field].astype(object))
        there = np.append(counts, 0)[places]  # −1 is an id without interactions
        leaves = feat[field].isin(banned) | (there < intervals[0][1])
        setattr(self, name, feat[~leaves])
        return banned

    # ---- the log -------------------------------------------------------------------------------------

    def _change_feat_format(self) -> None:
        """Frames → tensors, and interactions → log; no prefix table is written."""
        self._check_field("uid_field", "iid_field", "time_field")
        times = self._times()
        unknown = int((~np.isfinite(times)).sum())
        if unknown:
            raise DataError(
                f"{self.dataset_name}.inter: {unknown} interactions have no {self.time_field!r}, or an "
                "infinite one; fill them in or drop the rows, their order is unknown"
            )
        order = self._order(times)
        self.inter_feat = self.inter_feat.iloc[order].reset_index(drop=True)
        super(SequentialDataset, self)._change_feat_format()
        self._aug_presets()
        self.log = InteractionLog.ordered(
            self.inter_feat[self.uid_field].numpy(),
            self.inter_feat[self.iid_field].numpy(),
            timestamps=times[order],
            columns=self._log_columns(order),
        )
        self.inter_feat = self._targets(order)

    def _order(self, times: npt.NDArray[np.float64]) -> IntArray:
        users = self.inter_feat[self.uid_field].to_numpy()
        order = time_order(users, times)
        notice_other_order(self, users=users, times=times, order=order)
        return order

    def _times(self) -> npt.NDArray[np.float64]:
        """Each interaction's time in 64 bits, in order of inter_feat; NaN where there is none."""
        raise NotImplementedError

    def _log_columns(self, order: IntArray) -> dict[str, npt.NDArray[Any]]:
        """What the log holds beside user, item and time, in order of the log."""
        raise NotImplementedError

    def _targets(self, order: IntArray) -> Interaction:  # noqa: ARG002 (pre-split files need it)
        """The rows of inter_feat that have a history, with their row in the log."""
        rows = np.flatnonzero(np.arange(len(self.log)) > self.log.starts)
        if len(rows) == 0:
            raise DataError(
                f"{self.dataset_name}: after filtering no user has two interactions: nothing to predict"
            )
        return self._with_log_rows(rows)

    def _with_log_rows(self, rows: IntArray) -> Interaction:
        index = torch.from_numpy(rows)
        targets = rows_of(self.inter_feat, index)
        targets.update(Interaction({LOG_ROW: index}))
        return targets

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """Sparse [users, items] matrix of this split's interactions, and of what stands alone before one.

        RecBole's rule: a target with one single item of history brings that item in, since it is itself
        no target.
        """
        feat = self.inter_feat
        rows = feat[LOG_ROW].numpy()
        alone = rows[np.minimum(rows - self.log.starts[rows], self.max_item_list_len) == 1]
        parts = {self.uid_field: (feat[self.uid_field], self.log.user_ids[alone])}
        parts[self.iid_field] = (feat[self.iid_field], self.log.item_ids[alone - 1])
        if value_field is not None:
            column = self.log.columns[value_field]
            parts[value_field] = (torch.from_numpy(column[rows]), column[alone - 1])
        joined = {name: torch.cat([mine, torch.from_numpy(first)]) for name, (mine, first) in parts.items()}
        return self._create_sparse_matrix(
            Interaction(joined), self.uid_field, self.iid_field, form, value_field
        )

    # ---- splits --------------------------------------------------------------------------------------

    def split_by_ratio(self, ratios: list[float], group_by: str | None = None) -> list[Any]:
        """RecBole's split by ratios, without its loop over rows."""
        shares = [ratio / sum(ratios) for ratio in ratios]
        if group_by is None:
            cuts = self._calcu_split_ids(tot=len(self), ratios=shares)
            return self._split(np.split(np.arange(len(self)), cuts))
        parts = by_ratio(
            self.inter_feat[group_by].numpy(),
            n_parts=len(shares),
            bounds=lambda size: self._calcu_split_ids(tot=size, ratios=shares),
        )
        return self._split(parts)

    def leave_one_out(self, group_by: str | None, leave_one_mode: str) -> list[Any]:
        """RecBole's leave-one-out split, without its loop over rows."""
        n_held_out = {"valid_and_test": 2, "valid_only": 1, "test_only": 1}.get(leave_one_mode)
        if group_by is None or n_held_out is None:
            return super().leave_one_out(group_by, leave_one_mode)  # type: ignore[no-any-return]  # its errors
        parts = leave_one_out(self.inter_feat[group_by].numpy(), n_held_out=n_held_out)
        nothing = np.empty(0, dtype=np.int64)
        if leave_one_mode == "valid_only":
            parts = [*parts, nothing]
        elif leave_one_mode == "test_only":
            parts = [parts[0], nothing, parts[1]]
        return self._split(parts)

    def time_based_split(self, ratios: list[float], group_by: str | None) -> list[Any]:
        """RecBole's split at a common time, without its loop over users."""
        if group_by is None:
            return super().time_based_split(ratios, group_by)  # type: ignore[no-any-return]  # its error
        shares = [ratio / sum(ratios) for ratio in ratios]
        times = self.inter_feat[self.time_field].numpy()
        boundary = np.percentile(times, 100 * (1 - shares[-1]))
        parts = by_time(
            self.inter_feat[group_by].numpy(),
            is_early=times <= boundary,
            train_share=shares[0] / (1 - shares[2]),
        )
        return self._split(parts)

    def _split(self, parts: list[IntArray]) -> list[Any]:
        self._drop_unused_col()
        return [self.copy(rows_of(self.inter_feat, torch.from_numpy(part))) for part in parts]

    # ---- batches -------------------------------------------------------------------------------------

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        """Rows of the split with their histories, joined with user and item features."""
        if isinstance(index, slice):
            index = torch.arange(*index.indices(len(self)))
        feat = rows_of(self.inter_feat, torch.as_tensor(index))
        feat.update(self._histories(feat[LOG_ROW].reshape(-1).numpy()))
        return self.join(feat) if join else feat

    def _histories(self, ends: IntArray) -> Interaction:
        """The lists of the history before each of the given log rows, and their lengths."""
        raise NotImplementedError

    def _lists(self, columns: dict[str, npt.NDArray[Any]], rows: IntArray) -> dict[str, torch.Tensor]:
        """Each column at the given log rows [B, L], 0 where a row is −1, named as RecBole names its lists."""
        nothing = rows < 0
        lists = {}
        for name, column in columns.items():
            values = column[rows]
            values[nothing] = 0
            lists[name + self.config["LIST_SUFFIX"]] = torch.from_numpy(values)
        return lists


def rows_of(feat: Any, index: torch.Tensor) -> Interaction:
    """``feat[index]``, without RecBole's detour over a Python list of row numbers."""
    return Interaction({name: feat[name][index] for name in feat})


def _factorized(tokens: pd.Series[Any]) -> tuple[IntArray, pd.Index]:
    numbers, ids = pd.factorize(tokens)
    return numbers, ids.astype(object)
