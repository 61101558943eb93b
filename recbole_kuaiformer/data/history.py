"""What each user already had: the whole history before an interaction, however long."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction

from recbole_kuaiformer.data.log import IntArray

LOG_ROW = "log_row"  # column of inter_feat: the interaction's row in the log


def with_log(data_augmentation: Callable[[Any], None]) -> Callable[[Any], None]:
    """RecBole's prefix table, with the flat log kept beside it: items and first row of each history.

    The table holds at most MAX_ITEM_LIST_LENGTH items of a history; to leave out everything a user
    already had, all of them must be known. The table gets the column ``log_row``, which no model reads.
    """

    @wraps(data_augmentation)
    def augment(self: Any) -> None:
        self.sort(by=[self.uid_field, self.time_field], ascending=True)  # as RecBole does next, stably
        users, items = (self.inter_feat[field].numpy() for field in (self.uid_field, self.iid_field))
        rows = np.arange(len(users))
        is_first = np.r_[True, users[1:] != users[:-1]]
        self.log_item_ids = items.copy()
        self.log_starts = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
        data_augmentation(self)
        targets = torch.from_numpy(rows[~is_first])
        self.inter_feat.update(Interaction({LOG_ROW: targets}))

    return augment


def past_items(dataset: Any, rows: IntArray) -> tuple[IntArray, IntArray] | None:
    """All items the users had before the given log rows: (place in ``rows``, item id) pairs, in any order.

    None where the dataset keeps no log (pre-split benchmark files, datasets with a table of their own).
    """
    if hasattr(dataset, "log"):
        item_ids, starts = dataset.log.item_ids, dataset.log.starts
    elif hasattr(dataset, "log_starts"):
        item_ids, starts = dataset.log_item_ids, dataset.log_starts
    else:
        return None
    lengths = rows - starts[rows]
    places = np.repeat(np.arange(len(rows)), lengths)
    within = np.arange(len(places)) - np.repeat(lengths.cumsum() - lengths, lengths)
    return places, item_ids[starts[rows][places] + within]
