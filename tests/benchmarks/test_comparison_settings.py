"""Who is given which key, and what makes two runs the same."""

import re

import pytest

from recbole_kuaiformer.benchmarks import compare, run_identity
from recbole_kuaiformer.benchmarks.comparison_settings import (
    Request,
    assignments,
    case,
    check_common,
    check_datasets,
    configuration,
    protocol,
    settings_for,
)
from recbole_kuaiformer.benchmarks.searched_settings import say_unsearched
from recbole_kuaiformer.settings import SettingsError
from tests import worlds


@pytest.fixture
def path(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    return worlds.cyclic(tmp_path / "data", n_users=5)


def test_a_key_reaches_the_models_that_know_it_and_no_other(path):
    common = {"n_interests": "3", "window_targets": "4", "loss_type": "BPR", "hidden_size": "8"}
    request = Request(common=common, own={"SASRec": {"n_heads": "4"}}, data_path=path)
    given = {
        m: settings_for(m, "cyclic", request=request) for m in ("ComiRecSA", "SASRecPlus", "SASRec", "Pop")
    }
    reached = {model: {*settings} & {*common, "n_heads"} for model, settings in given.items()}
    assert reached == {
        "ComiRecSA": {"n_interests", "window_targets", "hidden_size"},
        "SASRecPlus": {"window_targets", "hidden_size"},
        "SASRec": {"loss_type", "hidden_size", "n_heads"},
        "Pop": set(),
    }


def test_every_model_is_given_the_protocol_as_far_as_it_knows_it(path):
    for model in ("ComiRecSA", "SASRec", "FEARec", "Pop"):
        settings = settings_for(model, "cyclic", request=Request(data_path=path))
        for key, value in protocol().items():
            if key != "sequences":
                assert settings[key] == value, (model, key)
        # FEARec reads the table itself, Pop has no sequences, ours are always on the log.
        assert settings.get("sequences") == ("log" if model == "SASRec" else None)
        config = configuration(model, "cyclic", given=settings)
        assert config["load_col"] is None  # for all the same: the items' file decides what the catalogue is


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--set", "n_interest=3"], "n_interest: unknown key (did you mean 'n_interests'?)"),
        (["--set", "SASRec.n_head=3"], "n_head: unknown key (did you mean 'n_heads'?)"),
        (["--set", "SASRec.n_interests=3"], "n_interests: unknown key"),
        (["--set", "GRU4Rec.hidden_size=3"], "'GRU4Rec.hidden_size=3' is for GRU4Rec, which is not among"),
        (["--set", "topk"], "'topk' is no key=value"),
        (["--models", "NoSuch"], "RecBole and this package have no model 'NoSuch'"),
        (["--set", "n_interests=0"], "n_interests: must be at least 1"),
        (["--models", "MIND", "kuaiformer"], "have no model 'kuaiformer' (did you mean 'KuaiFormer'?)"),
        (["--models", "sasrec"], "have no model 'sasrec' (did you mean 'SASRec'?)"),
        (["--datasets", "cyclik"], "dataset cyclik: "),
        (["--datasets", "cyclic", "cyclik"], "is not there, and RecBole has none of the name to download "),
        (["--datasets", "cyclik"], "(did you mean 'cyclic'?)"),
        (["--datasets", "ml-1n"], "(did you mean 'ml-1m'?)"),
        (["--datasets", "empty"], "empty.inter is not there"),
        (["--set", "learning_rate=abc"], "learning_rate: must be a number, got 'abc'"),
        (["--set", "learning_rate=None"], "learning_rate: must be a number from 0, got None"),
        (["--set", "epochs=None"], "epochs: must be a whole number from 1, got None"),
        (["--set", "weight_decay=1/0"], "weight_decay: '1/0' cannot be read (ZeroDivisionError"),
        (["--set", "topk=[]"], "topk: must name at least one, got []"),
        (["--set", "metrics=[]"], "metrics: must name at least one, got []"),
        (["--set", "learning_rate=0"], "learning_rate: must be a number above 0, got 0"),
        (["--set", "SASRec.hidden_size=wide"], "hidden_size: must be a number, got 'wide'"),
        (["--set", "report_both=yes"], "report_both: must be True or False, got 'yes'"),
        (["--set", "epochs=0"], "epochs: must be a whole number from 1, got 0"),
        (["--set", "epochs=1.5"], "epochs: must be a whole number from 1, got 1.5"),
        (["--set", "eval_step=0"], "eval_step: must be a whole number from 1, got 0"),
        (["--set", "valid_metric=NDCGG@10"], "valid_metric: RecBole has no metric 'NDCGG' (did you mean 'ND"),
        (["--set", "valid_metric=NDCG"], "valid_metric: 'NDCG' needs a cut-off from 1, as NDCG@10"),
        (["--set", "valid_metric=NDCG@ten"], "valid_metric: 'NDCG@ten' needs a cut-off from 1"),
        (["--set", "valid_metric=GAUC@10", "metrics=['GAUC']"], "valid_metric: GAUC has no cut-off"),
        (["--set", "valid_metric=GAUC"], "valid_metric: GAUC must be among metrics, which are recall, ndcg"),
        (
            ["--set", "metrics=['Recalll']"],
            "metrics: RecBole has no metric 'Recalll' (did you mean 'Recall'?",
        ),
        (["--set", "metrics=Recalll"], "metrics: RecBole has no metric 'Recalll'"),
        (["--set", "metrics=['AUC']"], "SA: Full sort evaluation do not match value-based metrics!"),
        (["--set", "topk=[5,0]"], "topk: must be a list of whole numbers from 1, got [5, 0]"),
        (["--set", "topk=ten"], "topk: must be a list of whole numbers from 1, got 'ten'"),
        (["--max_epochs", "0"], "max_epochs: must be at least 1, got 0"),
        (["--time_budget", "-3"], "time_budget: must be seconds above 0, got -3.0"),
        (["--time_budget", "nan"], "time_budget: must be seconds above 0, got nan"),
        (["--params", "nowhere"], "--params nowhere: no such folder"),
        (["--set", "n_interests=2", "n_interests=3"], "--set: n_interests is there twice, last as 'n_inter"),
    ],
)
def test_a_wrong_setting_is_an_error_before_anything_runs(path, tmp_path, capsys, asked, message):
    (tmp_path / "data" / "empty").mkdir()
    given = ["--datasets", "cyclic", "--data_path", path, "--out", str(tmp_path / "out")]
    assert compare.main([*given, "--models", "ComiRecSA", "SASRec", *asked]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: ")
    assert message in said[-1]
    assert not (tmp_path / "out").exists()


def test_a_dataset_that_recbole_can_download_is_none(path):
    check_datasets([case("Pop", "ml-1m", seed=1, request=Request(data_path=path))])
    check_datasets([case("SASRec", "cyclic", seed=1, request=Request(data_path=path))])
    check_datasets([case("SASRec", "ml-100k", seed=1, request=Request())])  # lies in RecBole itself


def test_values_as_recbole_reads_them_pass(path):
    common = {
        "learning_rate": "1e-2", "topk": "5", "metrics": "NDCG", "valid_metric": "mrr@3", "epochs": "7",
        "shuffle": "False", "gpu_id": "0,1", "weight_decay": "0", "train_batch_size": 64,
    }  # fmt: skip
    for model in ("SASRec", "ComiRecSA", "Pop"):
        resolved = case(model, "cyclic", seed=1, request=Request(common=common, data_path=path))["resolved"]
        assert (resolved["topk"], resolved["metrics"], resolved["learning_rate"]) == ([5], ["NDCG"], 0.01)


def test_values_may_hold_equal_signs_and_nothing():
    assert assignments(["a=b=c", "x=~", "y=null"], models=[]) == ({"a": "b=c", "x": None, "y": None}, {})


def test_a_key_of_some_models_passes_for_all(path):
    check_common(
        Request(common={"n_interests": "3"}, data_path=path), models=["SASRec", "MIND"], datasets=["cyclic"]
    )


def identity(path, *, model="SASRec", seed=1, **more):
    return case(model, "cyclic", seed=seed, request=Request(data_path=path, **more))["identity"]


def test_a_run_is_another_when_anything_that_decides_it_is(path, tmp_path):
    before = identity(path)
    others = {
        identity(path, seed=2),
        identity(path, model="SASRecPlus"),
        identity(path, common={"learning_rate": "0.01"}),
        identity(path, own={"SASRec": {"n_layers": "1"}}),
        identity(path, max_epochs=3),
        identity(path, time_budget=5.0),
    }
    assert len(others | {before}) == 7
    file = tmp_path / "data" / "cyclic" / "cyclic.inter"
    text = file.read_text()
    file.write_text(text + "u1\ti1\t9\n")
    assert identity(path) not in others | {before}
    file.write_text(text)
    moved = tmp_path / "elsewhere"
    (tmp_path / "data").rename(moved)
    assert identity(str(moved), common={"gpu_id": "0"}) == before  # where and how is not what


def test_what_a_budget_means_counts_where_there_is_one(path, monkeypatch):
    without, with_one = identity(path), identity(path, time_budget=5.0)
    monkeypatch.setattr(run_identity, "BUDGET_RULES", 1)
    assert identity(path) == without
    assert identity(path, time_budget=5.0) != with_one


def test_none_is_for_models_of_ours_alone(path):
    request = Request(common={"initializer_range": None}, data_path=path)
    assert case("SASRecPlus", "cyclic", seed=1, request=request)["resolved"]["initializer_range"] is None
    assert case("SASRec", "cyclic", seed=1, request=request)["resolved"]["initializer_range"] == 0.02


def test_a_key_that_came_later_makes_another_run_where_it_says_something(path, monkeypatch):
    before = identity(path, model="SASRecPlus")
    assert identity(path, model="SASRecPlus", common={"interest_separation": "0.0"}) == before
    assert identity(path, model="SASRecPlus", common={"interest_separation": "0.1"}) != before
    monkeypatch.setattr(run_identity, "_LATER_KEYS", {})
    assert identity(path, model="SASRecPlus") != before  # as if the key had been there from the start


def test_how_queries_begin_makes_another_run_where_there_are_queries(path):
    one = {"model": "HSTU", "common": {"query_init": "recent", "query_initializer_range": "0.002"}}
    assert identity(path, **one) == identity(path, model="HSTU")
    with_queries = {"n_interests": "2"}
    assert identity(path, model="HSTU", common={**one["common"], **with_queries}) != identity(
        path, model="HSTU", common=with_queries
    )


@pytest.mark.parametrize("model", ["SASRecPlus", "SASRec"])
def test_how_attributes_join_makes_another_run_where_there_are_attributes(path, model):
    joined = {"attribute_fusion": "residual", "target_attributes": "True"}
    known = joined if model == "SASRecPlus" else {}
    assert identity(path, model=model, common=joined) == identity(path, model=model)
    attributes = {"attributes": "{'time_gap': {'n_buckets': 4, 'maximum': 9.0, 'scale': 'log'}}"}
    others = [identity(path, model=model, common={**attributes, key: value}) for key, value in known.items()]
    assert len({identity(path, model=model, common=attributes), *others}) == 1 + len(others)


def test_a_bound_on_epochs_lowers_what_is_asked_for_and_never_raises_it(path):
    def epochs(**more):
        return case("SASRec", "cyclic", seed=1, request=Request(data_path=path, **more))["resolved"]["epochs"]

    assert epochs() == 300
    assert epochs(max_epochs=7) == 7
    assert epochs(max_epochs=7, common={"epochs": "25"}) == 7
    assert epochs(max_epochs=30, common={"epochs": "25"}) == 25
    assert epochs(max_epochs=30, own={"SASRec": {"epochs": 5}}) == 5


def test_a_setting_given_as_its_default_is_the_same_run(path):
    assert identity(path, common={"n_heads": "2"}) == identity(path)


def test_precedence_of_searched_settings(path, tmp_path):
    file = tmp_path / "params" / "cyclic" / "SASRec.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("learning_rate: 0.3\nn_layers: 5\ntopk: [7]\n")
    request = Request(data_path=path, params=tmp_path / "params", common={"n_layers": "4"})
    run = case("SASRec", "cyclic", seed=1, request=request)
    resolved = run["resolved"]
    assert (resolved["learning_rate"], resolved["n_layers"], resolved["topk"]) == (0.3, 4, [7])
    assert run["params"] == {"learning_rate": 0.3, "n_layers": 5, "topk": [7]}
    assert case("GRU4Rec", "cyclic", seed=1, request=request)["params"] == {}


@pytest.mark.parametrize("model", ["SASRec", "SASRecPlus"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- 1\n", "must hold settings"),
        ("a: [\n", "no YAML file"),
        ("learning_rat: 0.1\n", "learning_rat is unknown to {} (did you mean 'learning_rate'?)"),
        ("n_heads: 2\ncompression_groups: []\n", "compression_groups is unknown to {}"),
        ("resume_from: x.pth\n", "resume_from cannot be set there: a run goes on from its own checkpoint"),
    ],
)
def test_a_file_of_searched_settings_with_a_fault_is_an_error_that_names_it(
    path, tmp_path, model, text, says
):
    file = tmp_path / "params" / "cyclic" / f"{model}.yaml"
    file.parent.mkdir(parents=True)
    request = Request(data_path=path, params=tmp_path / "params")
    file.write_text(text)
    with pytest.raises(SettingsError, match=re.escape(f"--params: {file}: {says.format(model)}")):
        case(model, "cyclic", seed=1, request=request)


def test_models_without_searched_settings_are_said(tmp_path, capsys):
    file = tmp_path / "cyclic" / "SASRec.yaml"
    file.parent.mkdir()
    file.write_text("n_layers: 1\n")
    runs = [
        {"model": model, "dataset": dataset}
        for dataset in ("cyclic", "other")
        for model in ("SASRec", "Pop", "Pop")
    ]
    say_unsearched(runs, folder=tmp_path)
    assert (
        f"--params {tmp_path} has no file for Pop on cyclic; SASRec, Pop on other" in capsys.readouterr().out
    )
    say_unsearched(runs[:1], folder=tmp_path)
    say_unsearched(runs, folder=None)
    assert capsys.readouterr().out == ""


def test_a_comparison_says_who_runs_without_searched_settings(path, tmp_path, monkeypatch, capsys):
    (tmp_path / "params").mkdir()
    monkeypatch.setattr(compare.comparison_grid, "rows", lambda *_, **__: [])
    given = ["--datasets", "cyclic", "--data_path", path, "--out", str(tmp_path / "out")]
    given += ["--params", str(tmp_path / "params")]
    assert compare.main([*given, "--models", "MIND", "SASRec"]) == 0
    assert f"{tmp_path / 'params'} has no file for MIND, SASRec on cyclic" in capsys.readouterr().out
