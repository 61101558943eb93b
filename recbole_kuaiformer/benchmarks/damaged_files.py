"""Files of a run that cannot be read: named, kept aside, and what they held made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recbole_kuaiformer.benchmarks.user_ranks import UserRanks

Row = dict[str, Any]

RESULT, RANKS = "run.json", "ranks.npz"
# Endings of what is kept aside: unreadable itself, or beside such a one.
DAMAGED, BEFORE = "damaged", "before"
_NUMBERS = ("seconds", "train_seconds", "test_users", "valid_score")


class DamagedError(ValueError):
    """A file of a run cannot be read, or lacks what it should hold; ``file`` is the one."""

    def __init__(self, file: Path, reason: str) -> None:
        self.file = file
        super().__init__(f"{file.resolve()} {reason}")


def read(file: Path) -> Row:
    """The JSON object in the file.

    Raises:
        DamagedError: there is none in it.
    """
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # no UTF-8 either
        raise DamagedError(file, f"is damaged ({type(error).__name__}: {error})") from error
    if not isinstance(held, dict):
        raise DamagedError(file, f"is damaged (no JSON object: {held!r:.40})")
    return held


def finished(folder: Path, *, with_ranks: bool) -> Row | None:
    """What the run in the folder came to; None where it has not finished, or without the ranks asked for.

    Raises:
        DamagedError: it has finished, and a file of its result cannot be read or lacks something.
    """
    file = folder / RESULT
    if not file.is_file():
        return None
    row = read(file)
    check(row, file=file)
    if with_ranks and not row["per_user"]:
        return None
    if with_ranks and row.get("has_ranks", True):
        _check_ranks(folder / RANKS, row)
    return row


def check(row: Row, *, file: Path) -> None:
    """Refuse a row that lacks what tables read of every finished run.

    Raises:
        DamagedError: names the file and what is missing.
    """
    numbers = all(isinstance(row.get(key), int | float) for key in _NUMBERS)
    readings = row.get("readings")
    has_readings = isinstance(readings, dict) and all(isinstance(one, dict) for one in readings.values())
    if not (numbers and has_readings and "per_user" in row and "valid_reading" in row):
        needed = ", ".join(("readings", "per_user", "valid_reading", *_NUMBERS))
        raise DamagedError(file, f"is damaged (it should hold {needed})")


def _check_ranks(file: Path, row: Row) -> None:
    try:
        ranks = UserRanks.load(file)
    except FileNotFoundError as error:
        raise DamagedError(file, "is not there") from error
    except ValueError as error:
        raise DamagedError(file, f"is damaged ({error})") from error
    lengths = {len(one) for one in (ranks.users, ranks.items, *ranks.ranks.values())}
    if len(lengths) != 1 or ranks.ranks.keys() != row["readings"].keys():
        raise DamagedError(file, "is damaged (not of the users and readings of the run)")


def put_aside(file: Path, *, ending: str = DAMAGED) -> Path:
    """Rename to <name>.<ending>, with a number where there is such a file; returns the new path."""
    number, aside = 1, file.with_name(f"{file.name}.{ending}")
    while aside.exists():
        number += 1
        aside = file.with_name(f"{file.name}.{ending}{number}")
    return file.rename(aside)


def put_result_aside(damaged: DamagedError) -> str:
    """Keep a finished run's result out of the way of the one to come; returns a line about it."""
    kept = []
    for name in (RESULT, RANKS):
        file = damaged.file.with_name(name)
        if file.is_file():
            ending = DAMAGED if file == damaged.file else BEFORE
            kept.append(put_aside(file, ending=ending).name)
    return f"{damaged}: the run is made again, and what was there kept as {' and '.join(kept)}"
