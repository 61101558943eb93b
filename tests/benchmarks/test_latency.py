"""Trained models served: what is timed is what the evaluation encodes and finds."""

import json

import pytest
import torch
from recbole.quick_start import run_recbole

from recbole_kuaiformer.benchmarks import latency
from recbole_kuaiformer.benchmarks.encoded_users import users_of
from tests import worlds


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Checkpoints of KuaiFormer and RecBole's GRU4Rec, by name."""
    home = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        worlds.at_home(patch, home)
        path = worlds.cyclic(home / "data", n_users=20)
        files = {}
        for model in ("KuaiFormer", "GRU4Rec", "Pop"):
            given = {"data_path": path, "show_progress": False, "load_col": None, "epochs": 1, "topk": [5]}
            given |= {"valid_metric": "NDCG@5", "checkpoint_dir": model, "eval_batch_size": 16}
            if model != "Pop":
                given |= {"train_neg_sample_args": None}
            else:
                given |= {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}}
            if model == "KuaiFormer":
                given = {**worlds.small_for(model, path, "cyclic"), **given}
            run_recbole(model, "cyclic", config_dict=given)
            (files[model],) = [f for f in (home / model).glob("*.pth") if "-last" not in f.name]
        return files


@pytest.fixture(autouse=True)
def _at_home(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)


@pytest.mark.parametrize("model", ["KuaiFormer", "GRU4Rec"])
@torch.no_grad()
def test_requests_and_batch_are_the_first_test_users(trained, model):
    served = latency.load(trained[model], n_users=18)
    want = users_of(trained[model], history="kept").interests[:18]
    torch.testing.assert_close(served.encode(served.batch), want)
    one_by_one = torch.cat([served.encode(request) for request in served.requests])
    torch.testing.assert_close(one_by_one, want, rtol=1e-4, atol=1e-5)


def test_the_command_line_writes_every_models_times_and_ratios(trained, tmp_path, capsys):
    given = ["--checkpoints", f"ours={trained['KuaiFormer']}", f"theirs={trained['GRU4Rec']}"]
    given += ["--out", str(tmp_path / "out"), "-k", "5", "--users", "12", "--rounds", "3"]
    assert latency.main(given) == 0
    rows = json.loads((tmp_path / "out" / "latency.json").read_text())
    assert [row["name"] for row in rows] == ["ours", "theirs"]
    for row in rows:
        assert 0 < row["encode_ms"]["p50"] <= row["encode_ms"]["p95"] <= row["encode_ms"]["p99"]
        assert row["request_ms"]["p50"] > row["encode_ms"]["p50"]
        assert row["batch_users_per_s"] > 0
        assert row["mflops"] > 0
    text = (tmp_path / "out" / "latency.md").read_text()
    ratio = rows[1]["encode_ms"]["p50"] / rows[0]["encode_ms"]["p50"]
    assert f"| theirs | {rows[1]['parameters']} |" in text
    assert f"{rows[1]['encode_ms']['p50']:.2f} ({ratio:.2f})" in text
    assert "12 test users" in text
    capsys.readouterr()
    text = tmp_path / "text.pth"
    text.write_text("no checkpoint")
    for wrong, says in (
        ([*given, "--users", "0"], "--users: must be at least 1"),
        ([*given, "-k", "0"], "-k: must be at least 1"),
        (["--checkpoints", f"a={text}", "--out", "o"], "text.pth: no checkpoint of a trained model"),
        (["--checkpoints", f"a/b={text}", "--out", "o"], "'a/b="),
        (["--checkpoints", "nothing", "--out", "o"], "'nothing' is no NAME=FILE"),
        (["--checkpoints", "a=none.pth", "--out", "o"], "none.pth"),
        (["--checkpoints", f"Pop={trained['Pop']}", "--out", "o"], "Pop is not known to be a dot product"),
    ):
        assert latency.main(wrong) == 2
        assert says in capsys.readouterr().err
