"""The interaction log: flat columns and one offset for each user, ordered in 64-bit, stable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    return np.lexsort((timestamps, user_ids))  # a merge sort, so it is stable


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
        users = user_ids[order]
        is_first = np.r_[True, users[1:] != users[:-1]]
        starts = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
        return cls(
            user_ids=users,
            item_ids=item_ids[order],
            timestamps=timestamps[order],
            columns={name: column[order] for name, column in columns.items()},
            starts=starts,
        )

    def __len__(self) -> int:
        return len(self.user_ids)

    def time_gaps(self, rows: IntArray) -> FloatArray:
        """Seconds between each row's interaction and the one before it; NaN for a user's first."""
        gaps = self.timestamps[rows] - self.timestamps[np.maximum(rows - 1, 0)]
        return np.where(rows > self.starts[rows], gaps, np.nan)

    def histories(self, ends: IntArray, *, max_length: int) -> tuple[IntArray, IntArray]:
        """Rows of the history before each of ``ends`` (at most max_length newest), and its lengths.

        The rows are aligned to the left, oldest first, and padded on the right with −1: RecBole's way.

        >>> log = InteractionLog.build(np.array([7, 7, 7, 8]), np.array([1, 2, 3, 4]),
        ...                            timestamps=np.array([1.0, 2.0, 3.0, 1.0]), columns={})
        >>> rows, lengths = log.histories(np.array([2, 3]), max_length=5)
        >>> rows.tolist(), lengths.tolist()
        ([[0, 1], [-1, -1]], [2, 0])
        """
        lengths = np.minimum(ends - self.starts[ends], max_length)
        columns = np.arange(lengths.max(initial=1))
        rows = (ends - lengths)[:, None] + columns
        return np.where(columns < lengths[:, None], rows, -1), lengths
