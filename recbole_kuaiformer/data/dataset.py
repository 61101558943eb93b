"""RecBole's dataset and training dataloader over the interaction log."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_kuaiformer.compat import notice_other_order
from recbole_kuaiformer.config import AttributeSettings, WindowSettings
from recbole_kuaiformer.data.history import LOG_ROW
from recbole_kuaiformer.data.log import IntArray, InteractionLog, time_order
from recbole_kuaiformer.data.windows import Windows

TARGET_IDS = "target_ids"  # [B, P] item ids to predict from one window, 0 where there is none
TARGET_UNSEEN = "target_unseen"  # [B, P] newest items of the window's history that the target must not see
TIME_GAP = "time_gap"  # attribute made from timestamps: seconds since the user's interaction before


class DataError(ValueError):
    """A data file lacks something the model needs; the message names file and column."""


class RetrievalDataset(SequentialDataset):
    """RecBole's sequential dataset without its prefix table.

    ``inter_feat`` holds one row for each interaction that has a history (RecBole's rows, in time order of
    64 bits), so RecBole's filters and splits work on it unchanged; histories are gathered from the shared
    ``log`` when a batch is asked for.

    Raises:
        DataError: the interaction file is missing, empty, or lacks a column the model reads.
    """

    log: InteractionLog
    inter_feat: Any

    def __init__(self, config: Any) -> None:
        if config["benchmark_filename"] is not None:
            raise DataError(
                "benchmark_filename: this model does not read pre-split files; give one .inter file and let "
                "eval_args split it"
            )
        self._raw_floats: dict[tuple[str, str], npt.NDArray[np.float64]] = {}
        super().__init__(config)

    # ---- loading -------------------------------------------------------------------------------------

    def _load_data(self, token: str, dataset_path: str) -> None:
        folder = Path(dataset_path)
        if folder.is_dir():
            fields = self._check_inter_file(folder / f"{token}.inter")
            self._check_attributes(
                fields | self._header(folder / f"{token}.item"), folder=folder, token=token
            )
        super()._load_data(token, dataset_path)

    def _header(self, file: Path) -> dict[str, str]:
        if not file.is_file():
            return {}
        with file.open(encoding=self.config["encoding"]) as lines:
            head = lines.readline().rstrip("\r\n")
        columns = [column.partition(":") for column in head.split(self.config["field_separator"])]
        for name, _, kind in columns:
            if kind not in {known.value for known in FeatureType}:
                raise DataError(
                    f"{file}: the header names a column {name!r} of type {kind!r}; each column is name:type "
                    f"with type token, token_seq, float or float_seq, separated by "
                    f"{self.config['field_separator']!r} (field_separator)"
                )
        return {name: kind for name, _, kind in columns}

    def _check_inter_file(self, file: Path) -> dict[str, str]:
        if not file.is_file():
            raise DataError(f"{file}: no such file; RecBole expects <data_path>/<dataset>/<dataset>.inter")
        with file.open(encoding=self.config["encoding"]) as lines:
            head, first = lines.readline().strip(), lines.readline().strip()
        if not head or not first:
            raise DataError(f"{file}: the file is empty; it needs a header line and at least one interaction")
        fields = self._header(file)
        if fields.get(self.config["TIME_FIELD"], "float") != "float":
            raise DataError(
                f"{file}: column {self.config['TIME_FIELD']!r} (TIME_FIELD) must be of type float, "
                f"not {fields[self.config['TIME_FIELD']]}"
            )
        for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD"):
            if self.config[key] not in fields:
                raise DataError(
                    f"{file}: no column {self.config[key]!r} ({key}) among {sorted(fields)}; "
                    f"add it, or set {key} to the column that plays its part"
                )
            loaded = (self.config["load_col"] or {}).get("inter")
            if loaded is not None and loaded != "*" and self.config[key] not in loaded:
                raise DataError(f"load_col: inter must list {self.config[key]!r} ({key}), got {loaded}")
        return fields

    def _check_attributes(self, fields: dict[str, str], *, folder: Path, token: str) -> None:
        load_col = self.config["load_col"]
        for name in AttributeSettings.read(self.config).attributes:
            if name == TIME_GAP:
                continue
            if name not in fields:
                raise DataError(
                    f"attributes: {name!r} is in neither {folder / token}.inter nor {folder / token}.item; "
                    f"there is {sorted(fields)}"
                )
            loaded = {column for columns in load_col.values() for column in columns} if load_col else fields
            if name not in loaded and not any(columns == "*" for columns in (load_col or {}).values()):
                raise DataError(f"attributes: {name!r} is not loaded; add it to load_col ({load_col})")

    def _fill_nan(self) -> None:
        """RecBole fills floats with their mean (and may normalise them next): keep them as they came."""
        for feat_name in ("inter_feat", "item_feat"):
            feat = getattr(self, feat_name)
            for field in feat if feat is not None else ():
                if self.field2type[field] == FeatureType.FLOAT:
                    self._raw_floats[feat_name, field] = feat[field].to_numpy(np.float64, copy=True)
        super()._fill_nan()

    def raw_floats(self, field: str) -> npt.NDArray[np.float64]:
        """A float column of the item file as it came, one value for each item id; NaN where missing."""
        return self._raw_floats["item_feat", field]

    # ---- the log -------------------------------------------------------------------------------------

    def _change_feat_format(self) -> None:
        """Frames → tensors, and interactions → log; no prefix table is written."""
        self._check_field("uid_field", "iid_field", "time_field")
        self._check_times(self._raw_floats["inter_feat", self.time_field])
        self.inter_feat = self._in_time_order(self.inter_feat)
        super(SequentialDataset, self)._change_feat_format()
        self._aug_presets()
        feat = self.inter_feat
        columns = {
            field: self._raw_floats["inter_feat", field].astype(np.float32)
            if ("inter_feat", field) in self._raw_floats
            else feat[field].numpy()
            for field in feat.columns
            if field not in (self.uid_field, self.iid_field, self.time_field)
        }
        self.log = InteractionLog.build(
            feat[self.uid_field].numpy(),
            feat[self.iid_field].numpy(),
            timestamps=self._raw_floats["inter_feat", self.time_field],
            columns=columns,
        )
        rows = np.arange(len(self.log))
        feat.update(Interaction({LOG_ROW: torch.from_numpy(rows)}))
        self.set_field_property(LOG_ROW, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)
        self.inter_feat = feat[torch.from_numpy(np.flatnonzero(rows > self.log.starts))]
        if len(self.inter_feat) == 0:
            raise DataError(
                f"{self.dataset_name}: after filtering no user has two interactions: nothing to predict"
            )

    def _check_times(self, times: npt.NDArray[np.float64]) -> None:
        if np.isnan(times).any():
            raise DataError(
                f"{self.dataset_name}.inter: {int(np.isnan(times).sum())} interactions have no "
                f"{self.time_field!r}; fill them in or drop the rows, their order is unknown"
            )

    def _in_time_order(self, feat: pd.DataFrame) -> pd.DataFrame:
        times = self._raw_floats["inter_feat", self.time_field]
        users = feat[self.uid_field].to_numpy()
        order = time_order(users, times)
        notice_other_order(self, users=users, times=times, order=order)
        for key in [key for key in self._raw_floats if key[0] == "inter_feat"]:
            self._raw_floats[key] = self._raw_floats[key][order]
        return feat.iloc[order].reset_index(drop=True)

    def sort(self, by: Any, ascending: Any = True) -> None:
        """Sort inter_feat in place; by time in 64 bits, rows of the same time in order of the log."""
        if by != self.time_field or ascending is not True:
            super().sort(by=by, ascending=ascending)
            return
        rows = self.inter_feat[LOG_ROW].numpy()
        order = np.lexsort((rows, self.log.timestamps[rows]))
        self.inter_feat = self.inter_feat[torch.from_numpy(order)]

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """Sparse [users, items] matrix of this split's interactions, each user's first one included."""
        rows = self.inter_feat[LOG_ROW].numpy()
        firsts = np.unique(self.log.starts[rows])
        feat = Interaction(
            {
                self.uid_field: torch.from_numpy(self.log.user_ids[np.r_[firsts, rows]]),
                self.iid_field: torch.from_numpy(self.log.item_ids[np.r_[firsts, rows]]),
            }
        )
        if value_field is not None:
            values = self.log.columns[value_field][np.r_[firsts, rows]]
            feat.update(Interaction({value_field: torch.from_numpy(values)}))
        return self._create_sparse_matrix(feat, self.uid_field, self.iid_field, form, value_field)

    # ---- batches -------------------------------------------------------------------------------------

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        """Rows of the split with their histories, padded on the right to the batch's longest.

        Carries RecBole's fields: the row itself (joined with user and item features), ``item_id_list``,
        ``item_length`` and ``<attribute>_list`` of each configured attribute of the interaction.
        """
        feat = super().__getitem__(index, join)
        rows = feat[LOG_ROW].reshape(-1).numpy()
        feat.update(self._histories(rows))
        return feat

    def _histories(self, ends: IntArray) -> Interaction:
        rows, lengths = self.log.histories(ends, max_length=self.max_item_list_len)
        padding = rows < 0
        suffix = self.config["LIST_SUFFIX"]
        columns = {self.iid_field + suffix: np.where(padding, 0, self.log.item_ids[rows])}
        for name in AttributeSettings.read(self.config).attributes:
            if name == TIME_GAP:
                columns[name + suffix] = self.log.time_gaps(rows).astype(np.float32)
            elif name in self.log.columns:
                columns[name + suffix] = self.log.columns[name][rows]
        tensors = {name: torch.from_numpy(values) for name, values in columns.items()}
        return Interaction({**tensors, self.item_list_length_field: torch.from_numpy(lengths)})

    def windows(self, *, span: int) -> Windows:
        """Training windows over this split's rows."""
        return Windows.cut(self.log, targets=self.inter_feat[LOG_ROW].numpy(), span=span)

    def window_batch(self, windows: Windows, *, numbers: IntArray, targets: IntArray) -> Interaction:
        """The given windows: user, history before the last target, and the targets [B, P]."""
        lasts = windows.lasts[numbers]
        batch = self._histories(lasts)
        none = targets < 0
        batch.update(
            Interaction(
                {
                    self.uid_field: torch.from_numpy(self.log.user_ids[lasts]),
                    TARGET_IDS: torch.from_numpy(np.where(none, 0, self.log.item_ids[targets])),
                    TARGET_UNSEEN: torch.from_numpy(np.where(none, 0, lasts[:, None] - targets)),
                }
            )
        )
        return batch


