"""Where a run's training goes on: after its last epoch, or anew where its files cannot be continued."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from recbole_kuaiformer import checkpoint, plugin
from recbole_kuaiformer.benchmarks import damaged_files, running
from recbole_kuaiformer.benchmarks.damaged_files import BEFORE, DAMAGED, DamagedError
from recbole_kuaiformer.benchmarks.epoch_clock import EpochClock

CHECKPOINTS = Path("saved")


def last_epoch(model: str, *, clock: EpochClock) -> Path | None:
    """The checkpoint of the last epoch of an interrupted training; None where it begins, or begins anew.

    One that cannot be continued is said, and its files are kept aside.
    """
    is_ours = model in plugin.MODELS
    for last in sorted(CHECKPOINTS.glob("*-last.pth"), reverse=True):
        damaged = _damaged(last, clock=clock, load_best=checkpoint.load if is_ours else _load_recboles)
        if damaged is None:
            return last
        kept = damaged_files.put_aside(last, ending=DAMAGED if damaged.file == last else BEFORE)
        if damaged.file != last and damaged.file.is_file():
            damaged_files.put_aside(damaged.file)
        running.say(f"{damaged}: training begins anew, and {last.name} is kept as {kept.name}")
    if not is_ours:
        for file in CHECKPOINTS.glob("*.pth"):
            file.unlink()
    return None


def forget_last_epoch(folder: Path) -> None:
    """Of a finished run in the folder the best epoch stays alone."""
    for file in (folder / CHECKPOINTS).glob("*-last.pth"):
        file.unlink()


def _damaged(last: Path, *, clock: EpochClock, load_best: Callable[[Path], Any]) -> DamagedError | None:
    """Why training cannot be continued from its last epoch; None where it can."""
    file = last
    try:
        state = checkpoint.load(last)
        if math.isfinite(state["best_valid_score"]):  # else nothing was validated before the interruption
            file = last.with_name(state["best_model_file"])
            load_best(file)
    except FileNotFoundError:
        return DamagedError(file, "(the best epoch's checkpoint) is not there")
    except (checkpoint.CheckpointError, KeyError):
        return DamagedError(file, "is damaged")
    if clock.epochs <= state["epoch"]:
        return DamagedError(clock.file, f"does not hold the {state['epoch'] + 1} epochs of {last.name}")
    return None


def _load_recboles(file: Path) -> None:
    """Read RecBole's own checkpoint, which this run has written.

    Raises:
        FileNotFoundError: it is not there.
        CheckpointError: it cannot be read.
    """
    try:
        torch.load(file, map_location="cpu", weights_only=False)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise checkpoint.CheckpointError(f"{file}: cut off or corrupt") from error
