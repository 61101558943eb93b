"""A search: equal numbers of trials, the model's own settings first, nothing twice, the best one kept."""

import json
import re

import pytest
import yaml
from recbole.config import Config

from recbole_kuaiformer.benchmarks import search
from recbole_kuaiformer.benchmarks.comparison_run import Run
from recbole_kuaiformer.benchmarks.comparison_settings import (
    Request,
    case,
    configuration,
    known_keys,
    no_arguments,
)
from recbole_kuaiformer.benchmarks.epoch_clock import EpochClock
from recbole_kuaiformer.benchmarks.search_space import Dimension, space
from recbole_kuaiformer.defaults import properties_folder
from recbole_kuaiformer.plugin import MODELS
from recbole_kuaiformer.settings import SettingsError
from tests import worlds

SPACES = sorted((properties_folder() / "search").glob("*.yaml"))
SET = ["topk=[5,10]", "MAX_ITEM_LIST_LENGTH=12", "hidden_size=8"]


def test_every_model_of_the_comparison_has_a_space():
    assert {file.stem for file in SPACES} >= {*MODELS, "SASRec", "GRU4Rec", "BERT4Rec", "SINE"}


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_a_space_is_of_keys_that_the_model_knows_and_holds_its_own_settings(file, tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    config = configuration(file.stem, "cyclic", given={"data_path": str(tmp_path)})
    text = file.read_text()
    for key, dimension in space(file.stem).items():
        assert key in known_keys(config)
        assert dimension.holds(config[key]), key
        assert re.search(rf"^{key}:.*# \(", text, re.MULTILINE), f"{key} has no comment"


@pytest.mark.parametrize(
    "given",
    ["{low: 1}", "{low: 2, high: 1}", "{choices: []}", "3", "{low: 0.0, high: 1.0, log: True}", "[1]"],
)
def test_a_dimension_that_is_none_is_named(tmp_path, given):
    (tmp_path / "A.yaml").write_text(f"rate: {given}\n")
    with pytest.raises(SettingsError, match=r"A\.yaml: rate: must be"):
        space("A", folder=tmp_path)


def test_a_range_of_a_whole_and_a_broken_number_is_of_broken_ones(tmp_path):
    (tmp_path / "A.yaml").write_text("rate: {low: 0, high: 0.5}\nn: {low: 1, high: 4}\n")
    found = space("A", folder=tmp_path)
    assert isinstance(found["rate"].low, float)
    assert isinstance(found["n"].high, int)


def test_a_model_without_a_space_is_an_error(tmp_path, capsys):
    pytest.importorskip("optuna")
    given = ["--model", "Pop", "--dataset", "cyclic", "--trials", "1", "--out", str(tmp_path / "out")]
    assert search.main(given) == 2
    assert "Pop: no space to search" in capsys.readouterr().err


def test_a_key_that_no_model_knows_is_an_error_before_anything_is_searched(given, tmp_path, capsys):
    asked = [*given, "--trials", "1", "--set", *SET, "n_interest=3"]
    assert search.main([*asked, "--model", "ComiRecSA", "SASRec"]) == 2
    assert "n_interest: unknown key (did you mean 'n_interests'?)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--dataset", "cyclik"], "(did you mean 'cyclic'?)"),
        (["--model", "sasrecplus"], "'sasrecplus'"),
        (["--time_budget", "0"], "time_budget: must be seconds above 0, got 0.0"),
        (["--set", "valid_metric=NDCGG@5"], "valid_metric: RecBole has no metric 'NDCGG'"),
    ],
)
def test_what_is_wrong_is_one_error_before_anything_is_searched(given, tmp_path, capsys, asked, message):
    assert search.main([*given, "--model", "SASRecPlus", "--trials", "1", *asked]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.fixture
def given(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    worlds.at_home(monkeypatch, tmp_path)
    path = worlds.cyclic(tmp_path / "data", n_users=20)
    return ["--dataset", "cyclic", "--data_path", path, "--out", str(tmp_path / "out"), "--max_epochs", "2"]


def trials_of(tmp_path, model):
    return json.loads((tmp_path / "out" / "cyclic" / f"{model}.json").read_text())


def test_the_best_trial_is_written_and_gives_its_score_again(given, tmp_path):
    assert search.main([*given, "--model", "SASRecPlus", "--trials", "4", "--set", *SET]) == 0
    found = trials_of(tmp_path, "SASRecPlus")
    assert len(found["trials"]) == 4
    complete = [one for one in found["trials"] if one["state"] == "complete"]
    best = max(complete, key=lambda one: one["value"])
    assert found["best"] == best["number"]
    file = tmp_path / "out" / "cyclic" / "SASRecPlus.yaml"
    assert yaml.safe_load(file.read_text()) == best["settings"]

    with no_arguments():
        config = Config("SASRecPlus", "cyclic", config_file_list=[str(file)])
    assert all(config[key] == value for key, value in best["settings"].items())

    request = Request(
        common=dict(pair.split("=") for pair in SET),
        data_path=given[3],
        params=tmp_path / "out",
        max_epochs=2,
    )
    run = Run(
        case("SASRecPlus", "cyclic", seed=1, request=request),
        clock=EpochClock(tmp_path / "epochs.json", budget=None),
    )
    run.train()
    assert float(run.trainer.best_valid_score) == best["value"]


def test_the_first_trial_is_of_the_models_own_settings(given, tmp_path):
    assert search.main([*given, "--model", "ComiRecSA", "--trials", "1", "--set", *SET]) == 0
    (first,) = trials_of(tmp_path, "ComiRecSA")["trials"]
    config = configuration("ComiRecSA", "cyclic", given={"data_path": given[3]})
    assert first["settings"] == {key: config[key] for key in space("ComiRecSA")}


def test_a_key_that_is_given_is_not_searched(given, tmp_path):
    own = ["SASRecPlus.n_layers=1", "learning_rate=0.005"]
    assert search.main([*given, "--model", "SASRecPlus", "--trials", "1", "--set", *SET, *own]) == 0
    (trial,) = trials_of(tmp_path, "SASRecPlus")["trials"]
    assert set(trial["settings"]) == {*space("SASRecPlus")} - {"n_layers", "learning_rate"}


def test_a_search_goes_on_where_it_stopped_and_draws_nothing_twice(given, tmp_path):
    def searched(n_trials):
        arguments = [*given, "--model", "SASRecPlus", "--trials", str(n_trials), "--set", *SET]
        assert search.main(arguments) == 0
        return trials_of(tmp_path, "SASRecPlus")["trials"]

    two, four, again = searched(2), searched(4), searched(4)
    assert four[:2] == two
    assert again == four
    assert len({one["settings"]["learning_rate"] for one in four}) == 4


def test_an_interrupted_trial_is_tried_again(given, tmp_path):
    arguments = [*given, "--model", "SASRecPlus", "--trials", "2", "--set", *SET]
    (asked,) = search.searches(search.parser().parse_args(arguments))
    base = case(asked.model, asked.dataset, seed=asked.seed, request=asked.request)
    dimensions = space(asked.model)
    cut_off = asked._study(base, dimensions).ask()
    chosen = {key: dimension.suggested(cut_off, key) for key, dimension in dimensions.items()}
    for _ in range(2):  # what was cut off does not count the second time either
        assert search.main(arguments) == 0
        trials = trials_of(tmp_path, "SASRecPlus")["trials"]
        assert [one["state"] for one in trials] == ["fail", "complete", "complete"]
        assert trials[1]["settings"] == chosen


def test_a_trial_that_fails_counts_and_stops_nobody(given, tmp_path):
    few = ["topk=[5,10]", "MAX_ITEM_LIST_LENGTH=12", "hidden_size=7"]  # no number of heads but 1 divides it
    for _ in range(2):  # the second time nothing is left to try
        assert search.main([*given, "--model", "SASRec", "--trials", "6", "--set", *few]) == 0
        found = trials_of(tmp_path, "SASRec")
    assert len(found["trials"]) == 6
    for one in found["trials"]:
        assert (one["state"] == "fail") == (one["settings"]["n_heads"] > 1)
        assert one.get("failed", "ValueError").startswith("ValueError")


def test_a_trial_ends_with_its_time(given, tmp_path):
    arguments = [*given, "--model", "SASRecPlus", "--trials", "1", "--time_budget", "0.000001", "--set", *SET]
    assert search.main(arguments) == 0
    (one,) = trials_of(tmp_path, "SASRecPlus")["trials"]
    assert one["epochs"] == 1


def test_what_was_asked_to_be_tried_comes_after_the_models_own_settings(given, tmp_path):
    asked = ["--trials", "3", "--set", *SET, "--try", "learning_rate=0.002", "weight_decay=0.0002"]
    asked += ["--try", "ComiRecDR.n_interests=2"]
    assert search.main([*given, "--model", "ComiRecDR", *asked]) == 0
    first, second, third = (trial["settings"] for trial in trials_of(tmp_path, "ComiRecDR")["trials"])
    assert second == {**first, "learning_rate": 0.002, "weight_decay": 0.0002}
    assert third == {**first, "n_interests": 2}
    assert first not in (second, third)


def test_what_is_to_be_tried_is_tried_by_a_search_that_goes_on_too(given, tmp_path):
    asked = [*given, "--model", "ComiRecDR", "--set", *SET]
    assert search.main([*asked, "--trials", "1"]) == 0
    again = [*asked, "--trials", "3", "--try", "learning_rate=2e-3", "--try", "n_interests=~", "--try"]
    assert search.main([*again, "learning_rate=0.004"]) == 2  # four trials are more than three
    assert (
        search.main([*asked, "--trials", "3", "--try", "learning_rate=2e-3", "--try", "n_interests=2"]) == 0
    )
    first, second, third = (trial["settings"] for trial in trials_of(tmp_path, "ComiRecDR")["trials"])
    assert second == {**first, "learning_rate": 0.002}
    assert third == {**first, "n_interests": 2}


def test_what_can_no_longer_be_tried_is_an_error(given, capsys):
    asked = [*given, "--model", "ComiRecDR", "--set", *SET, "--trials", "2"]
    assert search.main(asked) == 0
    assert search.main([*asked, "--try", "learning_rate=0.002"]) == 2
    assert "--trials 2: 2 are done and 1 more are to be tried" in capsys.readouterr().err


def test_what_cannot_be_tried_is_an_error(given, capsys):
    assert search.main([*given, "--model", "ComiRecSA", "--trials", "2", "--try", "learning_rat=0.002"]) == 2
    assert "--try learning_rat: in no model's space; there are " in capsys.readouterr().err
    assert search.main([*given, "--model", "ComiRecSA", "--trials", "2", "--try", "learning_rate=7"]) == 2
    assert "--try learning_rate: 7 is outside of ComiRecSA's space" in capsys.readouterr().err
    assert search.main([*given, "--model", "ComiRecSA", "--trials", "2", "--try", "learning_rate=~"]) == 2
    assert "--try learning_rate: None is outside of ComiRecSA's space" in capsys.readouterr().err
    assert search.main([*given, "--model", "ComiRecSA", "--trials", "2", "--try", "learning_rate"]) == 2
    assert "--try: 'learning_rate' is no key=value" in capsys.readouterr().err
    assert search.main([*given, "--model", "MIND", "--trials", "1", "--try", "learning_rate=0.002"]) == 2
    assert "--trials 1: too few for the model's own settings and 1 of --try" in capsys.readouterr().err


def test_a_range_of_whole_numbers_holds_no_others():
    whole = Dimension(low=1, high=4)
    assert (whole.holds(2), whole.holds(2.5), whole.holds(2.0), whole.holds(True)) == (
        True,
        False,
        False,
        False,
    )
    assert Dimension(low=1.0, high=4.0).holds(2)
