"""Pre-split files (``benchmark_filename``) → three splits over a log.

Plain files make one log of all interactions in order of time. A validation or test row has everything
before it as its history. Training has a log of its own, of the training file alone: so no row that is
held out stands in a training history, even where it is older.

RecBole's augmented files list each row's history (``item_id_list``). Each row becomes a stretch of the
log of its own: its items, then its target.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_kuaiformer.data.atomic_files import DataError
from recbole_kuaiformer.data.history import LOG_ROW
from recbole_kuaiformer.data.log import IntArray, InteractionLog
from recbole_kuaiformer.data.logged import rows_of

TRAIN = 0  # number of the training file


def check_loaded(dataset: Any) -> None:
    """Refuse rows without user or item, which RecBole drops from other files only.

    Raises:
        DataError: names the column.
    """
    for field in (dataset.uid_field, dataset.iid_field):
        missing = int(dataset.inter_feat[field].isna().sum())
        if missing:
            raise DataError(
                f"{dataset.dataset_name}: {missing} rows of the pre-split files have no {field!r}"
            )


def splits(dataset: Any) -> list[Any]:
    """One dataset for each file: its rows that have a history, in order of time, or of the file with lists.

    Raises:
        DataError: a file has no row with a history.
    """
    rows = dataset.inter_feat[LOG_ROW].numpy()
    file = dataset.file_of_row[rows]
    parts = []
    for number, name in enumerate(dataset.benchmark_filename_list):
        index = np.flatnonzero(file == number)
        part = dataset.copy(rows_of(dataset.inter_feat, torch.from_numpy(index)))
        if number == TRAIN and not dataset.is_augmented:
            _on_a_log_of_its_own(part)
        left_out = dataset.file_size_list[number] - len(part.inter_feat)
        if len(part.inter_feat) == 0:
            raise DataError(
                f"{dataset.dataset_name}.{name}.inter: no row has a history, so nothing can be predicted"
            )
        if left_out:
            dataset.logger.info(f"{dataset.dataset_name}.{name}.inter: {left_out} rows have no history")
        parts.append(part)
    return parts


def _on_a_log_of_its_own(part: Any) -> None:
    """Give the training split the training rows as its whole log; rows that are first there drop out."""
    kept = part.file_of_row == TRAIN
    number = np.cumsum(kept) - 1  # of each kept row in the new log
    log = part.log.of_rows(np.flatnonzero(kept))
    rows = number[part.inter_feat[LOG_ROW].numpy()]
    has_history = np.flatnonzero(rows > log.starts[rows])
    part.inter_feat = rows_of(part.inter_feat, torch.from_numpy(has_history))
    part.inter_feat[LOG_ROW] = torch.from_numpy(rows[has_history])
    part.log = log


def rows_to_log(dataset: Any) -> None:
    """Build dataset.log and inter_feat out of rows that list their histories."""
    list_field = dataset.iid_field + dataset.config["LIST_SUFFIX"]
    histories = dataset.inter_feat.pop(list_field)
    lengths = np.fromiter(map(len, histories), dtype=np.int64, count=len(histories))
    for feat_name in dataset.feat_name_list:
        feat = getattr(dataset, feat_name)
        setattr(dataset, feat_name, dataset._dataframe_to_interaction(feat))
    dataset._aug_presets()
    feat = dataset.inter_feat
    dataset.log, ends = _log_of(
        feat[dataset.uid_field].numpy(), feat[dataset.iid_field].numpy(), histories.to_numpy(), lengths
    )
    dataset.file_of_row = np.empty(len(dataset.log), dtype=np.int64)
    dataset.file_of_row[ends] = np.repeat(np.arange(len(dataset.file_size_list)), dataset.file_size_list)
    feat.update(Interaction({LOG_ROW: torch.from_numpy(ends)}))
    dataset.set_field_property(LOG_ROW, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)
    dataset.inter_feat = rows_of(feat, torch.from_numpy(np.flatnonzero(lengths)))


def _log_of(
    user_ids: IntArray, item_ids: IntArray, histories: Any, lengths: IntArray
) -> tuple[InteractionLog, IntArray]:
    """The stretches one after the other, and the row of each one's target."""
    ends = np.cumsum(lengths + 1) - 1
    items = np.empty(int(ends[-1]) + 1, dtype=np.int64)
    is_target = np.zeros(len(items), dtype=bool)
    is_target[ends] = True
    items[ends] = item_ids
    if lengths.any():
        items[~is_target] = np.concatenate(histories)
    log = InteractionLog(
        user_ids=np.repeat(user_ids, lengths + 1),
        item_ids=items,
        timestamps=np.full(len(items), np.nan),
        columns={},
        starts=np.repeat(ends - lengths, lengths + 1),
    )
    return log, ends
