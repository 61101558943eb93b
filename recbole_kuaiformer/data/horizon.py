"""Which of a user's later interactions a position predicts: the next one, or one drawn among several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recbole_kuaiformer.data.log import FloatArray, IntArray, InteractionLog


@dataclass(frozen=True)
class Horizon:
    """For each training row the stretch of training rows that the history before it may predict.

    Dense all-action training (PinnerFormer, arXiv 2205.04507): a position of a history predicts one random
    positive among those that follow it. What follows is training rows alone, of the same history.

    Attributes:
        targets: [n] training rows, ascending.
        furthest: [n] index in ``targets`` of the last one that may be predicted, itself at least.
    """

    targets: IntArray
    furthest: IntArray

    @classmethod
    def of(
        cls, log: InteractionLog, *, targets: IntArray, n_events: int | None, seconds: float | None
    ) -> Horizon:
        """The horizon of each target, which is the first interaction of its own.

        Unlike the paper, a position that nothing follows within ``seconds`` predicts what comes next, so that
        every position trains.

        Args:
            log: where the rows are.
            targets: training rows, ascending.
            n_events: most training rows of a horizon; None for no limit.
            seconds: longest time from the last item seen to what is predicted; None for no limit.

        >>> log = InteractionLog.build(np.array([1, 1, 1, 1, 2, 2]), np.arange(6),
        ...                            timestamps=np.array([0.0, 5, 10, 90, 0, 1]), columns={})
        >>> rows = np.array([1, 2, 3, 5])
        >>> Horizon.of(log, targets=rows, n_events=2, seconds=None).furthest.tolist()
        [1, 2, 2, 3]
        >>> Horizon.of(log, targets=rows, n_events=None, seconds=10.0).furthest.tolist()
        [1, 1, 2, 3]
        """
        starts, first = log.starts[targets], np.arange(len(targets))
        furthest = np.searchsorted(starts, starts, side="right") - 1
        if n_events is not None:
            furthest = np.minimum(furthest, first + n_events - 1)
        if seconds is not None:
            limits = log.timestamps[targets - 1] + seconds
            furthest = np.minimum(furthest, _last_until(limits, times=log.timestamps[targets], starts=starts))
        return cls(targets=targets, furthest=np.maximum(furthest, first))

    def draw(self, rows: IntArray, *, rng: np.random.Generator) -> IntArray:
        """What each target row's position predicts: a row of its horizon, uniformly; −1 for −1."""
        first = np.searchsorted(self.targets, np.maximum(rows, self.targets[0]))
        last = self.furthest[first]
        return np.where(rows < 0, -1, self.targets[rng.integers(first, last, endpoint=True)])

    def expected(self) -> FloatArray:
        """How often an epoch predicts each of ``targets``, on average, if it trains every position: [n].

        A history's last row is in the most and the shortest horizons: 1 + 1/2 + … + 1/w of w events.
        """
        first = np.arange(len(self.targets))
        shares = 1.0 / (self.furthest - first + 1)
        beyond = np.bincount(self.furthest + 1, weights=shares, minlength=len(shares) + 1)
        return (np.r_[shares, 0.0] - beyond).cumsum()[:-1]  # type: ignore[no-any-return]


def _last_until(limits: FloatArray, *, times: FloatArray, starts: IntArray) -> IntArray:
    """For each row the index of the last row of the same start whose time is at most the row's limit.

    Rows are sorted by (start, time). Where there is none of the start, an index before it comes out.
    """
    n = len(times)
    is_limit = np.repeat([False, True], n)
    order = np.lexsort((is_limit, np.r_[times, limits], np.r_[starts, starts]))
    found = np.empty(2 * n, dtype=np.int64)
    found[order] = np.cumsum(~is_limit[order]) - 1
    return found[n:]
