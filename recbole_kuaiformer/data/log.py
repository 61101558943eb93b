"""The interaction log: flat columns and one offset for each user, ordered in 64-bit, stable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def time_order(user_ids: IntArray, timestamps: FloatArray) -> IntArray:
    """Row numbers sorted by (user, time); rows of the same user and time keep the order of the file.

    Args:
        user_ids: any integers.
        timestamps: seconds, in 64 bits: float32 has a resolution of 64 s at today's Unix times.

    >>> time_order(np.zeros(5, int), 978300000.0 + np.array([760, 780, 761, 800, 790])).tolist()
    [0, 2, 1, 4, 3]
    """
    by_time = np.arange(len(timestamps)) if _is_ascending(timestamps) else _order_of_times(timestamps)
    users = user_ids[by_time]
    return by_time if _is_ascending(users) else by_time[stable_order(users)]


def stable_order(keys: IntArray) -> IntArray:
    """Row numbers sorted by an integer key, equal keys in order: a radix sort, 16 bits at a time.

    Three times as fast as a merge sort on ten million keys below 2³²: numpy sorts 16 bits by counting.

    >>> stable_order(np.array([70000, -5, 70000, 3])).tolist()
    [1, 3, 0, 2]
    """
    keys = keys - keys.min(initial=0)
    order = np.argsort(_digit(keys, 0), kind="stable")
    for shift in range(16, int(keys.max(initial=0)).bit_length(), 16):
        order = order[np.argsort(_digit(keys, shift)[order], kind="stable")]
    return order


def _digit(keys: IntArray, shift: int) -> npt.NDArray[np.uint16]:
    return ((keys >> shift) & 0xFFFF).astype(np.uint16)


def _is_ascending(values: npt.NDArray[Any]) -> bool:
    return bool((values[1:] >= values[:-1]).all())


def _order_of_times(times: FloatArray) -> IntArray:
    low, high = times.min(initial=0), times.max(initial=0)
    if low > -(2**52) and high < 2**52:
        seconds = times.astype(np.int64)
        if (seconds == times).all():
            return stable_order(seconds)
    return np.argsort(times, kind="stable")


@dataclass(frozen=True)
class InteractionLog:
    """All interactions of a dataset, one row each, sorted by (user, time).

    Memory grows with the interactions alone, whatever the history length: no prefix is ever written out.

    Attributes:
        user_ids: [R] user of each row, non-decreasing.
        item_ids: [R] item of each row.
        timestamps: [R] seconds, float64.
        columns: further attributes of the interactions by field name: [R], or [R, S] for lists of ids.
            Floats are raw, with NaN where the file has no value.
        starts: [R] row at which the history of the row's user begins.
    """

    user_ids: IntArray
    item_ids: IntArray
    timestamps: FloatArray
    columns: Mapping[str, npt.NDArray[np.generic]]
    starts: IntArray

    @classmethod
    def build(
        cls,
        user_ids: IntArray,
        item_ids: IntArray,
        *,
        timestamps: FloatArray,
        columns: Mapping[str, npt.NDArray[np.generic]],
    ) -> InteractionLog:
        """The log of interactions given in any order (columns [R], R rows each)."""
        order = time_order(user_ids, timestamps)
        return cls.ordered(
            user_ids[order],
            item_ids[order],
            timestamps=timestamps[order],
            columns={name: column[order] for name, column in columns.items()},
        )

    @classmethod
    def ordered(
        cls,
        user_ids: IntArray,
        item_ids: IntArray,
        *,
        timestamps: FloatArray,
        columns: Mapping[str, npt.NDArray[np.generic]],
    ) -> InteractionLog:
        """The log of interactions that are sorted by (user, time) already; nothing is copied."""
        is_first = np.r_[True, user_ids[1:] != user_ids[:-1]]
        return cls(
            user_ids=user_ids,
            item_ids=item_ids,
            timestamps=timestamps,
            columns=columns,
            starts=np.flatnonzero(is_first)[np.cumsum(is_first) - 1],
        )

    def of_rows(self, rows: IntArray) -> InteractionLog:
        """A log of the given rows alone, in ascending order; ``rows`` are sorted."""
        return self.ordered(
            self.user_ids[rows],
            self.item_ids[rows],
            timestamps=self.timestamps[rows],
            columns={name: column[rows] for name, column in self.columns.items()},
        )

    def __len__(self) -> int:
        return len(self.user_ids)

    def time_gaps(self, rows: IntArray) -> FloatArray:
        """Seconds between each row's interaction and the one before it; NaN for a user's first."""
        gaps = self.timestamps[rows] - self.timestamps[np.maximum(rows - 1, 0)]
        return np.where(rows > self.starts[rows], gaps, np.nan)

    def histories(
        self, ends: IntArray, *, max_length: int, width: int | None = None
    ) -> tuple[IntArray, IntArray]:
        """Rows of the history before each of ``ends`` (at most max_length newest), and its lengths.

        The rows are aligned to the left, oldest first, and padded on the right with −1: RecBole's way.

        Args:
            ends: rows, [B].
            max_length: most rows of a history.
            width: columns of the result; None is the longest history of these.

        >>> log = InteractionLog.build(np.array([7, 7, 7, 8]), np.array([1, 2, 3, 4]),
        ...                            timestamps=np.array([1.0, 2.0, 3.0, 1.0]), columns={})
        >>> rows, lengths = log.histories(np.array([2, 3]), max_length=5)
        >>> rows.tolist(), lengths.tolist()
        ([[0, 1], [-1, -1]], [2, 0])
        """
        lengths = np.minimum(ends - self.starts[ends], max_length)
        columns = np.arange(lengths.max(initial=1) if width is None else width)
        rows = (ends - lengths)[:, None] + columns
        return np.where(columns < lengths[:, None], rows, -1), lengths
