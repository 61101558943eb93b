"""Experiments: what is described is run, under its names and settings, and ends in a page."""

import json
import random
from dataclasses import replace

import pytest
import yaml

from recbole_kuaiformer import defaults
from recbole_kuaiformer.benchmarks import (
    comparison_grid,
    diversity,
    experiment_plots,
    experiments,
    retrieval,
    search,
    training,
)
from recbole_kuaiformer.benchmarks.experiment_plan import Curve, known_experiments, read
from recbole_kuaiformer.settings import SettingsError
from tests import worlds

TINY = {
    "title": "One interest or two",
    "question": "Do two help\nwhere there are two?",
    "datasets": {"twofold": {"train_batch_size": 128}},
    "seeds": [1, 2],
    "max_epochs": 1,
    "common": {"topk": [5, 10], "MAX_ITEM_LIST_LENGTH": 12, "evaluator": "faiss"},
    "runs": {
        "one": {"model": "ComiRecSA", "n_interests": 1},
        "two": {"model": "ComiRecSA", "n_interests": 2},
        "other": {"model": "GRU4Rec"},
    },
    "curves": [
        {"x": "n_interests", "label": "interests", "runs": ["one", "two"], "paper": {1: 0.4, 2: 0.41}},
        {"x": "train_seconds"},
    ],
    "metrics": ["recall@5", "ndcg@10"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("experiments")
    worlds.two_interests(home / "data", n_users=60, length=15)
    (home / "tiny.yaml").write_text(yaml.safe_dump(TINY, sort_keys=False))
    given = [
        "--which",
        str(home / "tiny.yaml"),
        "--out",
        str(home / "out"),
        "--data_path",
        str(home / "data"),
    ]
    assert experiments.main(given) == 0
    return home, given


def test_every_run_has_its_settings_in_every_seed(home):
    rows = json.loads((home[0] / "out" / "tiny" / "twofold.json").read_text())["runs"]
    assert [(row["name"], row["model"], row["seed"]) for row in rows] == [
        (name, given["model"], seed) for seed in (1, 2) for name, given in TINY["runs"].items()
    ]
    for row in rows:
        assert row["epochs"] == 1
        assert row["resolved"]["train_batch_size"] == 128
        assert row["resolved"]["MAX_ITEM_LIST_LENGTH"] == 12
    assert [row["resolved"]["n_interests"] for row in rows if row["name"] != "other"] == [1, 2, 1, 2]
    assert all(row["user_mflops"] > 0 for row in rows)


def test_the_page_says_what_was_asked_and_how_and_shows_every_run(home):
    text = (home[0] / "out" / "tiny" / "tiny.md").read_text()
    assert "**Question.** Do two help where there are two?" in text
    assert f"experiments {' '.join(home[1])}" in text
    assert "Seeds 1, 2. At most 1 epochs." in text
    assert "### History masked" in text
    assert [text.count(f"\n| {name} | ") for name in TINY["runs"]] == [3, 3, 3]  # both readings, costs
    settings = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert settings["runs"] == TINY["runs"]


def test_curves_are_drawn_and_named_in_the_page(home):
    pytest.importorskip("matplotlib")
    assert (home[0] / "out" / "tiny" / "twofold-curves.png").read_bytes().startswith(b"\x89PNG")
    text = (home[0] / "out" / "tiny" / "tiny.md").read_text()
    assert "![twofold](twofold-curves.png)" in text
    assert "![twofold](twofold.png)" in text


def test_every_pair_of_runs_is_tested(home):
    text = (home[0] / "out" / "tiny" / "significance.md").read_text()
    for pair in ("one - two", "one - other", "two - other"):
        assert text.count(f"| {pair} |") == 4  # two metrics, two readings


def test_points_of_a_curve_are_means_over_the_seeds_in_order_of_x(home):
    rows = json.loads((home[0] / "out" / "tiny" / "twofold.json").read_text())["runs"]
    curve = Curve("n_interests", "interests", ("two", "one"))
    found = experiment_plots.points(rows, curve=curve, metric="recall@5")
    assert [(x, name) for x, _, name in found] == [(1, "one"), (2, "two")]
    for _, spread, name in found:
        values = [row["readings"]["masked"]["recall@5"] for row in rows if row["name"] == name]
        assert spread.mean == pytest.approx(sum(values) / 2)
    assert len(experiment_plots.points(rows, curve=Curve("train_seconds", "s"), metric="recall@5")) == 3


def test_a_cut_off_that_was_not_measured_leaves_a_curve_out(home, tmp_path):
    pytest.importorskip("matplotlib")
    rows = json.loads((home[0] / "out" / "tiny" / "twofold.json").read_text())["runs"]
    (file,) = home[0].glob("tiny.yaml")
    experiment = replace(read(str(file)), metrics=("recall@5", "recall@5000"))
    (drawn,) = experiment_plots.write(rows, experiment=experiment, folder=tmp_path)
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_no_curve_is_drawn_over_seconds_of_several_devices(home, tmp_path):
    pytest.importorskip("matplotlib")
    rows = json.loads((home[0] / "out" / "tiny" / "twofold.json").read_text())["runs"]
    (file,) = home[0].glob("tiny.yaml")
    experiment = replace(read(str(file)), curves=(Curve("train_seconds", "s", ("one", "two")),))
    for row in rows:
        row["made"] = {"cuda": "NVIDIA H100" if row["name"] == "other" else None}
    (drawn,) = experiment_plots.write(rows, experiment=experiment, folder=tmp_path)
    rows[0]["made"] = {"cuda": "NVIDIA H100"}
    assert rows[0]["name"] == "one"
    assert experiment_plots.write(rows, experiment=experiment, folder=tmp_path) == []
    assert not drawn.exists()  # it was of other runs


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_nothing_as_cheap_beats(seed):
    generator = random.Random(seed)
    costs = [generator.randint(1, 6) for _ in range(12)]
    values = [generator.randint(1, 6) for _ in range(12)]
    kept = experiment_plots.front(costs, values)
    on_front = {
        (cost, value)
        for cost, value in zip(costs, values)
        if not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in zip(costs, values))
    }
    assert [(costs[i], values[i]) for i in kept] == sorted(on_front)


def test_finished_runs_are_not_run_again_and_what_is_set_is_another_run(home, capsys):
    assert experiments.main(home[1]) == 0
    assert capsys.readouterr().out.count("was done") == 6
    asked = [*home[1], "--seeds", "1", "--set", "train_batch_size=64"]
    assert experiments.main(asked) == 0
    assert "was done" not in capsys.readouterr().out
    rows = json.loads((home[0] / "out" / "tiny" / "twofold.json").read_text())["runs"]
    assert {row["resolved"]["train_batch_size"] for row in rows} == {64}


@pytest.mark.parametrize("name", known_experiments())
def test_a_shipped_experiment_can_be_planned(name, tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    experiment = read(name)
    cases = experiment.cases()
    assert {case["dataset"] for case in cases} == {*experiment.datasets}
    assert {case["name"] for case in cases} == {*experiment.runs}
    identities = {(case["dataset"], case["seed"], case["identity"]) for case in cases}
    assert len(identities) == len(cases), "two runs are the same"
    for curve in experiment.curves:
        of_curve = [case for case in cases if not curve.runs or case["name"] in curve.runs]
        assert len(of_curve) > 1


def test_a_run_has_seeds_settings_and_a_bound_of_its_own_where_they_are_given(tmp_path, home):
    runs = {
        "all": {"model": "ComiRecSA"},
        "one": {
            "model": "ComiRecSA",
            "n_interests": 1,
            "seeds": {"twofold": [2]},
            "time_budget": 5.0,
            "max_epochs": 3,
        },
    }
    file = tmp_path / "own.yaml"
    datasets = {"twofold": {"n_interests": 3, "all.n_interests": 2, "epochs": 4}}
    file.write_text(
        yaml.safe_dump({**TINY, "runs": runs, "datasets": datasets, "curves": []}, sort_keys=False)
    )
    args = experiments.parser().parse_args(["--which", str(file), "--out", "x", *home[1][4:]])
    cases = read(str(file)).asked_for(args).cases()
    assert [(case["name"], case["seed"], case["time_budget"]) for case in cases] == [
        ("all", 1, None), ("all", 2, None), ("one", 2, 5.0)
    ]  # fmt: skip
    assert [case["resolved"]["n_interests"] for case in cases] == [2, 2, 1]
    assert [case["resolved"]["epochs"] for case in cases] == [1, 1, 3]  # of 4, by the bound of file and run
    args.seeds = [7]
    args.set = ["one.n_interests=5", "hidden_size=8"]
    cases = read(str(file)).asked_for(args).cases()
    assert [(case["name"], case["seed"]) for case in cases] == [("all", 7), ("one", 7)]
    assert [case["resolved"]["n_interests"] for case in cases] == [2, 5]
    assert {case["resolved"]["hidden_size"] for case in cases} == {8}


def test_what_the_command_line_sets_stands_in_place_of_all_that_the_file_says(tmp_path, home):
    file = tmp_path / "own.yaml"
    datasets = {"twofold": {"epochs": 4, "one.n_interests": 3, "two.hidden_size": 24}}
    file.write_text(yaml.safe_dump({**TINY, "datasets": datasets, "curves": []}, sort_keys=False))
    given = ["--which", str(file), "--out", "x", *home[1][4:]]
    args = experiments.parser().parse_args([*given, "--set", "n_interests=5", "--max_epochs", "2"])
    cases = read(str(file)).asked_for(args).cases()
    found = {case["name"]: case["resolved"] for case in cases}
    assert [found[name]["n_interests"] for name in ("one", "two")] == [5, 5]
    assert found["two"]["hidden_size"] == 24
    assert {one["epochs"] for one in found.values()} == {2}


@pytest.mark.parametrize(
    ("text", "says"), [("a: [", "cannot be read"), ("", "must hold title"), ("3", "got 3")]
)
def test_a_file_that_holds_no_settings_is_one_error(tmp_path, text, says):
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=says):
        read(str(file))


def test_some_of_the_runs_may_be_asked_for(home):
    args = experiments.parser().parse_args([*home[1], "--runs", "other", "two", "--set", "two.n_interests=4"])
    cases = read(args.which[0]).asked_for(args).cases()
    assert {(case["name"], case["resolved"].get("n_interests")) for case in cases} == {
        ("other", None),
        ("two", 4),
    }


def test_what_is_common_need_be_known_to_some_run_of_the_file_alone(home):
    args = experiments.parser().parse_args([*home[1], "--runs", "other"])
    experiment = replace(read(args.which[0]), common={"topk": [5, 10], "interest_routing": "max"})
    assert {case["name"] for case in experiment.asked_for(args).cases()} == {"other"}


def test_what_a_search_has_found_is_taken_from_the_folder_that_the_file_names(tmp_path, home):
    file = tmp_path / "with.yaml"
    file.write_text(yaml.safe_dump({**TINY, "params": "tuned"}, sort_keys=False))
    experiment = read(str(file))
    assert experiment.params == defaults.properties_folder() / "tuned"
    found = tmp_path / "params" / "twofold"
    found.mkdir(parents=True)
    (found / "ComiRecSA.yaml").write_text("learning_rate: 0.125")
    args = experiments.parser().parse_args(["--which", "x", "--out", "x", *home[1][4:]])
    args.params = str(tmp_path / "params")
    cases = experiment.asked_for(args).cases()
    assert [case["resolved"]["learning_rate"] for case in cases[:3]] == [0.125, 0.125, 0.001]


def test_a_file_stands_over_the_one_it_is_based_on(tmp_path):
    (tmp_path / "below.yaml").write_text(
        yaml.safe_dump(
            {
                **TINY,
                "datasets": {"twofold": {"epochs": 3, "eval_step": 1, "one.n_layers": 1}, "other": None},
                "common": {"learning_rate": 0.5, "hidden_size": 8},
                "seeds": [4, 5],
                "params": "tuned",
            }
        )
    )
    own = {"title": "T", "question": "Q", "base": "below.yaml", "runs": {"a": {"model": "GRU4Rec"}}}
    (tmp_path / "above.yaml").write_text(
        yaml.safe_dump({**own, "common": {"hidden_size": 16}, "datasets": {"twofold": {"epochs": 7}}})
    )
    found = read(str(tmp_path / "above.yaml"))
    assert found.datasets == {"twofold": {"epochs": 7, "eval_step": 1}}
    assert found.common == {"learning_rate": 0.5, "hidden_size": 16}
    assert (found.seeds, found.params) == ((4, 5), defaults.properties_folder() / "tuned")
    assert (list(found.runs), found.curves, found.title) == (["a"], (), "T")
    (tmp_path / "top.yaml").write_text(yaml.safe_dump({**own, "base": "above.yaml", "params": None}))
    found = read(str(tmp_path / "top.yaml"))
    assert found.datasets == {"twofold": {"epochs": 7, "eval_step": 1}}
    assert found.params is None


def test_what_a_file_says_for_all_stands_over_what_its_base_says_of_a_dataset(tmp_path, home):
    def resolved(**more):
        own = {
            "title": "T",
            "question": "Q",
            "base": "below.yaml",
            "runs": {"a": {"model": "SASRec"}},
            **more,
        }
        (tmp_path / "above.yaml").write_text(yaml.safe_dump(own))
        args = experiments.parser().parse_args(["--which", "x", "--out", "x", *home[1][4:]])
        args.runs = []
        (case,) = read(str(tmp_path / "above.yaml")).asked_for(args).cases()
        return case["resolved"]

    # SASRec knows neither n_interests nor compression, which it inherits.
    below = {"datasets": {"twofold": {"n_layers": 1, "n_interests": 2}}, "common": {"compression": "none"}}
    (tmp_path / "below.yaml").write_text(
        yaml.safe_dump({**TINY, "metrics": ["recall@10"], "seeds": [1], **below})
    )
    assert resolved()["n_layers"] == 1
    assert resolved(common={"n_layers": 3})["n_layers"] == 3
    assert resolved(common={"n_layers": 3}, datasets={"twofold": {"n_layers": 4}})["n_layers"] == 4
    with pytest.raises(SettingsError, match="n_interests: unknown key"):
        resolved(common={"n_interests": 3})


def test_two_files_based_on_each_other_are_an_error(tmp_path):
    for name, base in (("a", "b.yaml"), ("b", "a.yaml")):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**TINY, "base": base}))
    with pytest.raises(SettingsError, match=r"b\.yaml: base 'a\.yaml' is based on this file itself"):
        read(str(tmp_path / "a.yaml"))


