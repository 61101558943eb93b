"""RecBole's dataset and training dataloader over the interaction log."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from recbole.data.dataloader import NegSampleEvalDataLoader, TrainDataLoader
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_kuaiformer.config import AttributeSettings, WindowSettings, time_key
from recbole_kuaiformer.data import presplit
from recbole_kuaiformer.data.atomic_files import TIME_GAP, AtomicFiles, DataError, padded_floats
from recbole_kuaiformer.data.history import LOG_ROW
from recbole_kuaiformer.data.log import IntArray, time_order
from recbole_kuaiformer.data.logged import LoggedDataset, rows_of
from recbole_kuaiformer.data.planning import BatchPlan, Planner, horizon_of
from recbole_kuaiformer.data.windows import Windows

__all__ = [
    "ITEM_TIMES",
    "REQUEST_TIME",
    "TARGET_IDS",
    "TARGET_ROWS",
    "TARGET_UNSEEN",
    "TIME_GAP",
    "DataError",
    "RetrievalDataset",
    "SampledEvaluationDataLoader",
    "WindowDataLoader",
]

TARGET_IDS = "target_ids"  # [B, P] item ids to predict from one window, 0 where there is none
TARGET_ROWS = "target_rows"  # [B, P] the row of the log whose history each target is predicted from
TARGET_UNSEEN = "target_unseen"  # [B, P] newest items of the window's history that the target must not see
ITEM_TIMES = "item_times"  # [B, L] seconds from the history's newest item to each, for models that ask
REQUEST_TIME = "request_time"  # [B] seconds from there to the interaction that the history stands before


class RetrievalDataset(LoggedDataset):
    """The dataset of this package's models: raw attributes beside each history, and training windows.

    Batches are padded on the right to their longest history. Pre-split files (``benchmark_filename``) are
    read too, see presplit.py.

    Raises:
        DataError: a file is missing, empty, or lacks a column the model reads.
    """

    is_augmented = False  # pre-split files that bring their histories along
    is_as_wide_as_can_be = False  # whether batches are padded to MAX_ITEM_LIST_LENGTH

    def __init__(self, config: Any) -> None:
        self._raw_floats: dict[tuple[str, str], npt.NDArray[Any]] = {}
        super().__init__(config)

    # ---- loading -------------------------------------------------------------------------------------

    def _load_data(self, token: str, dataset_path: str) -> None:
        folder = Path(dataset_path)
        if folder.is_dir():
            files = AtomicFiles(self.config, folder=folder, token=token)
            self.is_augmented = files.check()
        super()._load_data(token, dataset_path)
        if self.benchmark_filename_list is not None:
            presplit.check_loaded(self)

    def _benchmark_presets(self) -> None:
        """RecBole's look for lists in the files; the log has its own."""

    def _fill_nan(self) -> None:
        """RecBole fills floats with their mean (and may normalise them next): keep them as they came."""
        for feat_name in ("inter_feat", "item_feat"):
            feat = getattr(self, feat_name)
            for field in feat if feat is not None else ():
                kind = self.field2type[field]
                if kind == FeatureType.FLOAT:
                    self._raw_floats[feat_name, field] = feat[field].to_numpy(np.float64, copy=True)
                elif kind == FeatureType.FLOAT_SEQ:
                    raw = padded_floats(feat[field], width=self.field2seqlen[field])
                    if np.isinf(raw).any():
                        raise DataError(
                            f"{self.dataset_name}: {field!r} holds infinite numbers; mend the file"
                        )
                    self._raw_floats[feat_name, field] = raw
        super()._fill_nan()

    def raw_floats(self, field: str) -> npt.NDArray[np.floating[Any]]:
        """A float column of the item file as it came, by item id: [N], or [N, S]; NaN where missing."""
        return self._raw_floats["item_feat", field]

    # ---- the log -------------------------------------------------------------------------------------

    def _change_feat_format(self) -> None:
        if self.benchmark_filename_list is not None and self.is_augmented:
            presplit.rows_to_log(self)
        else:
            super()._change_feat_format()

    def _times(self) -> npt.NDArray[np.float64]:
        return self._raw_floats["inter_feat", self.time_field]

    def _log_columns(self, order: IntArray) -> dict[str, npt.NDArray[Any]]:
        for key in [key for key in self._raw_floats if key[0] == "inter_feat"]:
            self._raw_floats[key] = self._raw_floats[key][order]
        return {
            field: self._raw_floats["inter_feat", field].astype(np.float32)
            if ("inter_feat", field) in self._raw_floats
            else self.inter_feat[field].numpy()
            for field in self.inter_feat
            if field not in (self.uid_field, self.iid_field, self.time_field)
        }

    def _targets(self, order: IntArray) -> Interaction:
        if self.benchmark_filename_list is not None:
            self.file_of_row = np.repeat(np.arange(len(self.file_size_list)), self.file_size_list)[order]
        targets = super()._targets(order)
        self.set_field_property(LOG_ROW, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)
        return targets

    def build(self) -> list[Any]:
        """The three splits: by eval_args, or, of pre-split files, one for each file."""
        if self.benchmark_filename_list is None:
            return super().build()  # type: ignore[no-any-return]
        self._change_feat_format()
        self._drop_unused_col()
        return presplit.splits(self)

    def sort(self, by: Any, ascending: Any = True) -> None:
        """Sort inter_feat in place; by time in 64 bits, rows of the same time in order of the log."""
        if by != self.time_field or ascending is not True:
            super().sort(by=by, ascending=ascending)
            return
        rows = self.inter_feat[LOG_ROW].numpy()
        times = self.log.timestamps[rows]
        in_order = bool((rows[1:] > rows[:-1]).all())
        order = time_order(np.zeros_like(rows), times) if in_order else np.lexsort((rows, times))
        self.inter_feat = rows_of(self.inter_feat, torch.from_numpy(order))

    # ---- batches -------------------------------------------------------------------------------------

    def _histories(self, ends: IntArray) -> Interaction:
        """``item_id_list``, ``item_length`` and each configured attribute's list, as wide as the longest."""
        return self._of_histories(self.log.histories(ends, max_length=self.max_item_list_len)[0], ends=ends)

    def _of_histories(self, rows: IntArray, *, ends: IntArray) -> Interaction:
        """The same of the given rows before ``ends``, [B, L], padded on the right with −1."""
        if self.is_as_wide_as_can_be:
            rows = np.pad(rows, ((0, 0), (0, self.max_item_list_len - rows.shape[1])), constant_values=-1)
        columns: dict[str, npt.NDArray[Any]] = {self.iid_field: self.log.item_ids}
        wanted = AttributeSettings.read(self.config).attributes
        columns |= {name: self.log.columns[name] for name in wanted if name in self.log.columns}
        lists = self._lists(columns, rows)
        if TIME_GAP in wanted:
            gaps = self.log.time_gaps(rows).astype(np.float32)
            lists[TIME_GAP + self.config["LIST_SUFFIX"]] = torch.from_numpy(gaps)
        if time_key(self.config):
            lists |= self._relative_times(rows, ends=ends)
        return Interaction({**lists, self.item_list_length_field: torch.from_numpy((rows >= 0).sum(1))})

    def _relative_times(self, rows: IntArray, *, ends: IntArray) -> dict[str, torch.Tensor]:
        """Whole seconds relative to the newest item, so that differences are as exact as 64 bits are."""
        times = self.log.timestamps
        newest = times[np.maximum(ends - 1, 0)]
        of_items = np.where(rows < 0, 0.0, times[rows] - newest[:, None])
        return {
            ITEM_TIMES: torch.from_numpy(np.rint(of_items).astype(np.int64)),
            REQUEST_TIME: torch.from_numpy(np.rint(times[ends] - newest).astype(np.int64)),
        }

    def windows(self, *, span: int) -> Windows:
        """Training windows over this split's rows."""
        newest = WindowSettings.read(self.config).windows_per_user
        return Windows.cut(self.log, targets=self.inter_feat[LOG_ROW].numpy(), span=span, per_user=newest)

    def target_counts(self) -> torch.Tensor:
        """How often an epoch predicts each item on average, if it trains every position: [N]."""
        settings = WindowSettings.read(self.config)
        trained = np.flatnonzero(self.windows(span=settings.span).is_target)
        horizon = horizon_of(self.log, trained, settings=settings)
        if horizon is None:
            return torch.bincount(torch.from_numpy(self.log.item_ids[trained]), minlength=self.item_num)
        items = torch.from_numpy(self.log.item_ids[horizon.targets])
        return torch.bincount(items, weights=torch.from_numpy(horizon.expected()), minlength=self.item_num)

    def window_batch(self, windows: Windows, plan: BatchPlan) -> Interaction:
        """The given windows: user, history before the last target, and the targets [B, P]."""
        lasts, targets, none = windows.lasts[plan.numbers], plan.targets, plan.targets < 0
        if plan.histories is None:
            batch, unseen = self._histories(lasts), lasts[:, None] - targets
        else:
            batch = self._of_histories(plan.histories, ends=lasts)
            unseen = _at_or_after(targets, plan.histories, n_rows=len(self.log))
        batch.update(
            Interaction(
                {
                    self.uid_field: torch.from_numpy(self.log.user_ids[lasts]),
                    TARGET_IDS: torch.from_numpy(np.where(none, 0, self.log.item_ids[plan.predicted])),
                    TARGET_ROWS: torch.from_numpy(np.where(none, 0, targets)),
                    TARGET_UNSEEN: torch.from_numpy(np.where(none, 0, unseen)),
                }
            )
        )
        return batch