class WindowDataLoader(TrainDataLoader):
    """Batches of training windows; an epoch's order and draws depend on seed and epoch number alone.

    A batch is an Interaction with ``item_id_list`` [B, L], ``item_length`` [B], ``target_ids`` [B, P],
    ``target_unseen`` [B, P], the user's id and the lists of interaction attributes.
    """

    def __init__(self, config: Any, dataset: RetrievalDataset, sampler: Any, shuffle: bool = False) -> None:
        self.epoch = 0
        self.window_settings = WindowSettings.read(config)
        self.windows = dataset.windows(span=self.window_settings.span)
        super().__init__(config, dataset, sampler, shuffle=shuffle)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order and draws the next iteration takes."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.windows) // self._windows_per_step())

    def update_config(self, config: Any) -> None:
        """Take over another configuration; windows are cut anew."""
        self.window_settings = WindowSettings.read(config)
        self.windows = self._dataset.windows(span=self.window_settings.span)
        super().update_config(config)

    def _windows_per_step(self) -> int:
        return self.window_settings.windows_per_batch  # of all processes together

    def __iter__(self) -> Iterator[Interaction]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        seeds = np.random.SeedSequence([self.config["seed"], epoch])
        order, draws = (np.random.default_rng(seed) for seed in seeds.spawn(2))
        batches = self.windows.batches(
            self._windows_per_step(),
            max_length=self.window_settings.MAX_ITEM_LIST_LENGTH,
            rng=order if self.shuffle else None,
        )
        plan = []
        for numbers in batches:
            targets = self.windows.targets(
                numbers, n_drawn=self.window_settings.targets_per_window, rng=draws
            )
            plan.append(self._of_rank(numbers, targets=targets))
        loader: Any = torch.utils.data.DataLoader(
            plan,  # type: ignore[arg-type]
            batch_size=None,
            num_workers=self.config["worker"],
            collate_fn=partial(_load, copy.copy(self._dataset), self.windows),
        )
        return iter(loader)

    def _of_rank(self, numbers: IntArray, *, targets: IntArray) -> tuple[IntArray, IntArray]:
        """This process's share of a batch's windows; where none is left for it, one without a target."""
        if self.config["single_spec"]:
            return numbers, targets
        rank, world_size = torch.distributed.get_rank(), self.config["world_size"]
        if rank >= len(numbers):
            return numbers[:1], np.full_like(targets[:1], -1)
        return numbers[rank::world_size], targets[rank::world_size]


def _load(dataset: RetrievalDataset, windows: Windows, plan: tuple[IntArray, IntArray]) -> Interaction:
    numbers, targets = plan
    return dataset.window_batch(windows, numbers=numbers, targets=targets)
