"""An epoch's plan: which windows train together, on which targets, and what each of them draws anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recbole_kuaiformer.config import WindowSettings
from recbole_kuaiformer.data.horizon import Horizon
from recbole_kuaiformer.data.log import IntArray, InteractionLog
from recbole_kuaiformer.data.stochastic_length import BoolArray, StochasticLength
from recbole_kuaiformer.data.windows import Windows, n_batches_of


@dataclass(frozen=True)
class BatchPlan:
    """What one training step trains on, as rows of the log.

    Attributes:
        numbers: [B] windows.
        targets: [B, P] the rows that a position stands before: it sees what is older. −1 where there is none.
        predicted: [B, P] the rows whose items are predicted: the targets themselves, or later ones.
        histories: [B, n] what is left of each window's history, ascending and padded on the right with −1;
            None where nothing is left out.
    """

    numbers: IntArray
    targets: IntArray
    predicted: IntArray
    histories: IntArray | None = None

    def share(self, rank: int, *, world_size: int) -> BatchPlan:
        """One process's part of the windows; where none is left for it, one without a target."""
        if rank < len(self.numbers):
            return self._of(slice(rank, None, world_size))
        part = self._of(slice(1))
        nothing = np.full_like(part.targets, -1)
        return BatchPlan(part.numbers, nothing, nothing, part.histories)

    def _of(self, windows: slice) -> BatchPlan:
        return BatchPlan(
            self.numbers[windows],
            self.targets[windows],
            self.predicted[windows],
            None if self.histories is None else self.histories[windows],
        )


def horizon_of(log: InteractionLog, targets: IntArray, *, settings: WindowSettings) -> Horizon | None:
    """What positions before the target rows (ascending) predict; None where it is the targets themselves."""
    if settings.target_horizon == 1:
        return None
    events, seconds = settings.target_horizon, settings.target_horizon_seconds
    return Horizon.of(log, targets=targets, n_events=events, seconds=seconds)


class Planner:
    """Plans epochs of ``n_batches`` batches over windows; a plan depends on its seeds alone.

    Args:
        windows: of the training split.
        settings: of the windows.
    """

    def __init__(self, windows: Windows, *, settings: WindowSettings) -> None:
        self.windows, self.settings = windows, settings
        self.sizes = windows.sizes(settings.targets_per_window)
        self.n_batches = n_batches_of(self.sizes, batch_size=settings.train_batch_size)
        self.horizon = horizon_of(windows.log, np.flatnonzero(windows.is_target), settings=settings)
        self.stochastic_length = None
        if settings.stochastic_length_alpha is not None:
            self.stochastic_length = StochasticLength(
                max_length=settings.MAX_ITEM_LIST_LENGTH,
                alpha=settings.stochastic_length_alpha,
                choice=settings.stochastic_length_choice,
            )

    def batches(self, *, seeds: np.random.SeedSequence, shuffle: bool) -> Iterator[BatchPlan]:
        """The plan of each batch of an epoch; windows in order of the log unless they are shuffled."""
        # A generator for each purpose: what one draws does not change what the others draw.
        order, draws, futures, cuts, choices = map(np.random.default_rng, seeds.spawn(5))
        lengths, shortened = self.windows.lengths(self.settings.MAX_ITEM_LIST_LENGTH), None
        if self.stochastic_length is not None:
            shortened = self.stochastic_length.shortened(lengths, rng=cuts)
            lengths = np.where(shortened, self.stochastic_length.size, lengths)
        for numbers in self.windows.batches(
            self.n_batches, sizes=self.sizes, lengths=lengths, rng=order if shuffle else None
        ):
            histories = None if shortened is None else self._left(numbers, shortened[numbers], rng=choices)
            targets = self.windows.targets(
                numbers, n_drawn=self.settings.targets_per_window, rng=draws, histories=histories
            )
            predicted = targets if self.horizon is None else self.horizon.draw(targets, rng=futures)
            yield BatchPlan(numbers, targets, predicted, histories)

    def _left(self, numbers: IntArray, shortened: BoolArray, *, rng: np.random.Generator) -> IntArray:
        """Rows of each window's history that stay, [B, n], padded on the right with −1."""
        log, lasts = self.windows.log, self.windows.lasts[numbers]
        rows, lengths = log.histories(lasts, max_length=self.settings.MAX_ITEM_LIST_LENGTH)
        stays = rows >= 0
        if self.stochastic_length is not None and shortened.any():
            ages = log.timestamps[lasts - 1, None] - log.timestamps[rows]
            chosen = self.stochastic_length.kept(ages, lengths, rng=rng)
            stays &= chosen | ~shortened[:, None]
        packed = np.sort(np.where(stays, rows, len(log)), axis=1)[:, : int(stays.sum(1).max())]
        return np.where(packed < len(log), packed, -1)