def run_with(**more):
    return {"runs": {"a": {"model": "GRU4Rec", **more}}, "curves": []}


def broken(tmp_path, **more):
    file = tmp_path / "broken.yaml"
    file.write_text(yaml.safe_dump({**TINY, **more}))
    return str(file)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"run": {}}, "broken.yaml: run is none of base, common, curves, datasets"),
        ({"title": 3}, "broken.yaml: title must be a text, got 3"),
        (
            {"base": "nothing"},
            "broken.yaml: base 'nothing' is no experiment of properties/, nor a file beside",
        ),
        ({"base": ["apart"]}, "broken.yaml: base ['apart'] is no experiment of properties/"),
        ({"base": "broken.yaml"}, "broken.yaml: base 'broken.yaml' is based on this file itself"),
        ({"base": "comparison", "common": 3}, "broken.yaml: common must hold settings, got 3"),
        (
            {"base": "comparison", "datasets": {"ml-1m": [1]}},
            "broken.yaml: datasets: ml-1m must hold settings",
        ),
        ({"seeds": 3}, "broken.yaml: seeds must be a list of whole numbers, got 3"),
        ({"seeds": []}, "broken.yaml: seeds must be a list of whole numbers, got []"),
        ({"seeds": "12"}, "broken.yaml: seeds must be a list of whole numbers, got '12'"),
        ({"runs": ["a"]}, "broken.yaml: runs must hold settings by name"),
        ({"runs": {}}, "broken.yaml: runs must hold settings by name"),
        ({"datasets": ["twofold"]}, "broken.yaml: datasets must hold settings by name"),
        ({"datasets": {"twofold": [1]}}, "broken.yaml: datasets: twofold must hold settings"),
        ({"common": None}, "broken.yaml: common must hold settings, got None"),
        ({"curves": {"x": "a"}}, "broken.yaml: curves must be a list"),
        ({"curves": [{"label": "a"}]}, "broken.yaml: curves must each have an x"),
        ({"curves": [{"x": "n_interests", "paper": [1]}]}, "broken.yaml: curves: paper must hold a number"),
        ({"metrics": "recall@5"}, "broken.yaml: metrics must be a list as [recall@10, recall@50]"),
        ({"metrics": ["recall@7"]}, "broken: metrics: recall@7 is not measured; measured are recall@5"),
        ({"max_epochs": 0}, "broken.yaml: max_epochs must be a whole number from 1, got 0"),
        ({"params": "nowhere"}, "broken.yaml: params must be a folder in properties/, got 'nowhere'"),
        (run_with(seeds=1), "broken.yaml: runs: a: seeds must be a list of whole numbers, got 1"),
        (run_with(seeds={"two": [1]}), "broken.yaml: runs: a: seeds: two is none of the datasets"),
        (run_with(time_budget="x"), "broken.yaml: runs: a: time_budget must be seconds above 0, got 'x'"),
        (run_with(hiden_size=3), "broken: runs: a: hiden_size: unknown key"),
        (run_with(seed=3), "settings of a on twofold: seed cannot be set there: seeds are --seeds"),
        ({"common": {"resume_from": "x.pth"}}, "resume_from cannot be set there: a run goes on from its own"),
        (
            run_with() | {"datasets": {"twofold": {"a.model": "SASRec"}}},
            "model cannot be set there: a run names its model",
        ),
        ({"runs": {"": {"model": "GRU4Rec"}}, "curves": []}, "broken.yaml: runs:  has no name"),
        (
            {"runs": {"a|b": {"model": "GRU4Rec"}}, "curves": []},
            "broken.yaml: runs: a|b has ['|'] in its name",
        ),
        ({"runs": {"a": {"n_interests": 1}}, "curves": []}, "broken.yaml: runs: a names no model"),
        ({"curves": [{"x": "n_interests", "runs": ["b"]}]}, "broken.yaml: curves: b is none of the runs"),
        ({"curves": [{"x": "n_interest"}]}, "broken: curves: x n_interest is no key of"),
        ({"curves": [{"y": "n_interests", "x": "a"}]}, "broken.yaml: curves: y is none of label, paper"),
        (
            {"runs": {"a.b": {"model": "GRU4Rec"}}, "curves": []},
            "broken.yaml: runs: a.b has ['.'] in its name",
        ),
        ({"datasets": {"twofold": {"b.c": 1}}}, "broken.yaml: datasets: b.c is for none of the runs"),
        ({"common": {"train_batch_sise": 1}}, "train_batch_sise: unknown key"),
        ({"runs": {"a": {"model": "GRU4Rec", "n_interests": 1}}, "curves": []}, "n_interests: unknown key"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_error_before_anything_runs(tmp_path, home, capsys, more, says):
    given = ["--which", broken(tmp_path, **more), "--out", str(tmp_path / "out"), *home[1][4:]]
    assert experiments.main(given) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_experiment_that_is_not_there_and_a_dataset_it_does_not_have_are_errors(tmp_path, home, capsys):
    assert experiments.main(["--which", "nothing", "--out", str(tmp_path)]) == 2
    assert "--which nothing: no such experiment; there are" in capsys.readouterr().err
    assert experiments.main([*home[1], "--datasets", "ml-1m"]) == 2
    assert "--datasets ml-1m: tiny has twofold" in capsys.readouterr().err
    assert experiments.main([*home[1], "--runs", "three"]) == 2
    assert "--runs three: tiny has one, two, other" in capsys.readouterr().err


def test_a_key_that_is_there_twice_is_an_error(tmp_path):
    file = tmp_path / "twice.yaml"
    runs = "runs: {one: &one {model: SASRec, n_layers: 1}, two: {<<: *one, n_layers: 2}, one: {model: Pop}}"
    file.write_text(f"title: a\nquestion: b\ndatasets: {{ml-1m: }}\n{runs}\n")
    with pytest.raises(SettingsError, match=r"twice\.yaml: cannot be read: one is there twice"):
        read(str(file))
    file.write_text(file.read_text().replace(", one: {model: Pop}", ""))
    assert read(str(file)).runs["two"]["n_layers"] == 2  # what is merged in may be set again
    of_h = "one: {model: Pop, attributes: &g {<<: &h {x: 1}, x: 2}}, two: {<<: *g, model: Pop}"
    file.write_text(f"title: a\nquestion: b\ndatasets: {{ml-1m: }}\nruns: {{{of_h}}}\n")
    assert read(str(file)).runs == yaml.safe_load(file.read_text())["runs"]
    file.write_text("? [a, b]\n: 1\n")
    with pytest.raises(SettingsError, match=r"twice\.yaml: cannot be read: .*unhashable"):
        read(str(file))


def test_two_files_of_one_name_and_a_file_for_a_folder_are_errors(tmp_path, home, capsys):
    (tmp_path / "sub").mkdir()
    other = tmp_path / "sub" / "tiny.yaml"
    other.write_text((home[0] / "tiny.yaml").read_text())
    given = [*home[1][:1], home[1][1], str(other), *home[1][2:]]
    assert experiments.main(given) == 2
    assert "--which: tiny is there twice" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert experiments.main([*home[1], "--out", str(tmp_path / "file")]) == 2
    assert f"--out {tmp_path / 'file'}: a file is in the place of the folder" in capsys.readouterr().err


@pytest.mark.parametrize("inner", ["tiny", "runs", "runs/twofold", "runs/twofold/ONE"])
def test_a_file_in_place_of_a_folder_within_the_results_is_an_error_before_any_run(
    home, tmp_path, capsys, inner
):
    out = tmp_path / "out"
    ((_, cases),) = experiments.planned(experiments.parser().parse_args(home[1]))
    place = out / inner.replace("ONE", comparison_grid.folder_of(cases[-1], out=out).name)
    place.parent.mkdir(parents=True)
    place.write_text("mine")
    assert experiments.main([*home[1], "--out", str(out)]) == 2
    assert f": a file is in the place of the folder {place}\n" in capsys.readouterr().err
    assert [file for file in out.rglob("*") if file.is_file()] == [place]
    assert place.read_text() == "mine"


def test_a_run_without_what_a_curve_goes_over_is_left_out(home):
    rows = json.loads((home[0] / "out" / "tiny" / "twofold.json").read_text())["runs"]
    for row in rows:
        row["user_mflops"] = None if row["name"] == "other" else row["user_mflops"]
        row["resolved"]["layout"] = {"one": 1.5, "two": "all", "other": None}[row["name"]]
    over = experiment_plots.points(rows, curve=Curve("user_mflops", "MFLOP"), metric="recall@5")
    assert sorted(name for _, _, name in over) == ["one", "two"]
    mixed = experiment_plots.points(rows, curve=Curve("layout", "layout"), metric="recall@5")
    assert [(x, name) for x, _, name in mixed] == [("1.5", "one"), ("all", "two"), ("None", "other")]
    assert experiment_plots.points(rows, curve=Curve("no_such_key", "x"), metric="recall@5") == []


def test_a_missing_part_is_named(tmp_path):
    file = tmp_path / "half.yaml"
    file.write_text(yaml.safe_dump({"title": "a", "question": "b", "runs": {}}))
    with pytest.raises(SettingsError, match=r"half\.yaml: datasets is not there"):
        read(str(file))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--max_epochs", "0"], "max_epochs: must be at least 1, got 0"),
        (["--set", "valid_metric=NDCGG@5"], "valid_metric: RecBole has no metric 'NDCGG'"),
        (["--data_path", "elsewhere"], "dataset twofold: "),
        (["--params", "elsewhere"], "--params elsewhere: no such folder"),
        (["--set", "model=SASRec"], "--set: model cannot be set there: a run names its model"),
        (["--set", "one.resume_from=x.pth"], "--set: resume_from cannot be set there"),
        (["--set", "nproc=2"], "--set: nproc cannot be set there: a run is one process"),
        (["--set", "config_files=x.yaml"], "--set: config_files cannot be set there: a folder of files is"),
    ],
)
def test_what_is_wrong_is_one_error_before_anything_runs(home, tmp_path, capsys, asked, message):
    assert experiments.main([*home[1], "--out", str(tmp_path / "out"), *asked]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("benchmark", "given"),
    [
        (retrieval, ["--quick"]),
        (training, ["--quick"]),
        (diversity, ["--checkpoint", "gone.pth", "--category", "genre"]),
        (search, ["--model", "SASRec", "--dataset", "twofold", "--trials", "1"]),
    ],
)
def test_a_file_in_place_of_the_folder_of_results_is_one_error_of_every_benchmark(
    home, tmp_path, capsys, benchmark, given
):
    file = tmp_path / "file"
    file.write_text("")
    if benchmark is search:
        given = [*given, *home[1][home[1].index("--data_path") :][:2]]
    assert benchmark.main([*given, "--out", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --out {file}")
    assert "a file is in the place of the folder" in line
    assert file.read_text() == ""
