"""Two processes in one run's folder, and whose commit a measurement names."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from recbole_kuaiformer.benchmarks import comparison_grid, measuring, running
from recbole_kuaiformer.benchmarks.run_folder import LOCK, alone_in
from tests.waiting import endless_run, wait_until

fcntl = pytest.importorskip("fcntl", reason="locks of files are POSIX's")

CASE = {
    "kind": "run", "model": "M", "name": "M", "dataset": "d", "seed": 1, "identity": "abc",
    "params": {}, "resolved": {}, "per_user": False, "settings": {}, "time_budget": None,
}  # fmt: skip
RESULT = {
    "per_user": False, "seconds": 1.0, "train_seconds": 1.0, "test_users": 3, "valid_score": 0.5,
    "valid_reading": "kept", "readings": {"kept": {}},
}  # fmt: skip


def is_free(folder):
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def wait_until_it_waits(capsys):
    """What was printed until a second one said that it waits."""
    said = []
    wait_until(lambda: said.append(capsys.readouterr().out) or "waiting for it" in "".join(said))
    return "".join(said)


def test_the_second_waits_for_the_first_and_says_so(tmp_path, capsys):
    folder, order = tmp_path / "runs" / "one", []

    def second():
        with alone_in(folder):
            order.append("second")

    with alone_in(folder):
        thread = threading.Thread(target=second)
        thread.start()
        said = wait_until_it_waits(capsys)
        order.append("first")
    thread.join(timeout=60)
    assert order == ["first", "second"]
    assert str(folder) in said
    assert is_free(folder)


@contextmanager
def asked_for_meanwhile(out, capsys):
    """The rows of CASE, there after the block, of a thread that waits while the block has its folder."""
    found = []
    with alone_in(comparison_grid.folder_of(CASE, out=out)):
        thread = threading.Thread(target=lambda: found.extend(comparison_grid.rows([CASE], out=out)))
        thread.start()
        wait_until_it_waits(capsys)
        yield found
    thread.join(timeout=60)


def test_a_run_finished_by_another_process_meanwhile_is_taken(tmp_path, monkeypatch, capsys):
    folder = comparison_grid.folder_of(CASE, out=tmp_path)
    monkeypatch.setattr(running, "measured", lambda *_, **__: pytest.fail("ran again"))
    with asked_for_meanwhile(tmp_path, capsys) as found:
        running.write(folder / "run.json", {**RESULT, "mark": "theirs"})
    assert [one["mark"] for one in found] == ["theirs"]


def test_a_failure_of_another_process_meanwhile_is_taken_and_an_earlier_one_tried_again(
    tmp_path, monkeypatch, capsys
):
    folder = comparison_grid.folder_of(CASE, out=tmp_path)
    tried = []
    monkeypatch.setattr(
        running, "measured", lambda *_, **__: [{"failed": f"here, {len(tried.append(1) or tried)}"}]
    )
    with asked_for_meanwhile(tmp_path, capsys) as found:
        running.write(folder / "failed.json", {"failed": "there", "seconds": 1.0})
    assert [(one["failed"], one["model"]) for one in found] == [("there", "M")]
    past = time.time() - 5
    os.utime(folder / "failed.json", (past, past))
    assert [one["failed"] for one in comparison_grid.rows([CASE], out=tmp_path)] == ["here, 1"]


@pytest.mark.skipif(sys.platform != "linux", reason="a child is told of its parent's end by Linux alone")
def test_a_run_ends_with_a_parent_that_is_killed(tmp_path):
    at_first = "from recbole_kuaiformer.benchmarks import running; running.end_with_parent()"
    parent, pid = endless_run(tmp_path, first=at_first)
    parent.kill()
    parent.wait(timeout=60)
    wait_until(lambda: is_gone(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="a child is told of its parent's end by Linux alone")
def test_a_run_whose_parent_was_killed_before_it_could_be_told_ends_at_once():
    code = "from recbole_kuaiformer.benchmarks import running; running.end_with_parent(); print('on')"
    begun = [sys.executable, "-c", code]
    told = running.environment()
    ours = subprocess.run(begun, env=told, capture_output=True, text=True, check=False)
    assert (ours.returncode, ours.stdout) == (0, "on\n")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    orphan = {**told, "RECBOLE_KUAIFORMER_PARENT": str(gone.pid)}
    theirs = subprocess.run(begun, env=orphan, capture_output=True, text=True, check=False)
    assert (theirs.returncode, theirs.stdout) == (1, "")
    assert "the process that began this one is gone" in theirs.stderr


def is_gone(pid):
    """Whether the process has ended; one that nobody has waited for yet still has a number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_file_system_without_locks_is_said_and_not_an_end(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with alone_in(tmp_path):
        pass
    assert f"{tmp_path} cannot be locked ([Errno 37] No locks available)" in capsys.readouterr().out


def test_a_child_whose_parent_was_killed_still_keeps_others_out(tmp_path):
    parent, pid = endless_run(tmp_path, alone=True)
    parent.kill()
    parent.wait(timeout=60)
    try:
        assert not is_free(tmp_path)
    finally:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_free(tmp_path))


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_commit_is_that_of_the_files_or_unknown(tmp_path):
    def git(*command):
        given = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c", *command]
        return subprocess.run(given, check=True, capture_output=True, text=True).stdout.strip()

    folder = tmp_path / "package" / "benchmarks"
    folder.mkdir(parents=True)
    (folder / "measuring.py").write_text("")
    assert measuring.commit(folder) == "unknown"
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "a project that the package is installed in")
    assert measuring.commit(folder) == "unknown"
    (tmp_path / "README.md").write_text("")
    git("add", ".")
    git("commit", "-q", "-m", "the package's own")
    head = git("rev-parse", "--short", "HEAD")
    assert measuring.commit(folder) == head
    (tmp_path / "README.md").write_text("no code")
    assert measuring.commit(folder) == head
    for name in ("package/benchmarks/measuring.py", "package/another.py", "properties/model.yaml"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        before = file.read_text() if file.exists() else None
        file.write_text("changed")
        assert measuring.commit(folder) == f"{head}-dirty"
        file.write_text(before) if before is not None else file.unlink()
    assert measuring.commit(folder) == head
