"""Several models as RecBole's own script runs them, ours among them."""

import sys

import pytest
from recbole.quick_start import run as recboles_run
from recbole.utils import list_to_latex

from recbole_kuaiformer.benchmarks import group
from recbole_kuaiformer.config import SettingsError
from tests import worlds

SMALL = {
    "epochs": 1, "topk": [5], "valid_metric": "MRR@5", "MAX_ITEM_LIST_LENGTH": 8, "hidden_size": 8,
    "show_progress": False, "state": "WARNING", "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
}  # fmt: skip


@pytest.fixture
def path(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    return worlds.cyclic(tmp_path / "data", n_users=20)


def test_a_group_is_its_models_one_by_one(path):
    given = {**SMALL, "data_path": path, "n_interests": 2, "n_layers": 1}
    found = group.run_group(["SASRec", "ComiRecSA", "SASRecPlus"], "cyclic", config_dict=given)
    unknown = {"SASRec": ["n_interests"], "ComiRecSA": ["n_layers"], "SASRecPlus": ["n_interests"]}
    for model, valid, test in zip(unknown, found.valid, found.test):
        alone = {key: value for key, value in given.items() if key not in unknown[model]}
        result = recboles_run(model, "cyclic", config_dict=alone)
        assert test == {"Model": model, **result["test_result"]}
        assert valid == {"Model": model, **result["best_valid_result"]}
    for model in unknown:
        assert model in found.test_latex
    best = max(one["recall@5"] for one in found.test)
    assert rf"\bfseries {best:.4f}" in found.test_latex


def test_files_come_after_the_dict_and_reach_who_knows_their_keys(path, tmp_path):
    file = tmp_path / "more.yaml"
    file.write_text("n_interests: 2\nepochs: 7\n")
    given = {**SMALL, "data_path": path}
    found = group.run_group(
        ["ComiRecSA", "GRU4Rec"], "cyclic", config_file_list=[str(file)], config_dict=given
    )
    result = recboles_run("ComiRecSA", "cyclic", config_dict={**given, "n_interests": 2})
    assert found.test[0] == {"Model": "ComiRecSA", **result["test_result"]}
    with pytest.raises(SettingsError, match=r"n_interest: unknown key \(did you mean 'n_interests'"):
        group.run_group(["ComiRecSA"], "cyclic", config_dict={"n_interest": 3, "data_path": path})


def test_the_command_line_writes_recboles_two_files(path, tmp_path, capsys):
    keys = [f"--{key}={value}" for key, value in {**SMALL, "data_path": path}.items()]
    assert group.main(["--model_list=ComiRecSA,Pop", "--dataset=cyclic", *keys]) == 0
    text = (tmp_path / "latex" / "test.tex").read_text()
    assert text.startswith(r"\begin{table}")
    assert "ComiRecSA" in (tmp_path / "latex" / "valid.tex").read_text()
    assert group.main(["--model_list=NoSuch", "--dataset=cyclic", *keys]) == 2
    assert "have no model 'NoSuch'" in capsys.readouterr().err


def test_recboles_own_script_runs_our_models(path, monkeypatch):
    """Its flags stand on the command line, where RecBole's Config finds them."""
    keys = [f"--{key}={value}" for key, value in {**SMALL, "data_path": path}.items()]
    flags = ["--model_list=ComiRecSA", "--dataset=cyclic", "--valid_latex=a.tex", "--test_latex=b.tex"]
    monkeypatch.setattr(sys, "argv", ["run_recbole_group.py", *flags, *keys])
    result = recboles_run("ComiRecSA", "cyclic")
    frame, text = list_to_latex([{"Model": "ComiRecSA", **result["test_result"]}], subset_columns=["mrr@5"])
    assert frame["recall@5"].tolist() == [result["test_result"]["recall@5"]]
    assert "ComiRecSA" in text