def _at_or_after(targets: IntArray, histories: IntArray, *, n_rows: int) -> IntArray:
    """How many rows of each history (ascending, padded with −1) stand at or after each of its targets.

    >>> _at_or_after(np.array([[4, 9]]), np.array([[2, 4, 7, -1]]), n_rows=10).tolist()
    [[2, 0]]
    """
    of_window = np.arange(len(histories))[:, None] * n_rows
    there = histories >= 0
    before: IntArray = np.searchsorted((of_window + histories)[there], of_window + targets)
    return there.sum(1).cumsum()[:, None] - before  # type: ignore[no-any-return]


class WindowDataLoader(TrainDataLoader):
    """Batches of training windows; an epoch's order and draws depend on seed and epoch number alone.

    A batch is an Interaction with ``item_id_list`` [B, L], ``item_length`` [B], ``target_ids`` [B, P],
    ``target_rows`` [B, P], ``target_unseen`` [B, P], the user's id and the lists of interaction attributes.
    """

    def __init__(self, config: Any, dataset: RetrievalDataset, sampler: Any, shuffle: bool = False) -> None:
        self.epoch = 0
        self._batches: Any = None  # torch's loader of the batches, made when first asked for
        self._cut(config, dataset)
        super().__init__(config, dataset, sampler, shuffle=shuffle)

    def _cut(self, config: Any, dataset: RetrievalDataset) -> None:
        settings = WindowSettings.read(config)
        self.windows = dataset.windows(span=settings.span)
        self.planner = Planner(self.windows, settings=settings)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order and draws the next iteration takes."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.planner.n_batches

    def update_config(self, config: Any) -> None:
        """Take over another configuration; windows are cut anew."""
        self._cut(config, self._dataset)
        self._batches = None
        super().update_config(config)

    @property
    def sample_size(self) -> int:
        """RecBole's loader makes a list of as many row numbers, which windows do without."""
        return 1

    @sample_size.setter
    def sample_size(self, rows: int) -> None:
        pass

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_batches": None}

    def __iter__(self) -> Iterator[Interaction]:
        if self._batches is None:
            workers = self.config["worker"]
            self._batches = torch.utils.data.DataLoader(
                _Loaded(copy.copy(self._dataset), self.windows),
                batch_size=None,
                sampler=_EachEpoch(self),
                num_workers=workers,
                persistent_workers=workers > 0,  # an epoch later they need not start, nor read, anything
                pin_memory=torch.device(self.config["device"]).type == "cuda",
                collate_fn=_as_it_is,
                generator=torch.Generator(),  # not the global one, which the model's draws come from
            )
        self._batches.sampler.epoch, self.epoch = self.epoch, self.epoch + 1
        return iter(self._batches)

    def plan(self, epoch: int) -> Iterator[BatchPlan]:
        """What this process trains on in each batch of an epoch."""
        seeds = np.random.SeedSequence([self.config["seed"], epoch])
        batches = self.planner.batches(seeds=seeds, shuffle=self.shuffle)  # of all processes together
        if self.config["single_spec"]:
            return batches
        rank, world_size = torch.distributed.get_rank(), self.config["world_size"]
        return (batch.share(rank, world_size=world_size) for batch in batches)


