"""Epoch time: systems trained in turn, each in a process of its own.

In turn, so that a busy machine slows all of them alike; a process each, for the peak memory of each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from recbole_kuaiformer.benchmarks import measuring, peers, running, training_systems

Rows = list[dict[str, Any]]


class WorkerError(RuntimeError):
    """A system's process ended; the message is the last line it wrote."""


class Worker:
    """A system in a process of its own that trains when asked to."""

    def __init__(self, command: list[str], *, errors: Any) -> None:
        self._errors = errors
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=running.environment(),
        )
        self.absent = ""
        self.facts: dict[str, Any] = {}

    def build(self) -> None:
        """Let it build its data and model; the libraries were imported while others did theirs."""
        self.absent = self._answer().get("absent", "")
        if not self.absent:
            self.imported_mib = measuring.process_mib("VmRSS", pid=self._process.pid)
            self.facts = self._ask("build")

    def train(self, seconds: float) -> dict[str, Any]:
        """Seconds, targets and steps of a stretch that takes at least so many seconds."""
        return self._ask(str(seconds))

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)
        return self._answer()

    def peak_mib(self) -> float:
        """MiB at the peak, dataset and training, beyond the imported libraries."""
        return measuring.process_mib("VmHWM", pid=self._process.pid) - self.imported_mib

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            last = [text for text in self._errors.read().splitlines() if text.strip()]
            raise WorkerError(last[-1].strip() if last else f"exit status {status}")
        return json.loads(line)  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def worker(case: dict[str, Any]) -> Iterator[Worker]:
    """The process of ``case["system"]``, ready to train."""
    if case["system"] in training_systems.SYSTEMS:
        command = [sys.executable, "-m", training_systems.__name__, json.dumps(case)]
    else:
        command = [case["peer_python"] or sys.executable, peers.__file__, json.dumps(case)]
    with tempfile.TemporaryFile("w+") as errors:
        made = Worker(command, errors=errors)
        try:
            yield made
        finally:
            made.close()


def epoch(case: dict[str, Any]) -> Rows:
    """Targets a second of each system, round by round, with its build time and peak memory.

    One step of each is a warm-up; in a round every system trains for ``seconds``, at least one step. A system
    that fails, or that is not installed, is a row that says so; the others go on.
    """
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.npz"
        if not set(case["systems"]) <= set(training_systems.SYSTEMS):
            training_systems.write_training_log(case, file=log)
        workers = {
            name: stack.enter_context(worker({**case, "system": name, "log": str(log)}))
            for name in case["systems"]
        }
        trained = _rounds(workers, case=case)
        place = {key: case[key] for key in ("dataset", "length")}
        rows = [{**place, "system": name, **_row(system, trained[name])} for name, system in workers.items()]
    return _with_whole_epochs(rows)


def _rounds(workers: dict[str, Worker], *, case: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What each system answered, round by round: it builds, warms up by a step, and is timed."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for number in range(-1, case["rounds"] + 1):
        for name, system in workers.items():
            if system.absent or (answers[name] and "failed" in answers[name][-1]):
                continue
            try:
                if number < 0:
                    system.build()
                else:
                    answer = system.train(case["seconds"] if number else 0.0)
                    answers[name].append({**answer, "peak_mib": system.peak_mib()})
            except (WorkerError, BrokenPipeError) as error:
                answers[name].append({"failed": str(error)})
        done = f"round {number} of {case['rounds']}" if number > 0 else ("warm" if number == 0 else "built")
        print(f"{running.PROGRESS}{done}", file=sys.stderr, flush=True)
    return answers


def _row(system: Worker, trained: list[dict[str, Any]]) -> dict[str, Any]:
    if system.absent:
        return {"absent": system.absent}
    if "failed" in trained[-1]:
        return {**system.facts, "failed": trained[-1]["failed"]}
    timed = trained[1:]  # the first is the warm-up
    return {
        **system.facts,
        "targets_per_second": [stretch["targets"] / stretch["seconds"] for stretch in timed],
        "steps": sum(stretch["steps"] for stretch in timed),
        "targets": sum(stretch["targets"] for stretch in timed),
        "peak_mib": trained[-1]["peak_mib"],
    }


def _with_whole_epochs(rows: Rows) -> Rows:
    """Each row with the time of an epoch of all targets, however many its system's own epoch trains."""
    targets = max((row.get("epoch_targets", 0) for row in rows), default=0)
    for row in rows:
        if "targets_per_second" in row:
            speed = measuring.median(row["targets_per_second"])
            row["all_targets"] = targets
            row["epoch_seconds"] = targets / speed + row["epoch_start_seconds"]
            row["measured_share"] = row["targets"] / targets
    return rows
