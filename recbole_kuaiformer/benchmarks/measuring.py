"""Seconds, percentiles and peak memory of a piece of code."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_PROC, _CLEAR = Path("/proc"), Path("/proc/self/clear_refs")


def seconds(work: Callable[[], Any], *, repeats: int, warm_up: int = 1) -> list[float]:
    """Wall seconds of each repetition, after a warm-up."""
    for _ in range(warm_up):
        work()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return taken


def interleaved(works: dict[str, Callable[[], Any]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of several works taken in turn, so that a busy machine slows all of them alike."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            taken[name] += seconds(work, repeats=1, warm_up=0)
    return taken


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p95 and p99, in the unit of the values."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {f"p{p}": ordered[round(p / 100 * last)] for p in (50, 95, 99)}


def median(values: list[float]) -> float:
    """The median."""
    return statistics.median(values)


def peak_mib(work: Callable[[], Any]) -> float | None:
    """MiB that the process's memory rises above where it stands, while work runs once; None if not Linux.

    What earlier work freed is handed back to the system first: else it would be used again unseen.
    """
    if not _CLEAR.exists():
        return None
    gc.collect()
    _trim()
    before = process_mib("VmRSS")
    _CLEAR.write_text("5")  # resets the high-water mark
    work()
    return max(0.0, process_mib("VmHWM") - before)


def _trim() -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc
        libc.malloc_trim(0)


def process_mib(key: str, *, pid: int | None = None) -> float:
    """MiB of a process by the kernel's key (VmRSS now, VmHWM the most it had); NaN without /proc."""
    file = _PROC / ("self" if pid is None else str(pid)) / "status"
    if not file.exists():
        return math.nan
    for line in file.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"{file}: no {key}")


def available_gib() -> float:
    """Memory that can be taken without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) / 2**20
    raise OSError("/proc/meminfo: no MemAvailable")


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def commit(folder: Path = Path(__file__).parent) -> str:
    """The commit of the checkout that this package is run from, with -dirty where its files are others.

    Args:
        folder: that holds this file; unknown where it is in no checkout of its own, as in a virtual
            environment inside of another project.
    """
    if _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return "unknown"
    head = _git(folder, "rev-parse", "--short", "HEAD") or "unknown"
    changed = _git(folder, "--no-optional-locks", "status", "--porcelain", "--", "..", ":(top)properties")
    return head if changed == "" else f"{head}-dirty"  # also where git does not say


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints there; None if it fails, or is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