class SampledEvaluationDataLoader(NegSampleEvalDataLoader):
    """RecBole's loader for ranking among sampled items, which fetches users one by one and joins them.

    Histories are padded to MAX_ITEM_LIST_LENGTH, or those of different users would not fit together.
    """

    def __init__(self, config: Any, dataset: RetrievalDataset, sampler: Any, shuffle: bool = False) -> None:
        wide = copy.copy(dataset)
        wide.is_as_wide_as_can_be = True
        super().__init__(config, wide, sampler, shuffle=shuffle)


class WindowBatch(Interaction):
    """A training batch that can wait in pinned memory and goes to the GPU from there on its own."""

    def pin_memory(self) -> WindowBatch:
        """The batch in memory that the GPU reads by itself; torch's loader asks for it."""
        return WindowBatch({name: self[name].pin_memory() for name in self})

    def to(self, device: Any, selected_field: Any = None) -> Any:
        """As RecBole's, without waiting for copies out of pinned memory."""
        if selected_field is not None:
            return super().to(device, selected_field)
        return WindowBatch({name: self[name].to(device, non_blocking=True) for name in self})


class _EachEpoch(torch.utils.data.Sampler[Any]):
    """The plan of one epoch, as often as torch asks for it (twice, where workers start)."""

    def __init__(self, loader: WindowDataLoader) -> None:
        self.loader, self.epoch = loader, 0

    def __iter__(self) -> Iterator[BatchPlan]:
        return self.loader.plan(self.epoch)

    def __len__(self) -> int:
        return len(self.loader)


class _Loaded(torch.utils.data.Dataset[Any]):
    """What a worker holds: the log and the windows over it; a batch is asked for by its part of the plan."""

    def __init__(self, dataset: RetrievalDataset, windows: Windows) -> None:
        self.dataset, self.windows = dataset, windows

    def __getitem__(self, plan: BatchPlan) -> WindowBatch:
        return WindowBatch(self.dataset.window_batch(self.windows, plan).interaction)


def _as_it_is(batch: Any) -> Any:
    return batch
