"""Stochastic Length: in training most long histories lose most of their items (HSTU, arXiv 2402.17152)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recbole_kuaiformer.data.log import FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class StochasticLength:
    """Keeps a history of n ≤ N^(α/2) items; of a longer one, with probability 1 − N^α/n², ⌊N^(α/2)⌋ items.

    Attention over what is left costs O(N^α) on average in place of O(N²).

    Attributes:
        max_length: N, the longest history.
        alpha: α in (0, 2]; 2 keeps everything.
        choice: which items stay: the most ``recent``, a ``uniform`` choice, or one ``weighted`` by time, in
            which item i has weight 1 − f_i / Σ_j f_j with f its age when the newest came.
    """

    max_length: int
    alpha: float
    choice: str

    @property
    def size(self) -> int:
        """⌊N^(α/2)⌋, items left of a history that loses any.

        >>> StochasticLength(256, 1.6, "recent").size
        84
        """
        return int(self.max_length ** (self.alpha / 2))

    def shortened(self, lengths: IntArray, *, rng: np.random.Generator) -> BoolArray:
        """Which of the histories lose items, of lengths [W]."""
        drawn = rng.random(len(lengths))
        kept_whole = self.max_length**self.alpha / np.maximum(lengths, 1).astype(np.float64) ** 2
        shortened: BoolArray = (lengths > self.size) & (drawn < 1 - kept_whole)
        return shortened

    def kept(self, ages: FloatArray, lengths: IntArray, *, rng: np.random.Generator) -> BoolArray:
        """``size`` items of each history (all of a shorter one), True where an item stays.

        Args:
            ages: [B, n] seconds from each item to the newest, oldest first and aligned to the left.
            lengths: [B] items of each history.
            rng: draws the same number whatever the lengths are.
        """
        columns = np.arange(ages.shape[1])
        there = columns < lengths[:, None]
        keys = self._keys(np.where(there, ages, 0.0), there=there, rng=rng)
        rank = np.where(there, keys, np.inf).argsort(axis=1, kind="stable").argsort(axis=1)
        return (rank < self.size) & there

    def _keys(self, ages: FloatArray, *, there: BoolArray, rng: np.random.Generator) -> FloatArray:
        """Numbers of which the smallest stay."""
        if self.choice == "recent":
            return -np.arange(ages.shape[1], dtype=np.float64) + np.zeros_like(ages)
        drawn = rng.exponential(size=ages.shape)
        if self.choice == "uniform":
            return drawn
        # The smallest of exponential numbers over their weights: drawn one by one, without replacement.
        total = np.nan_to_num(ages).sum(axis=1, keepdims=True)
        shares = np.divide(np.nan_to_num(ages), total, out=np.zeros_like(ages), where=total > 0)
        weights = np.where(there, np.maximum(1 - shares, np.finfo(float).tiny), 1.0)
        return drawn / weights
