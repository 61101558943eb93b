"""Waiting for what another process or thread does."""

import subprocess
import sys
import time

from recbole_kuaiformer.benchmarks import running


def wait_until(holds, *, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def endless_run(folder, *, first="", alone=False):
    """A process that has begun a run in the folder which does not end, and the run's own number.

    Args:
        folder: of the run.
        first: statements of the run before it says that it is there.
        alone: whether others are kept out of the folder.
    """
    (folder / "endless.py").write_text(
        f"import os, time\n{first}\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(300)"
    )
    code = (
        "from contextlib import nullcontext; from pathlib import Path\n"
        "from recbole_kuaiformer.benchmarks import run_folder, running\n"
        f"folder = Path({str(folder)!r})\n"
        f"with {'run_folder.alone_in(folder)' if alone else 'nullcontext(())'} as held:\n"
        "    running.measured({'kind': 'run'}, module='endless', folder=folder, held=held)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env=running.environment())
    pid = folder / "pid"
    wait_until(lambda: pid.is_file() and pid.read_text())
    return parent, int(pid.read_text())
