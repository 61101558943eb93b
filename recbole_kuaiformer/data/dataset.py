"""RecBole's dataset and training dataloader over the interaction log."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_kuaiformer.config import AttributeSettings, WindowSettings
from recbole_kuaiformer.data import presplit
from recbole_kuaiformer.data.atomic_files import TIME_GAP, AtomicFiles, DataError, padded_floats
from recbole_kuaiformer.data.history import LOG_ROW
from recbole_kuaiformer.data.log import IntArray, time_order
from recbole_kuaiformer.data.logged import LoggedDataset, rows_of
from recbole_kuaiformer.data.windows import Windows

__all__ = ["TARGET_IDS", "TARGET_UNSEEN", "TIME_GAP", "DataError", "RetrievalDataset", "WindowDataLoader"]

TARGET_IDS = "target_ids"  # [B, P] item ids to predict from one window, 0 where there is none
TARGET_UNSEEN = "target_unseen"  # [B, P] newest items of the window's history that the target must not see


class RetrievalDataset(LoggedDataset):
    """The dataset of this package's models: raw attributes beside each history, and training windows.

    Batches are padded on the right to their longest history. Pre-split files (``benchmark_filename``) are
    read too, see presplit.py.

    Raises:
        DataError: a file is missing, empty, or lacks a column the model reads.
    """

    is_augmented = False  # pre-split files that bring their histories along

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
        rows = np.sort(self.inter_feat[LOG_ROW].numpy())
        order = time_order(np.zeros(len(rows), dtype=np.int64), self.log.timestamps[rows])
        places = np.empty(len(self.log), dtype=np.int64)
        places[self.inter_feat[LOG_ROW].numpy()] = np.arange(len(rows))
        self.inter_feat = rows_of(self.inter_feat, torch.from_numpy(places[rows[order]]))

    # ---- batches -------------------------------------------------------------------------------------

    def _histories(self, ends: IntArray) -> Interaction:
        """``item_id_list``, ``item_length`` and each configured attribute's list, as wide as the longest."""
        rows, lengths = self.log.histories(ends, max_length=self.max_item_list_len)
        columns = {self.iid_field: self.log.item_ids}
        wanted = AttributeSettings.read(self.config).attributes
        columns |= {name: self.log.columns[name] for name in wanted if name in self.log.columns}
        lists = self._lists(columns, rows)
        if TIME_GAP in wanted:
            gaps = self.log.time_gaps(rows).astype(np.float32)
            lists[TIME_GAP + self.config["LIST_SUFFIX"]] = torch.from_numpy(gaps)
        return Interaction({**lists, self.item_list_length_field: torch.from_numpy(lengths)})

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
        world_size = 1 if self.config["single_spec"] else self.config["world_size"]
        return max(1, self.window_settings.windows_per_batch // world_size) * world_size

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
        if self.config["single_spec"]:
            return numbers, targets
        rank, world_size = torch.distributed.get_rank(), self.config["world_size"]
        mine = np.arange(rank, max(len(numbers), rank + 1), world_size) % len(numbers)
        return numbers[mine], targets[mine]


def _load(dataset: RetrievalDataset, windows: Windows, plan: tuple[IntArray, IntArray]) -> Interaction:
    numbers, targets = plan
    return dataset.window_batch(windows, numbers=numbers, targets=targets)
