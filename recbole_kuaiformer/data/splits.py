"""RecBole's splits of interactions, vectorised: which row goes into which part, and in RecBole's order.

RecBole walks through all rows in Python, group after group. Here a group (a user) is a number, groups
come in order of their first row, and rows keep their order inside a group, as they do there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recbole_kuaiformer.data.log import IntArray, stable_order

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Groups:
    """Rows of equal keys, brought together.

    Attributes:
        rows: [R] row numbers, group after group. places: [R] of each, 0 … in its group. sizes: [R] of its
            group.
    """

    rows: IntArray
    places: IntArray
    sizes: IntArray

    @classmethod
    def of(cls, keys: IntArray) -> Groups:
        """Groups of rows with equal keys (small integers ≥ 0).

        >>> Groups.of(np.array([5, 2, 5, 2, 2])).rows.tolist()
        [0, 2, 1, 3, 4]
        """
        n_keys = int(keys.max(initial=-1)) + 1
        first = np.full(n_keys, len(keys))
        first[keys[::-1]] = np.arange(len(keys))[::-1]  # of repeated indices the last one written stays
        number = np.empty(n_keys, dtype=np.int64)
        order = np.argsort(first, kind="stable")
        number[order] = np.arange(n_keys)
        sizes = np.bincount(keys, minlength=n_keys)[order]
        begins = np.repeat(sizes.cumsum() - sizes, sizes)
        return cls(
            rows=stable_order(number[keys]),
            places=np.arange(len(keys)) - begins,
            sizes=np.repeat(sizes, sizes),
        )

    def parts(self, which: IntArray, *, n_parts: int) -> list[IntArray]:
        """Row numbers of each part, group after group; ``which`` [R] says each row's part."""
        return [self.rows[which == part] for part in range(n_parts)]


def leave_one_out(keys: IntArray, *, n_held_out: int) -> list[IntArray]:
    """Row numbers of the first part and of n_held_out parts that take one of each group's last rows.

    A group keeps at least one row in the first part; where it is short, the last parts are served first.

    >>> [part.tolist() for part in leave_one_out(np.array([0, 0, 0, 1, 1]), n_held_out=2)]
    [[0, 3], [1], [2, 4]]
    """
    groups = Groups.of(keys)
    taken = np.minimum(n_held_out, groups.sizes - 1)
    from_end = groups.sizes - groups.places  # 1 is the group's last row
    which = np.where(from_end > taken, 0, n_held_out + 1 - from_end)
    return groups.parts(which, n_parts=n_held_out + 1)


def by_ratio(keys: IntArray, *, n_parts: int, bounds: Callable[[int], Sequence[int]]) -> list[IntArray]:
    """Row numbers of parts that cut every group where ``bounds`` of the group's size says."""
    groups = Groups.of(keys)
    cuts = np.zeros((int(groups.sizes.max(initial=0)) + 1, n_parts - 1), dtype=np.int64)
    for size in np.unique(groups.sizes):
        cuts[size] = bounds(int(size))
    which = (groups.places[:, None] >= cuts[groups.sizes]).sum(1)
    return groups.parts(which, n_parts=n_parts)


def by_time(keys: IntArray, *, is_early: BoolArray, train_share: float) -> list[IntArray]:
    """Row numbers of training, validation (the early rows of each group, cut at a share) and test (the rest).

    Args:
        keys: [R] group of each row; rows in order of time.
        is_early: [R] whether a row is before the test period.
        train_share: of the early rows.
    """
    groups = Groups.of(keys)
    early = is_early[groups.rows]
    number = np.cumsum(groups.places == 0) - 1
    n_early = np.bincount(number, weights=early).astype(np.int64)[number]
    n_train = (n_early * train_share).astype(np.int64)
    which = np.where(early, groups.places >= n_train, 2)
    return groups.parts(which, n_parts=3)
