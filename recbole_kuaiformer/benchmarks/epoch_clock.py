"""Seconds of training, epoch by epoch, in a file: a continued run knows what it has spent."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from recbole_kuaiformer.benchmarks import damaged_files, running
from recbole_kuaiformer.benchmarks.damaged_files import DamagedError

SAYS_AFTER = 30.0  # seconds between two lines about the training


class OutOfTimeError(Exception):
    """The time budget was spent by the epochs before."""


class EpochClock:
    """What the epochs of a training took and reached.

    Validation is not counted: it costs the same whatever was trained, and models differ in it.

    Args:
        file: where it is kept; one that cannot be read is said, kept aside, and the clock begins anew.
        budget: seconds of training; once they are spent no further epoch begins. None for no bound.
    """

    def __init__(self, file: Path, *, budget: float | None) -> None:
        self.file, self.budget = file, budget
        self._seconds, self._valid = _held(file)
        self._said = time.perf_counter()

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return len(self._seconds)

    @property
    def seconds(self) -> float:
        """Seconds they took, without validation."""
        return sum(self._seconds)

    def best_epoch(self, *, bigger: bool) -> int | None:
        """Number, from 1, of the first epoch that validated best; None where nothing was validated."""
        sign = 1 if bigger else -1
        best = max(self._valid, key=lambda pair: (sign * pair[1], -pair[0]), default=None)
        return None if best is None else best[0] + 1

    def begin(self, epoch: int) -> None:
        """Forget what was spent on this epoch and later ones before an interruption.

        Raises:
            OutOfTimeError: there is no time left for another epoch.
        """
        del self._seconds[epoch:]
        self._valid = [pair for pair in self._valid if pair[0] < epoch]
        if self._seconds and self.is_spent:
            raise OutOfTimeError

    @property
    def is_spent(self) -> bool:
        """Whether there is a budget, and nothing left of it."""
        return self.budget is not None and self.seconds >= self.budget

    def expected_epochs(self, most: int) -> int:
        """Epochs until the budget is spent, at the mean pace so far.

        Args:
            most: the answer while there is no pace yet, or no budget; never more.
        """
        if self.budget is None or not self._seconds:
            return most
        return min(most, max(self.epochs, math.ceil(self.budget * self.epochs / self.seconds)))

    def trained(self, seconds: float) -> None:
        """An epoch more is done."""
        self._seconds.append(seconds)
        self._keep()

    def validated(self, epoch: int, score: float) -> None:
        """RecBole's ``callback_fn``: what an epoch reached."""
        self._valid.append((epoch, float(score)))
        self._keep()
        if time.perf_counter() - self._said > SAYS_AFTER:
            self._said = time.perf_counter()
            running.say(f"epoch {epoch + 1}: valid {score:.4f}, {self.seconds:.0f} s of training")

    def _keep(self) -> None:
        running.write(self.file, {"seconds": self._seconds, "valid": self._valid})


def _held(file: Path) -> tuple[list[float], list[tuple[int, float]]]:
    """Seconds of every epoch, and what those that were validated reached."""
    if not file.is_file():
        return [], []
    try:
        held = damaged_files.read(file)
        return [float(one) for one in held["seconds"]], [(int(n), float(score)) for n, score in held["valid"]]
    except (ValueError, KeyError, TypeError) as error:
        damaged = error
        if not isinstance(error, DamagedError):
            damaged = DamagedError(file, f"is damaged ({type(error).__name__}: {error})")
        running.say(f"{damaged}: kept as {damaged_files.put_aside(file).name}")
        return [], []


class Timed:
    """Mixed into a trainer: its epochs are timed, and none begins after the time is up.

    The learning rate of this package's models falls over the epochs that fit the budget, and the last epoch
    is validated whatever ``eval_step``.
    """

    clock: EpochClock
    epochs: int
    eval_step: int

    @property
    def expected_epochs(self) -> int:
        """Of the trainer, for the schedule: those that fit the budget."""
        return self.clock.expected_epochs(self.epochs)

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        recbole: Any = super()
        self.clock.begin(epoch_idx)
        start = time.perf_counter()
        loss = recbole._train_epoch(train_data, epoch_idx, *args, **kwargs)
        self.clock.trained(time.perf_counter() - start)
        if self.clock.is_spent or epoch_idx + 1 == self.epochs:
            self.eval_step = min(self.eval_step, 1)
        return loss
