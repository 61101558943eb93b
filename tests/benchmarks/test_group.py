"""Several models as RecBole's own script runs them, ours among them."""

import sys

import pytest
from recbole.quick_start import run as recboles_run
from recbole.utils import list_to_latex

from recbole_kuaiformer.benchmarks import group
from recbole_kuaiformer.benchmarks.comparison_settings import configuration
from recbole_kuaiformer.settings import SettingsError
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
    given = {
        **SMALL,
        "data_path": path,
        "n_interests": 2,
        "n_layers": 1,
        "metrics": ["NDCG", "MRR", "Recall"],
    }
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


def cells(text):
    """A cell of RecBole's table by row and column; the number alone, whether bold or not."""
    head, *rows = [line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if " & " in line]
    return [dict(zip(head, (cell.removeprefix(r"\bfseries ").strip() for cell in row))) for row in rows]


def printed(results):
    names = dict.fromkeys(name for one in results for name in one)
    rows = [{name: one.get(name, "-") for name in names} for one in results]
    return [{name: v if isinstance(v, str) else f"{v:.4f}" for name, v in row.items()} for row in rows]


def test_all_are_measured_as_recboles_models_where_nothing_is_said(path):
    """Ours have other metrics, cut-offs and another valid_metric of their own."""
    given = {**SMALL, "data_path": path}
    del given["topk"], given["valid_metric"]
    found = group.run_group(["ComiRecSA", "SASRec", "SASRecPlus"], "cyclic", config_dict=given)
    alone = recboles_run("SASRec", "cyclic", config_dict=given)["test_result"]
    assert {"hit@10", "precision@10"} < {*alone}
    for one in found.test:
        assert [*one] == ["Model", *alone]
        assert one["hit@10"] == one["recall@10"]
    assert cells(found.test_latex) == printed(found.test)
    assert cells(found.valid_latex) == printed(found.valid)
    recboles = {
        "metrics": ["Recall", "MRR", "NDCG", "Hit", "Precision"],
        "valid_metric": "MRR@10",
        "topk": 10,
    }
    ours = recboles_run("SASRecPlus", "cyclic", config_dict={**given, **recboles})
    assert found.test[2] == {"Model": "SASRecPlus", **ours["test_result"]}


def test_ours_among_themselves_keep_their_own_measures(path):
    given = {**SMALL, "data_path": path}
    found = group.run_group(["ComiRecSA"], "cyclic", config_dict=given)
    assert [*found.test[0]] == ["Model", "recall@5", "mrr@5", "ndcg@5"]


def test_a_metric_that_a_model_lacks_is_an_empty_cell_of_its_own_row(path):
    given = {**SMALL, "data_path": path, "index_factory": "HNSW4"}  # which RecBole's evaluator has no use for
    found = group.run_group(["ComiRecSA", "SASRec", "SASRecPlus"], "cyclic", config_dict=given)
    assert ["index_recall@5" in one for one in found.test] == [True, False, True]
    table = cells(found.test_latex)
    assert table == printed(found.test)
    assert [row["Model"] for row in table if row["index_recall@5"] == "-"] == ["SASRec"]


def test_data_without_a_properties_file_are_read_with_their_times(path):
    """RecBole's default columns are user and item; its sequential models end without an order."""
    given = {key: value for key, value in SMALL.items() if key != "load_col"}
    given |= {"data_path": path, "metrics": ["MRR"]}
    found = group.run_group(["SASRec", "Pop"], "cyclic", config_dict=given)
    loaded = {**given, "load_col": SMALL["load_col"]}
    assert found.test[0] == {
        "Model": "SASRec", **recboles_run("SASRec", "cyclic", config_dict=loaded)["test_result"]
    }  # fmt: skip
    ordered = {**given, "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}}
    assert "mrr@5" in group.run_group(["Pop", "SASRec"], "cyclic", config_dict=ordered).test[0]


def test_who_needs_no_time_reads_more_only_beside_one_that_does(path):
    """A model of contexts would take it for one of them."""
    configs = {
        model: configuration(model, "cyclic", given={"data_path": path}) for model in ("Pop", "BPR", "DeepFM")
    }
    assert group._columns(configs) == {"Pop": {}, "BPR": {}, "DeepFM": {}}
    configs["SASRec"] = configuration("SASRec", "cyclic", given={"data_path": path})
    every = {"load_col": None}
    assert group._columns(configs) == {"Pop": every, "BPR": every, "DeepFM": {}, "SASRec": every}


def test_a_model_that_fails_leaves_what_came_before_it(path, tmp_path, monkeypatch):
    def run(model, *given, **more):
        if model == "SASRecPlus":
            raise RuntimeError("no memory")
        return recboles_run(model, *given, **more)

    monkeypatch.setattr(group, "run", run)
    keys = [f"--{key}={value}" for key, value in {**SMALL, "data_path": path}.items()]
    with pytest.raises(RuntimeError, match="no memory"):
        group.main(["--model_list=ComiRecSA,SASRecPlus", "--dataset=cyclic", *keys])
    for name in ("valid", "test"):
        (row,) = cells((tmp_path / "latex" / f"{name}.tex").read_text())
        assert row["Model"] == "ComiRecSA"


def test_files_come_after_the_dict_and_reach_who_knows_their_keys(path, tmp_path):
    file = tmp_path / "more.yaml"
    file.write_text("n_interests: 2\nepochs: 7\n")
    given = {**SMALL, "data_path": path, "metrics": ["MRR"]}
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


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"model_list": "ComiRecSA,sasrec"}, "have no model 'sasrec' (did you mean 'SASRec'?)"),
        ({"dataset": "cyclik"}, "(did you mean 'cyclic'?)"),
        ({"learning_rate": "abc"}, "learning_rate: must be a number, got 'abc'"),
        ({"epochs": "0"}, "epochs: must be a whole number from 1, got 0"),
        ({"valid_metric": "NDCGG@5"}, "valid_metric: RecBole has no metric 'NDCGG' (did you mean 'NDCG'?)"),
        ({"valid_metric": "MRR@10"}, "valid_metric: MRR@10 is not measured; measured are metrics ["),
    ],
)
def test_what_is_wrong_is_one_error_before_anything_runs(path, monkeypatch, capsys, asked, message):
    monkeypatch.setattr(group, "run", lambda *_, **__: pytest.fail("ran"))
    flags = {"model_list": "ComiRecSA,SASRec", "dataset": "cyclic", **SMALL, "data_path": path, **asked}
    assert group.main([f"--{key}={value}" for key, value in flags.items()]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_recboles_own_script_runs_our_models(path, monkeypatch):
    """Its flags stand on the command line, where RecBole's Config finds them."""
    keys = [f"--{key}={value}" for key, value in {**SMALL, "data_path": path}.items()]
    flags = ["--model_list=ComiRecSA", "--dataset=cyclic", "--valid_latex=a.tex", "--test_latex=b.tex"]
    monkeypatch.setattr(sys, "argv", ["run_recbole_group.py", *flags, *keys])
    result = recboles_run("ComiRecSA", "cyclic")
    frame, text = list_to_latex([{"Model": "ComiRecSA", **result["test_result"]}], subset_columns=["mrr@5"])
    assert frame["recall@5"].tolist() == [result["test_result"]["recall@5"]]
    assert "ComiRecSA" in text
