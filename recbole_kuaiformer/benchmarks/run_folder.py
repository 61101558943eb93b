"""A run's folder is one process's at a time: two that wrote there would mix their checkpoints and epochs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows has no such lock
    fcntl = None  # type: ignore[assignment]

LOCK = "lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[tuple[int, ...]]:
    """Wait until no other process works in the folder, and keep others out; made where it is not there.

    Yields:
        file descriptors for ``subprocess.Popen(pass_fds=…)``: a child that holds them keeps others out as
        well, should its parent be killed; none where the system has no such lock, and nobody is kept out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield ()
        return
    with (folder / LOCK).open("w") as file:
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"  another process works in {folder}; waiting for it", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # some network file systems have none either
            print(f"  {folder} cannot be locked ({error}): let no other process work there", flush=True)
        yield (file.fileno(),)
