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
        (
            ["--topk=[5]"],
            "valid_metric: NDCG@10 is not measured; measured are metrics ['Recall', 'MRR', 'NDCG']",
        ),
        (["--topk=10,20"], "topk: must be a list of whole numbers from 1, got (10, 20)"),
        (
            ["--metrics=['Recall', 'AUC']"],
            "Ranking metrics and value metrics can not be used at the same time",
        ),
        (["--topk=[]"], "topk: must name at least one, got []"),
        (["--valid_metric=Recall"], "valid_metric: 'Recall' needs a cut-off from 1, as Recall@10"),
        (["--metrics=['Recall', 'NDGC']"], "metrics: RecBole has no metric 'NDGC' (did you mean 'NDCG'?)"),
        (["--learning_rate=fast"], "learning_rate: must be a number, got 'fast'"),
        (["--epochs=2.5"], "epochs: must be a whole number from 0, got 2.5"),
        (["--seed=abc"], "seed: must be a whole number from 0, got 'abc'"),
        (["--model=SASRec", "--load_col=None", "--topk=[5]"], "valid_metric: MRR@10 is not measured"),
        (
            ["--model=SASRec", "--metrics=Recal"],
            "metrics: RecBole has no metric 'Recal' (did you mean 'Recall'?)",
        ),
        (["--learner=adagrat"], "learner: 'adagrat' is not known (did you mean 'adagrad'?)"),
        (
            ["--clip_grad_norm={'max_nrm': 5}"],
            "clip_grad_norm: 'max_nrm' is not known (did you mean 'max_norm'?)",
        ),
        (["--clip_grad_norm={'norm_type': 1}"], "clip_grad_norm: needs max_norm, got {'norm_type': 1}"),
        (["--user_inter_num_interval=[99,inf)"], "Some feat is empty, please check the filtering settings."),
        (["--val_interval={'nothing': '[1,2]'}"], "Field [nothing] not defined in dataset."),
        (
            ["--eval_args={'split': {'XX': 1}, 'order': 'TO', 'group_by': 'user'}"],
            "method [XX] has not been implemented",
        ),
        (["--nproc=0"], "nproc: must be at least 1, got 0"),
        (["--clip_grad_norm=5"], "clip_grad_norm: must be dict, got 5"),
        (["--attributes={'timestamp': None}"], "attributes: 'timestamp' is the time itself (TIME_FIELD)"),
        (
            ["--attributes={'time_gap': {'n_buckets': '5'}}"],
            "attributes: time_gap: n_buckets must be a number",
        ),
        (
            ["--attributes={'time_gap': {'n_buckets': 0.5, 'maximum': 9.0, 'scale': 'log'}}"],
            "attributes: time_gap: n_buckets must be a whole number, got 0.5",
        ),
        (
            ["--attributes={'time_gap': {'n_buckets': 5, 'maximum': float('inf'), 'scale': 'log'}}"],
            "attributes: time_gap: maximum must be positive and finite, got inf",
        ),
        (
            ["--attributes={'time_gap': {'n_buckets': 5, 'missing_value': 'x'}}"],
            "attributes: time_gap: missing_value must be a number, or ~ for none, got 'x'",
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
