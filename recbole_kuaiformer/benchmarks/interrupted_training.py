"""Where a run's training goes on: after its last epoch, or anew where its files cannot be continued."""

from __future__ import annotations

from pathlib import Path

from recbole_kuaiformer import checkpoint, plugin
from recbole_kuaiformer.benchmarks import damaged_files, running
from recbole_kuaiformer.benchmarks.damaged_files import BEFORE, DAMAGED, DamagedError
from recbole_kuaiformer.benchmarks.epoch_clock import EpochClock

CHECKPOINTS = Path("saved")


def resumed(model: str, *, clock: EpochClock) -> dict[str, str]:
    """``resume_from`` the last epoch of an interrupted training; RecBole's own models begin anew.

    So does one of ours that cannot be continued: its files are said, and kept aside.
    """
    if model in plugin.MODELS:
        for last in sorted(CHECKPOINTS.glob("*-last.pth"), reverse=True):
            damaged = _damaged(last, clock=clock)
            if damaged is None:
                return {"resume_from": str(last)}
            kept = damaged_files.put_aside(last, ending=DAMAGED if damaged.file == last else BEFORE)
            if damaged.file != last and damaged.file.is_file():
                damaged_files.put_aside(damaged.file)
            running.say(f"{damaged}: training begins anew, and {last.name} is kept as {kept.name}")
        return {}
    for file in CHECKPOINTS.glob("*.pth"):
        file.unlink()
    return {}


def _damaged(last: Path, *, clock: EpochClock) -> DamagedError | None:
    """Why training cannot be continued from its last epoch; None where it can."""
    file = last
    try:
        state = checkpoint.load(last)
        file = last.with_name(state["best_model_file"])
        checkpoint.load(file)
    except FileNotFoundError:
        return DamagedError(file, "(the best epoch's checkpoint) is not there")
    except (checkpoint.CheckpointError, KeyError):
        return DamagedError(file, "is damaged")
    if clock.epochs <= state["epoch"]:
        return DamagedError(clock.file, f"does not hold the {state['epoch'] + 1} epochs of {last.name}")
    return None
