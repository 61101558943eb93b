"""Log → training windows: a stretch of a user's history that serves several targets in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recbole_kuaiformer.data.log import IntArray, InteractionLog

BATCHES_PER_BUCKET = 32  # windows are sorted by length inside stretches of this many batches


@dataclass(frozen=True)
class Windows:
    """Windows over a log; window w trains on the rows ``firsts[w]`` .. ``lasts[w]`` that are targets.

    Its history is what stands before its last target, so each earlier target sees fewer of the newest
    items: the target in row t must not see the last ``lasts[w] − t`` of them.

    Attributes:
        log: where the rows are.
        is_target: [R] True where the row is trained on.
        firsts: [W] first row of the window's span. lasts: [W] its last row, a target.
    """

    log: InteractionLog
    is_target: np.ndarray[tuple[int], np.dtype[np.bool_]]
    firsts: IntArray
    lasts: IntArray

    @classmethod
    def cut(
        cls, log: InteractionLog, *, targets: IntArray, span: int, per_user: int | None = None
    ) -> Windows:
        """Windows in which each target row lies exactly once; spans of at most ``span`` rows.

        Spans are counted from a user's newest target backwards, so the newest are full. With ``per_user``
        the newest so many of a user are kept, and targets of older ones are not trained on.

        Raises:
            ValueError: there is no target, or a target has no history (a user's first row).

        >>> log = InteractionLog.build(np.zeros(6, int), np.arange(1, 7),
        ...                            timestamps=np.arange(6.0), columns={})
        >>> windows = Windows.cut(log, targets=np.array([1, 2, 3, 4]), span=3)
        >>> windows.firsts.tolist(), windows.lasts.tolist()
        ([1, 2], [1, 4])
        """
        if len(targets) == 0:
            raise ValueError("the training split holds no interaction that has a history before it")
        targets = np.sort(targets)
        starts = log.starts[targets]
        if np.any(targets == starts):
            raise ValueError("a user's first interaction cannot be a target: nothing stands before it")
        newest = targets[np.searchsorted(starts, starts, side="right") - 1]
        number = (newest - targets) // span  # of the window, counted back from the user's newest target
        if per_user is not None:
            kept = number < per_user
            targets, starts, number = targets[kept], starts[kept], number[kept]
        begins = np.r_[True, (starts[1:] != starts[:-1]) | (number[1:] != number[:-1])]
        ends = np.r_[begins[1:], True]
        is_target = np.zeros(len(log), dtype=bool)
        is_target[targets] = True
        return cls(log=log, is_target=is_target, firsts=targets[begins], lasts=targets[ends])

    def __len__(self) -> int:
        return len(self.firsts)

    def lengths(self, max_length: int) -> IntArray:
        """Items of each window's history, at most max_length newest: [W]."""
        lengths: IntArray = np.minimum(self.lasts - self.log.starts[self.lasts], max_length)
        return lengths

    def sizes(self, n_drawn: int | None = None) -> IntArray:
        """Targets of each window, at most ``n_drawn`` if so many are drawn: [W]."""
        before = np.r_[0, self.is_target.cumsum()]
        sizes: IntArray = before[self.lasts + 1] - before[self.firsts]
        return sizes if n_drawn is None else np.minimum(sizes, n_drawn)

    def batches(
        self, n_batches: int, *, sizes: IntArray, lengths: IntArray, rng: np.random.Generator | None
    ) -> Iterator[IntArray]:
        """Window numbers of each batch of an epoch, about equally large; in order of the log without ``rng``.

        Shuffled windows are sorted by length within stretches of BATCHES_PER_BUCKET batches, so that those of
        a batch are about equally long and little is spent on padding.

        Args:
            n_batches: how many, no more than there are windows.
            sizes: [W] targets of each window.
            lengths: [W] items of each window's history.
            rng: shuffles.
        """
        order = np.arange(len(self))
        if rng is not None:
            order = rng.permutation(order)
            stretch = _batch_numbers(sizes[order], n_batches) // BATCHES_PER_BUCKET
            order = order[np.lexsort((lengths[order], stretch))]
        numbers = _batch_numbers(sizes[order], n_batches)
        batches = np.split(order, np.flatnonzero(np.diff(numbers)) + 1)
        if rng is not None:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        yield from batches

    def targets(
        self,
        windows: IntArray,
        *,
        n_drawn: int | None,
        rng: np.random.Generator | None,
        histories: IntArray | None = None,
    ) -> IntArray:
        """Target rows of the given windows, [B, P], padded on the right with −1.

        Args:
            windows: window numbers, [B].
            n_drawn: how many targets of each window to draw, without replacement; None takes all.
            rng: needed to draw.
            histories: rows that are left of each window's history, [B, n], ascending and padded with −1:
                a row that is not left is no target either, nor is the oldest one, which nothing stands
                before; a window's last row always is.
        """
        firsts, lasts = self.firsts[windows], self.lasts[windows]
        width = int((lasts - firsts).max()) + 1
        rows = firsts[:, None] + np.arange(width)
        real = (rows <= lasts[:, None]) & self.is_target[np.minimum(rows, len(self.log) - 1)]
        if histories is not None:
            left = np.zeros_like(real)
            window, column = np.nonzero(histories >= firsts[:, None])
            left[window, histories[window, column] - firsts[window]] = True
            real &= (left & (rows > histories[:, :1])) | (rows == lasts[:, None])
        if n_drawn is not None and n_drawn < width:
            if rng is None:
                raise ValueError("drawing targets needs a random generator")
            rank = np.where(real, rng.random(rows.shape), 2.0).argsort(1).argsort(1)
            real &= rank < n_drawn
        packed = np.where(real, rows, len(self.log))
        packed.sort(axis=1)  # the chosen rows to the left, in order of time
        packed = packed[:, : int(real.sum(1).max())]
        return np.where(packed < len(self.log), packed, -1)


def n_batches_of(sizes: IntArray, *, batch_size: int) -> int:
    """How many batches of about ``batch_size`` targets, and a window at least, windows of these sizes make.

    >>> n_batches_of(np.array([5, 5, 5, 5]), batch_size=8)
    3
    >>> n_batches_of(np.array([100, 5, 5, 5]), batch_size=40)  # a large window swells its own batch alone
    3
    >>> n_batches_of(np.array([5, 5, 5, 5]), batch_size=2)  # a batch holds at least one window
    4
    """
    return max(1, min(-(-int(sizes.sum()) // batch_size), len(sizes)))


def _batch_numbers(sizes: IntArray, n_batches: int) -> IntArray:
    """The batch, from 0, of each of the windows in this order: where the middle of its targets falls.

    Where that would leave a batch empty, beside a window larger than a batch, it takes the next window.
    """
    ends = sizes.cumsum()
    middles = (2 * ends - sizes) * n_batches // (2 * ends[-1])
    batches = np.arange(n_batches)
    begins = np.searchsorted(middles, batches)  # the first window of each batch
    begins = np.maximum.accumulate(begins - batches) + batches
    begins = np.minimum(begins, len(sizes) - n_batches + batches)
    numbers: IntArray = np.searchsorted(begins, np.arange(len(sizes)), side="right") - 1
    return numbers
