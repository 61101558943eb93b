"""The runs of a comparison one after the other: finished ones are taken as they are, failed ones recorded."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_kuaiformer.benchmarks import damaged_files, running
from recbole_kuaiformer.benchmarks.damaged_files import DamagedError
from recbole_kuaiformer.benchmarks.interrupted_training import forget_last_epoch
from recbole_kuaiformer.benchmarks.run_folder import alone_in
from recbole_kuaiformer.settings import SettingsError

Case = dict[str, Any]
Row = dict[str, Any]

MODULE = "recbole_kuaiformer.benchmarks.comparison_run"
FACTS = (
    "kind",
    "model",
    "name",
    "dataset",
    "seed",
    "time_budget",
    "identity",
    "params",
    "resolved",
)  # of a case, in its row


def folder_of(case: Case, *, out: Path) -> Path:
    """Where a run lives: its log, epochs, checkpoint, ranks and result."""
    name = f"{case['model']}-seed{case['seed']}-{case['identity']}"
    return out.joinpath("runs", case["dataset"], name)


def folders_of(cases: Iterable[Case], *, out: Path) -> set[Path]:
    """Where the runs live, each in one of its own."""
    return {folder_of(case, out=out) for case in cases}


def published(
    files: Sequence[str], *, cases: Iterable[Case] = (), folders: Sequence[Path] = ()
) -> dict[str, Row] | None:
    """The finished runs that earlier comparisons' <dataset>.json hold, by identity; None for no file.

    Args:
        files: as ``compare.report`` writes them; a run that several hold is the first one's.
        cases: what will run, and
        folders: where its tables go: none of them may be read here, as runs not asked for would be lost.

    Raises:
        SettingsError: a file cannot be read, has another form or is among those written.
    """
    if not files:
        return None
    found: dict[str, Row] = {}
    written = {(folder / f"{case['dataset']}.json").resolve() for folder in folders for case in cases}
    for name in files:
        if Path(name).resolve() in written:
            raise SettingsError(f"--published {name}: will be written; give another --out, or a copy of it")
        try:
            runs = json.loads(Path(name).read_text(encoding="utf-8"))["runs"]
            finished = {row["identity"]: _whole(row, name=name) for row in runs if "failed" not in row}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise SettingsError(
                f"--published {name}: not the <dataset>.json of a comparison ({reason})"
            ) from error
        found = {**finished, **found}
    return found


def _whole(row: Row, *, name: str) -> Row:
    """A row of a file, with all that tables read of it, and the file that it is first from."""
    for key in ("seconds", "test_users", "valid_reading", "valid_score", "train_seconds"):
        row[key]
    for metrics in row["readings"].values():
        metrics.items()
    return {"published": name, **row}


def rows(cases: Sequence[Case], *, out: Path, known: Mapping[str, Row] | None = None) -> Iterator[Row]:
    """Each run's row, in order: an earlier one where it was finished, else of a run now.

    Args:
        cases: the runs.
        out: where they lie, finished or not.
        known: rows from elsewhere by identity (``published``), without ranks, taken where ``out`` has none.

    A run that another process is at is waited for, and taken from it. One of which a file is damaged is made
    again, and the file kept aside. One that fails is a row with
    ``failed``; it is tried again the next time. Says after each how far the whole is.
    """
    finished: list[Row] = []
    began = time.perf_counter()
    there = [earlier(case, out=out, known=known) for case in cases]
    open_ = {case["identity"] for case, row in zip(cases, there) if row is None}
    if known is not None:
        n_taken = sum("published" in row for row in there if row)
        print(f"{n_taken} of {len(cases)} runs are taken from published tables", flush=True)
    for number, case in enumerate(cases, start=1):
        row = earlier(case, out=out, known=known)
        is_new = row is None
        if row is None:
            print(f"{number}/{len(cases)} {_title(case)} …", flush=True)
            asked = time.time()
            with alone_in(folder_of(case, out=out)) as held:
                row = earlier(case, out=out) or _failed_since(asked, case, out=out)
                row = row or _run(case, out=out, held=held)
        finished.append(row)
        if "failed" not in row:
            open_.discard(case["identity"])
        left = time_left([one for one in cases[number:] if one["identity"] in open_], finished=finished)
        spent = clock_time(time.perf_counter() - began)
        state = _state(row, is_new=is_new)
        print(f"{number}/{len(cases)} {_title(case)} {state}; {spent} so far, about {left} to go", flush=True)
        yield row


def _state(row: Row, *, is_new: bool) -> str:
    if "failed" in row:
        return f"failed: {row['failed']}"
    if "published" in row:
        return f"taken from {row['published']}"
    return "done" if is_new else "was done"


def earlier(case: Case, *, out: Path, known: Mapping[str, Row] | None = None) -> Row | None:
    """The row of this very run, if it was finished, with ranks if asked for; or that of ``known``.

    None where a file of it is damaged: it is to be made again.
    """
    try:
        row = damaged_files.finished(folder_of(case, out=out), with_ranks=case["per_user"])
    except DamagedError:
        return None
    if row:
        return {**_facts(case, out=out), **row}
    row = (known or {}).get(case["identity"], {})
    return {**row, **_facts(case, out=out), "per_user": False} if row else None


def _failed_since(moment: float, case: Case, *, out: Path) -> Row | None:
    """The row of a run that failed after that time, in another process that was waited for."""
    file = folder_of(case, out=out) / "failed.json"
    if not file.is_file() or file.stat().st_mtime <= moment:
        return None
    try:
        return {**_facts(case, out=out), **damaged_files.read(file)}
    except DamagedError:
        return None


def _run(case: Case, *, out: Path, held: tuple[int, ...]) -> Row:
    """The row of a run made now; what is damaged of an earlier one is said, and kept aside."""
    folder = folder_of(case, out=out)
    try:
        damaged_files.finished(folder, with_ranks=case["per_user"])
    except DamagedError as damaged:
        print(f"  {damaged_files.put_result_aside(damaged)}", flush=True)
    start = time.perf_counter()
    (row,) = running.measured(_handed_over(case), module=MODULE, folder=folder, held=held)
    row["seconds"] = time.perf_counter() - start
    if "failed" in row:
        failure = {key: row[key] for key in ("failed", "seconds")}
        running.write(folder / "failed.json", failure)
        return {**_facts(case, out=out), **failure}
    (folder / "failed.json").unlink(missing_ok=True)
    running.write(folder / "run.json", row)
    forget_last_epoch(folder)
    return {**_facts(case, out=out), **row}


def _handed_over(case: Case) -> Case:
    return {key: value for key, value in case.items() if key not in ("resolved", "params", "name")}


def _facts(case: Case, *, out: Path) -> Row:
    return {**{key: case[key] for key in FACTS}, "folder": str(folder_of(case, out=out).relative_to(out))}


def _title(case: Case) -> str:
    return f"{case['dataset']} {case['name']} seed {case['seed']}"


def time_left(open_: Sequence[Case], *, finished: Sequence[Row]) -> str:
    """How long the open runs may take, by the median of the nearest kind of finished ones.

    Nearest is of the same name and dataset, then of the same model, then of the same dataset, then any.
    """
    total = 0.0
    for case in open_:
        near = [
            [row for row in finished if all(row[key] == case[key] for key in keys) and "failed" not in row]
            for keys in (("name", "dataset"), ("model", "dataset"), ("dataset",), ())
        ]
        found = next((rows for rows in near if rows), None)
        if found is None:
            return "an unknown time"
        total += statistics.median(row["seconds"] for row in found)
    return clock_time(total)


def clock_time(seconds: float) -> str:
    """A duration in words.

    >>> clock_time(59.6), clock_time(3599), clock_time(7260)
    ('1 min', '1 h', '2 h 1 min')
    """
    minutes = round(seconds / 60)
    if minutes == 0:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h" if hours else "", f"{minutes} min" if minutes else ""]
    return " ".join(part for part in parts if part)
