"""The command line: one clear line for each mistake, status 2, no traceback."""

import socket
import sys

import pytest

from recbole_kuaiformer.quick_start import main
from tests import worlds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=NoSuch"], "RecBole and this package have no model 'NoSuch'"),
        (["--model=kuaiformer"], "have no model 'kuaiformer' (did you mean 'KuaiFormer'?)"),
        (["--dataset=no-such-set"], "no-such-set"),
        (["--n_interest=3"], "n_interest: unknown key (did you mean 'n_interests'?)"),
        (["--config_files=none.yaml"], "none.yaml: no such configuration file"),
        (["--config_files=list.yaml"], "list.yaml: must hold keys and their values"),
        (["--config_files=broken.yaml"], "broken.yaml: not yaml"),
        (["--topk=[10,38]"], "topk: [10, 38] exceeds the catalogue's 37 items"),
        (["--resume_from=none.pth", "--epochs=1", "--topk=5"], "none.pth: no such checkpoint"),
        (["--resume_from=cut.pth", "--epochs=1", "--topk=5"], "cut.pth: not a readable checkpoint"),
        (["--nproc=0"], "nproc: must be at least 1, got 0"),
        (["--clip_grad_norm=5"], "clip_grad_norm: must be dict, got 5"),
        (["--attributes={'timestamp': None}"], "attributes: 'timestamp' is the time itself (TIME_FIELD)"),
        (
            ["--attributes={'time_gap': {'n_buckets': '5'}}"],
            "attributes: time_gap: n_buckets must be a number",
        ),
        (
            ["--attributes={time_gap: {n_buckets: 5}}"],
            "as Python writes it on a command line, words in quotes",
        ),
    ],
)
def test_mistakes(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cut.pth").write_bytes(b"PK")
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    path = worlds.cyclic(tmp_path / "data", n_users=20)
    given = [f"--data_path={path}", *arguments]
    if not any(a.startswith("--dataset") for a in arguments):
        given.append("--dataset=cyclic")
    monkeypatch.setattr(sys, "argv", ["run_recbole.py", *given, "--state=ERROR", "--show_progress=False"])
    assert main() == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_a_port_that_is_taken_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = worlds.cyclic(tmp_path / "data", n_users=20)
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        given = [f"--data_path={path}", "--dataset=cyclic", "--nproc=2", f"--port={port}"]
        monkeypatch.setattr(sys, "argv", ["run_recbole.py", *given])
        assert main() == 2
    assert f"error: port: {port} is taken on this machine" in capsys.readouterr().err


def test_a_run_from_the_command_line_overrides_defaults(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    path = worlds.cyclic(tmp_path / "data", n_users=20)
    given = [
        "--dataset=cyclic",
        f"--data_path={path}",
        "--epochs=1",
        "--n_layers=1",
        "--n_interests=3",
        "--topk=[5,10]",
    ]
    monkeypatch.setattr(sys, "argv", ["run_recbole.py", *given, "--show_progress=False"])
    with caplog.at_level("INFO"):
        assert main() == 0
    text = caplog.text
    assert "test result" in text
