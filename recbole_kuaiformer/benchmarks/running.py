"""Cases in processes of their own, one after the other; what is finished is not measured again."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import recbole_kuaiformer
from recbole_kuaiformer.benchmarks import measuring
from recbole_kuaiformer.settings import SettingsError

Rows = list[dict[str, Any]]
Result = dict[str, Any]  # {"case": …, "rows": …, "seconds": …}

SECONDS_TO_END = 10.0  # of a process that is told to, before it is killed
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h
_PARENT = "RECBOLE_KUAIFORMER_PARENT"  # variable of the environment: the process that began this one
PROGRESS = "progress: "  # lines of a case's stderr that begin so are shown while it runs


def environment() -> dict[str, str]:
    """The environment of a child that must import this very package, wherever it runs, and end with us."""
    root = str(Path(recbole_kuaiformer.__file__).resolve().parent.parent)
    given = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([root, *([given] if given else [])])
    return {**os.environ, "PYTHONPATH": path, _PARENT: str(os.getpid())}


def measured(
    case: dict[str, Any], *, module: str, folder: Path | None = None, held: tuple[int, ...] = ()
) -> Rows:
    """The rows of a case, measured by ``python -m module`` in a process and an empty folder of its own.

    A case that dies is a row that says so. The module prints its rows, or its one row, as the last line.

    Args:
        case: handed over as JSON, the module's one argument.
        module: of the package.
        folder: where the process works in the empty folder's place, and what it wrote there stays.
        held: file descriptors that it keeps open, as of ``run_folder.alone_in``.
    """
    command = [sys.executable, "-m", module, json.dumps(case)]
    with (
        _exiting_when_told(),
        tempfile.TemporaryDirectory() as empty,
        tempfile.TemporaryFile("w+") as printed,
    ):
        place = folder or empty
        process = subprocess.Popen(
            command,
            stdout=printed,
            stderr=subprocess.PIPE,
            text=True,
            cwd=place,
            env=environment(),
            pass_fds=held,
        )
        with _ended_with(process):
            last = _last_line(process)
            process.wait()
        if process.returncode:
            return [{**case, "failed": _reason(process.returncode, last=last)}]
        printed.seek(0)
        answer = json.loads(printed.read().strip().splitlines()[-1])
    return [{"kind": case["kind"], **row} for row in (answer if isinstance(answer, list) else [answer])]


@contextlib.contextmanager
def _exiting_when_told() -> Iterator[None]:
    """SIGTERM is an exit that cleans up, unless it is ignored; in the main thread, where alone it can be."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    if before != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextlib.contextmanager
def _ended_with(process: subprocess.Popen[str]) -> Iterator[None]:
    """The process ends when what waits for it is interrupted or told to end: it writes into its folder."""
    try:
        yield
    except KeyboardInterrupt:  # which a terminal sends to the process as well
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
        raise
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def end_with_parent() -> None:
    """On Linux this process ends should the one that began it be killed: the next one begins in its place."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.environ.get(_PARENT, str(os.getppid())) != str(os.getppid()):  # killed before that
            sys.exit("the process that began this one is gone")


def _reason(status: int, *, last: str) -> str:
    """The last line said; of a killed process that it was killed, as when memory runs out."""
    if status < 0:
        return f"killed by signal {-status} (9: memory may have run out); it had said last: {last}"
    return last or f"exit status {status}"


def _last_line(process: subprocess.Popen[str]) -> str:
    """The last line of the process's stderr, read to its end."""
    lines: deque[str] = deque(maxlen=1)
    for line in process.stderr or ():
        if line.startswith(PROGRESS):
            print(f"  {line.removeprefix(PROGRESS).rstrip()}", flush=True)
        elif line.strip():
            lines.append(line.strip())
    return lines[0] if lines else ""


def results(
    cases: list[dict[str, Any]], *, module_of: Callable[[dict[str, Any]], str], earlier: Iterable[Result]
) -> Iterator[Result]:
    """The result of each case, in order: an earlier one where it succeeded, else measured now.

    Args:
        cases: what to measure; a case has a ``kind``.
        module_of: the module that measures a case.
        earlier: results of earlier runs.
    """
    known = {key(result["case"]): result for result in earlier if not failed(result["rows"])}
    for number, case in enumerate(cases, start=1):
        start = time.perf_counter()
        result = known.get(key(case))
        if result is None:
            rows = measured(case, module=module_of(case))
            result = {"case": case, "rows": rows, "seconds": time.perf_counter() - start, **provenance()}
        print(f"{number}/{len(cases)} {title(case)}: {time.perf_counter() - start:.0f} s", flush=True)
        yield result


def provenance() -> dict[str, Any]:
    """Commit, day and threads of a measurement."""
    return {
        "commit": measuring.commit(),
        "date": today(),
        "threads": measuring.machine()["threads"],
    }


def today() -> str:
    """The day, in UTC."""
    return datetime.now(timezone.utc).date().isoformat()


def of_other_code(earlier: Iterable[Result]) -> list[Result]:
    """Earlier results of another commit or number of threads; the report says so beside them."""
    now = provenance()
    return [one for one in earlier if any(one.get(name) != now[name] for name in ("commit", "threads"))]


def title(case: dict[str, Any]) -> str:
    """What a case is, in the words of its plain values."""
    return " ".join(str(value) for value in case.values() if isinstance(value, str | int) and value != "")


def failed(rows: Rows) -> bool:
    """Whether any row tells of a failure."""
    return any("failed" in row for row in rows)


def key(case: dict[str, Any]) -> str:
    """What tells one case from another."""
    return json.dumps(case, sort_keys=True)


def say(line: str) -> None:
    """In a case's process: show the line while it runs, on whose stdout the rows alone stand."""
    print(f"{PROGRESS}{line}", file=sys.stderr, flush=True)


def read(file: Path) -> dict[str, Any]:
    """The JSON of an earlier run; empty where there is none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def write(file: Path, result: dict[str, Any]) -> None:
    """Write the JSON whole or not at all, so that an interrupted run can go on from it."""
    write_text(file, json.dumps(result, indent=1))


def results_folder(out: Path, *, within: Iterable[Path] = ()) -> Path:
    """The folder of results, made where it is not there.

    Args:
        out: the folder.
        within: folders that are to be made in it as the work goes on.

    Raises:
        SettingsError: a file is in the place of one of them.
    """
    for folder in (out, *within):
        check_no_file(folder)
    out.mkdir(parents=True, exist_ok=True)
    return out


def check_no_file(out: Path) -> None:
    """Refuse a folder of results in whose place a file is, before the work that they come from.

    Raises:
        SettingsError: names the folder.
    """
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir():
        raise SettingsError(f"--out {out}: a file is in the place of the folder {there}")


def write_text(file: Path, text: str) -> None:
    """Write the file whole or not at all, also where another process writes it."""
    half = file.with_name(f"{file.name}.{os.getpid()}.half")
    half.write_text(text, encoding="utf-8")
    half.replace(file)
