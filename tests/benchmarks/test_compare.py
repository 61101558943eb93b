"""A comparison: its numbers are RecBole's, nothing is run twice, ranks give the metrics."""

import contextlib
import csv
import json
import os

import numpy as np
import pytest
import torch
from recbole.quick_start import run_recbole

from recbole_kuaiformer.benchmarks import compare, comparison_grid, comparison_run, running, significance
from recbole_kuaiformer.benchmarks.comparison_settings import Request, case
from recbole_kuaiformer.benchmarks.comparison_tables import as_markdown
from recbole_kuaiformer.benchmarks.epoch_clock import EpochClock
from recbole_kuaiformer.benchmarks.user_ranks import OF_A_USER, UserRanks
from tests import worlds
from tests.unplugged import Unplugged
from tests.waiting import endless_run

SET = ["topk=[5,10,20,50]", "MAX_ITEM_LIST_LENGTH=12", "train_batch_size=128"]
MODELS = ["ComiRecSA", "SASRec", "Pop", "GRU4Rec"]
N_ITEMS = 24


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """One seed of four models, of which the last one crashes."""
    home = tmp_path_factory.mktemp("grid")
    data_path = worlds.two_interests(home / "data", n_users=60, length=15)
    given = ["--datasets", "twofold", "--data_path", data_path, "--max_epochs", "2", "--set", *SET]
    given += ["--out", str(home / "out"), "--seeds", "1"]
    assert compare.main([*given, "--models", *MODELS, "--set", "GRU4Rec.num_layers=0"]) == 1  # a run failed
    rows = json.loads((home / "out" / "twofold.json").read_text())["runs"]
    return {
        "out": home / "out",
        "given": given,
        "rows": {row["model"]: row for row in rows},
        "path": data_path,
    }


@pytest.fixture
def home(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    return tmp_path


def of(grid, model):
    common = dict(pair.split("=") for pair in SET)
    request = Request(common=common, data_path=grid["path"], max_epochs=2)
    return case(model, "twofold", seed=1, request=request)


@pytest.mark.parametrize("model", ["ComiRecSA", "SASRec", "Pop"])
def test_numbers_are_those_of_run_recbole_with_the_same_settings(grid, home, model):
    row = grid["rows"][model]
    theirs = run_recbole(model, "twofold", config_dict={**of(grid, model)["settings"], "topk": [5, 10, 20]})
    found = theirs["test_result"]
    assert row["valid_score"] == float(theirs["best_valid_score"])
    readings = ("masked",) if model == "Pop" else ("kept", "masked")
    assert set(row["readings"]) == {*readings}
    for reading in readings:
        suffix = "_masked" if reading == "masked" and model != "Pop" else ""
        for metric in ("recall", "ndcg", "mrr"):
            for k in (5, 10, 20):
                assert row["readings"][reading][f"{metric}@{k}"] == float(found[f"{metric}@{k}{suffix}"])


@pytest.mark.parametrize("k", [5, 10, 20])
def test_coverage_and_gini_are_recboles_at_every_cut_off(grid, home, k):
    given = {**of(grid, "SASRec")["settings"], "topk": [k], "metrics": ["ItemCoverage", "GiniIndex", "NDCG"]}
    given["valid_metric"] = f"NDCG@{k}"
    found = run_recbole("SASRec", "twofold", config_dict=given)["test_result"]
    for metric in (f"itemcoverage@{k}", f"giniindex@{k}"):
        assert grid["rows"]["SASRec"]["readings"]["kept"][metric] == float(found[metric])
        assert grid["rows"]["SASRec"]["readings"]["masked"][metric] == float(found[f"{metric}_masked"])


@pytest.mark.parametrize("model", ["ComiRecSA", "SASRec", "Pop"])
def test_ranks_of_users_give_the_metrics(grid, model):
    row = grid["rows"][model]
    ranks = UserRanks.load(grid["out"] / row["folder"] / "ranks.npz")
    assert len(set(ranks.users.tolist())) == len(ranks.users) == row["test_users"] == 60
    assert set(ranks.ranks) == set(row["readings"])
    for reading, held in ranks.ranks.items():
        assert held.min() >= 1
        assert held.max() <= N_ITEMS
        for metric in ("recall", "ndcg", "mrr"):
            for k in (5, 10, 20):
                value = OF_A_USER[metric](held, k=k).mean()
                assert row["readings"][reading][f"{metric}@{k}"] == pytest.approx(value, abs=2e-6)


def test_every_model_was_asked_for_the_same_item_of_each_user(grid):
    last = {}
    for line in (grid["out"].parent / "data" / "twofold" / "twofold.inter").read_text().splitlines()[1:]:
        user, item, _ = line.split("\t")
        last[user] = item
    for model in ("ComiRecSA", "SASRec", "Pop"):
        ranks = UserRanks.load(grid["out"] / grid["rows"][model]["folder"] / "ranks.npz")
        assert dict(zip(ranks.users.tolist(), ranks.items.tolist())) == last


def test_no_rank_is_better_with_the_history_in_the_way(grid):
    ranks = UserRanks.load(grid["out"] / grid["rows"]["SASRec"]["folder"] / "ranks.npz").ranks
    assert (ranks["masked"] <= ranks["kept"]).all()
    assert (ranks["masked"] < ranks["kept"]).any()


def test_the_page_says_with_what_its_runs_were_made(grid):
    page = (grid["out"] / "twofold.md").read_text()
    made = grid["rows"]["SASRec"]["made"]
    assert made["torch"] == torch.__version__
    assert f"| {made['commit']} | {made['date']} | {made['torch']} |" in page
    made_of = [line for line in page.splitlines() if line.startswith(f"| {made['commit']} |")]
    assert all(f"{name} (1)" in "".join(made_of) for name in ("ComiRecSA", "SASRec", "Pop"))


def test_runs_that_do_not_say_with_what_they_were_made_are_unknown(grid):
    rows = [{**row} for row in grid["rows"].values()]
    del rows[0]["made"]
    page = as_markdown(rows, dataset="twofold", about="")
    assert "| unknown | unknown | unknown | unknown | unknown | ComiRecSA (1) |" in page
    assert "GRU4Rec (" not in page  # it failed


@pytest.mark.parametrize(
    ("measured", "tested"),
    [
        (["recall@10", "recall@50"], ["ndcg@10", "recall@10", "recall@50"]),
        (["hit@20", "hit@100"], ["ndcg@10", "recall@10", "recall@50"]),
        (["ndcg@20"], ["ndcg@10", "recall@10"]),
        (["ndcg@5"], ["ndcg@10", "recall@10"]),
    ],
)
def test_no_deeper_cut_off_is_tested_than_one_was_measured(measured, tested):
    row = {"readings": {"kept": dict.fromkeys(measured, 0.5)}}
    assert [*compare._tested([row, {"failed": "it did"}])] == tested


def test_a_crash_is_recorded_with_its_reason(grid):
    row = grid["rows"]["GRU4Rec"]
    assert row["failed"].startswith("ValueError: num_layers must be greater than zero")
    assert "- run GRU4Rec seed 1: ValueError: num_layers" in (grid["out"] / "twofold.md").read_text()
    assert (grid["out"] / row["folder"] / "failed.json").is_file()


def test_a_run_that_is_killed_says_so(tmp_path):
    code = "import os, sys; print('epoch 7', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)"
    (tmp_path / "doomed.py").write_text(code)
    (row,) = running.measured({"kind": "run"}, module="doomed", folder=tmp_path)
    assert row["failed"].startswith("killed by signal 9")
    assert row["failed"].endswith("it had said last: epoch 7")


def test_a_run_ends_with_the_comparison_that_is_told_to_end(tmp_path):
    parent, pid = endless_run(tmp_path)
    parent.terminate()
    assert parent.wait(timeout=60) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_tables_pictures_and_tests_are_there(grid):
    with (grid["out"] / "twofold.csv").open() as file:
        lines = {(line["model"], line["history"]): line for line in csv.DictReader(file)}
    assert set(lines) == {(m, h) for m in ("ComiRecSA", "SASRec", "Pop") for h in ("kept", "masked")}
    for (model, reading), line in lines.items():
        for metric, value in grid["rows"][model]["readings"].get(reading, {}).items():
            assert float(line[f"{metric} mean"]) == value
    assert lines["Pop", "kept"]["recall@10 mean"] == ""
    pairs = json.loads((grid["out"] / "significance.json").read_text())
    asked = {(one["history"], one["metric"], one["first"], one["second"]) for one in pairs}
    with_pop = {("ComiRecSA", "Pop"), ("SASRec", "Pop")}
    assert asked == {
        (reading, metric, *pair)
        for reading in ("kept", "masked")
        for metric in ("ndcg@10", "recall@10")  # there are no 50 items
        for pair in {("ComiRecSA", "SASRec")} | (with_pop if reading == "masked" else set())
    }
    for one in pairs:
        mine, theirs = (grid["rows"][one[who]]["readings"][one["history"]] for who in ("first", "second"))
        assert one["difference"] == pytest.approx(mine[one["metric"]] - theirs[one["metric"]], abs=2e-6)
    pytest.importorskip("matplotlib")
    assert (grid["out"] / "twofold.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_finished_is_not_run_again_and_a_changed_setting_is(grid, capsys):
    folder = grid["out"] / "runs" / "twofold"
    before = {file: file.read_bytes() for file in folder.rglob("run.json")}
    assert compare.main([*grid["given"], "--models", "SASRec", "Pop", "--set", "Pop.topk=[5,10]"]) == 0
    said = capsys.readouterr().out
    assert "1/2 twofold SASRec seed 1 was done" in said
    assert "2/2 twofold Pop seed 1 done" in said
    assert {file: file.read_bytes() for file in before} == before
    new = {*folder.rglob("run.json")} - {*before}
    assert [json.loads(file.read_text())["model"] for file in new] == ["Pop"]


def published(grid, folder, change=dict):
    """A table of the runs that the grid made, in a folder of its own."""
    folder.mkdir()
    file = folder / "twofold.json"
    file.write_text(json.dumps({"runs": [change(row) for row in grid["rows"].values()]}))
    return file


def test_runs_of_a_published_table_are_taken_and_changed_or_failed_ones_are_run(grid, tmp_path, capsys):
    table = published(grid, tmp_path / "earlier")
    other = published(grid, tmp_path / "other", lambda row: {**row, "readings": {}})
    out = tmp_path / "out"
    given = [*grid["given"], "--out", str(out), "--published", str(table), str(other)]
    given += ["--set", "Pop.topk=[5,10]", "GRU4Rec.num_layers=0"]
    assert compare.main([*given, "--models", "SASRec", "ComiRecSA", "Pop", "GRU4Rec"]) == 1
    said = capsys.readouterr().out
    assert "2 of 4 runs are taken from published tables" in said
    assert f"1/4 twofold SASRec seed 1 taken from {table}" in said
    assert "3/4 twofold Pop seed 1 done" in said
    assert "4/4 twofold GRU4Rec seed 1 failed" in said
    assert [file.parent.name.split("-")[0] for file in out.rglob("run.json")] == ["Pop"]
    rows = {row["model"]: row for row in json.loads((out / "twofold.json").read_text())["runs"]}
    assert rows["SASRec"]["readings"] == grid["rows"]["SASRec"]["readings"]
    page = (out / "twofold.md").read_text()
    assert f"Runs taken from {table}, with what they cost on its machine and day" in page
    assert "no pair is tested over these seeds: SASRec 1; ComiRecSA 1." in page
    assert json.loads((out / "significance.json").read_text()) == []


def test_a_run_made_here_comes_before_a_published_one_and_is_not_tested_beside_it(grid, tmp_path):
    table = published(grid, tmp_path / "earlier", lambda row: {**row, "readings": {}})
    request = Request(common={}, data_path=grid["path"])
    here = case("Pop", "twofold", seed=1, request=request)
    folder = comparison_grid.folder_of(here, out=tmp_path)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({**grid["rows"]["Pop"], "has_ranks": False, "made": "here"}))
    known = comparison_grid.published([str(table)])
    known[here["identity"]] = {"published": str(table), "made": "there"}
    row = comparison_grid.earlier(here, out=tmp_path, known=known)
    assert (row["made"], "published" in row) == ("here", False)
    of_both = [grid["rows"]["SASRec"], {**grid["rows"]["SASRec"], "seed": 2, "published": str(table)}]
    held = significance.ranks_by_model(of_both, out=grid["out"])
    assert {name: [*seeds] for name, seeds in held.items()} == {"SASRec": [1]}


def test_a_published_table_is_not_written_over(grid, tmp_path, capsys):
    table = published(grid, tmp_path / "out")
    before = table.read_bytes()
    given = [*grid["given"], "--models", "Pop", "--out", str(table.parent)]
    assert compare.main([*given, "--published", str(tmp_path / "out" / ".." / "out" / "twofold.json")]) == 2
    assert "will be written; give another --out" in capsys.readouterr().err
    assert table.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    [None, "{", "[]", '{"runs": [{"model": "Pop"}]}', '{"runs": [{"identity": "a"}]}', '{"runs": {"a": 1}}'],
)
def test_a_file_that_is_no_table_is_one_error_that_names_it(grid, tmp_path, capsys, text):
    file = tmp_path / "wrong.json"
    if text is not None:
        file.write_text(text)
    given = [*grid["given"], "--models", "Pop", "--out", str(tmp_path)]
    assert compare.main([*given, "--published", str(file)]) == 2
    assert f"--published {file}: not the <dataset>.json of a comparison" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("ComiRecSA", {}),
        ("SASRec", {"hidden_dropout_prob": 0.5}),
        ("GRU4Rec", {"dropout_prob": 0.3, "stopping_step": 0, "learning_rate": 0.1}),  # ends before its time
        ("BERT4Rec", {"mask_ratio": 0.3}),  # draws what is masked
        ("SASRec", {"sequences": "log"}),
        ("DIN", {}),  # has layers among its other parameters
    ],
)
def test_an_interrupted_training_goes_on_to_the_same_end(grid, home, monkeypatch, model, settings):
    run = of(grid, model)
    run["settings"] |= {"epochs": 6, **settings}
    whole, parts = home / "whole", home / "parts"
    whole.mkdir()
    parts.mkdir()
    monkeypatch.chdir(whole)
    one = comparison_run.row(run)
    n_epochs = one["epochs"]
    assert n_epochs == 6 or "stopping_step" in settings
    monkeypatch.chdir(parts)
    clock = Unplugged(parts / "epochs.json", budget=None)
    clock.before = min(3, n_epochs - 1)
    with pytest.raises(KeyboardInterrupt):
        comparison_run.Run(run, clock=clock).train()
    seconds = json.loads((parts / "epochs.json").read_text())["seconds"]
    assert len(seconds) == clock.before >= 2
    kept = clock.before - 1  # the last one of ours is written when the next begins
    two = comparison_run.row(run)
    assert json.loads((parts / "epochs.json").read_text())["seconds"][:kept] == seconds[:kept]
    assert one["readings"] == two["readings"]
    assert one["valid_score"] == two["valid_score"]
    assert (one["epochs"], one["best_epoch"]) == (two["epochs"], two["best_epoch"])
    ranks = [UserRanks.load(folder / "ranks.npz").ranks["kept"] for folder in (whole, parts)]
    assert np.array_equal(*ranks)
    is_ours = model == "ComiRecSA"
    state = torch.load(parts / two["checkpoint"], weights_only=is_ours)
    assert state["epoch"] == two["best_epoch"] - 1


@pytest.mark.parametrize("model", ["ComiRecSA", "SASRec"])
def test_a_training_interrupted_before_anything_was_validated_goes_on(grid, home, capsys, model):
    run = of(grid, model)
    run["settings"] |= {"epochs": 4, "eval_step": 4}
    with pytest.raises(KeyboardInterrupt):
        comparison_run.Run(run, clock=Unplugged(home / "epochs.json", budget=None)).train()
    seconds = json.loads((home / "epochs.json").read_text())["seconds"]
    assert comparison_run.row(run)["best_epoch"] == 4
    assert json.loads((home / "epochs.json").read_text())["seconds"][:2] == seconds[:2]
    assert "anew" not in capsys.readouterr().err


@pytest.mark.parametrize("model", ["ComiRecSA", "SASRec"])
def test_a_training_interrupted_after_its_last_epoch_is_tested_as_it_is(grid, home, monkeypatch, model):
    run = of(grid, model)
    comparison_run.Run(run, clock=EpochClock(home / "epochs.json", budget=None)).train()
    monkeypatch.setattr(EpochClock, "begin", lambda *_: pytest.fail("an epoch was trained again"))
    monkeypatch.setattr(comparison_run, "user_mflops", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # after the test
        comparison_run.row(run)
    monkeypatch.setattr(comparison_run, "user_mflops", lambda _: None)
    assert comparison_run.row(run)["readings"] == grid["rows"][model]["readings"]


def test_a_finished_run_keeps_its_best_epoch_alone(grid):
    kept = [file.relative_to(grid["out"]).parts[2] for file in grid["out"].rglob("*.pth")]
    assert {"ComiRecSA", "SASRec"} < {name.split("-")[0] for name in kept}
    assert not [*grid["out"].rglob("*-last.pth")]


def test_an_interruption_while_the_best_epoch_is_written_leaves_the_one_before(grid, home, monkeypatch):
    run = of(grid, "SASRec")
    run["settings"] |= {"epochs": 4}
    whole = home / "whole"
    whole.mkdir()
    with monkeypatch.context() as there:
        there.chdir(whole)
        one = comparison_run.row(run)
    write = torch.save
    saved = []

    def cut(state, file, **options):
        saved.append(file)
        if str(file).endswith(".pth.part") and "-last" not in str(file) and len(saved) > 2:
            write(state, file, **options)
            os.truncate(file, 1000)
            raise KeyboardInterrupt
        write(state, file, **options)

    monkeypatch.setattr(torch, "save", cut)
    with pytest.raises(KeyboardInterrupt):
        comparison_run.Run(run, clock=EpochClock(home / "epochs.json", budget=None)).train()
    monkeypatch.undo()
    worlds.at_home(monkeypatch, home)
    n_epochs = len(json.loads((home / "epochs.json").read_text())["seconds"])
    two = comparison_run.row(run)
    assert n_epochs < 4
    assert two["readings"] == one["readings"]
    assert not [*home.rglob("*.damaged")]


def test_models_whose_training_no_checkpoint_holds_begin_anew(grid, home, monkeypatch):
    run = of(grid, "BPR")
    run["settings"]["epochs"] = 4
    whole = home / "whole"
    whole.mkdir()
    with monkeypatch.context() as there:
        there.chdir(whole)
        one = comparison_run.row(run)
    with pytest.raises(KeyboardInterrupt):
        comparison_run.Run(run, clock=Unplugged(home / "epochs.json", budget=None)).train()
    assert not [*home.glob("saved/*-last.pth")]
    two = comparison_run.row(run)
    assert (one["epochs"], one["readings"]) == (two["epochs"], two["readings"])
    assert len([*home.glob("saved/*.pth")]) == 1  # not that of the interrupted one


@pytest.mark.parametrize("model", ["ComiRecSA", "SASRec"])
def test_a_time_budget_ends_training_after_the_epoch_that_exceeds_it(grid, home, monkeypatch, model):
    run = of(grid, model)
    rows = []
    for epochs, budget in ((9, 1e-6), (1, None)):
        folder = home / str(epochs)
        folder.mkdir()
        monkeypatch.chdir(folder)
        settings = {**run["settings"], "epochs": epochs}
        rows.append(comparison_run.row({**run, "settings": settings, "time_budget": budget}))
    assert [row["epochs"] for row in rows] == [1, 1]
    assert rows[0]["readings"] == rows[1]["readings"]


def test_one_model_may_stand_under_several_names_and_a_run_they_share_is_run_once(grid, tmp_path, capsys):
    given = ["--datasets", "twofold", "--data_path", grid["path"], "--max_epochs", "1", "--seeds", "1"]
    given += ["--set", *SET, "two.n_interests=2", "--out", str(tmp_path), "--per_user", "False"]
    assert compare.main([*given, "--models", "four=ComiRecSA", "two=ComiRecSA", "ComiRecSA"]) == 0
    assert "3/3 twofold ComiRecSA seed 1 was done" in capsys.readouterr().out
    rows = json.loads((tmp_path / "twofold.json").read_text())["runs"]
    assert [(row["name"], row["model"]) for row in rows] == [
        (name, "ComiRecSA") for name in ("four", "two", "ComiRecSA")
    ]
    assert [row["resolved"]["n_interests"] for row in rows] == [4, 2, 4]
    assert rows[0]["readings"] == rows[2]["readings"] != rows[1]["readings"]
    table = (tmp_path / "twofold.md").read_text()
    assert "| `n_interests` | `4` | `2` | `4` |" in table


@pytest.mark.parametrize(
    ("models", "says"),
    [
        (["a=SASRec", "a=GRU4Rec"], "a is there twice"),
        (["a.b=SASRec"], "'a.b=SASRec' is no Model or name=Model"),
        (["=SASRec"], "'=SASRec' is no Model or name=Model"),
        (["a=Nonsense"], "no model 'Nonsense'"),
    ],
)
def test_a_name_that_is_none_is_an_error(grid, tmp_path, capsys, models, says):
    given = ["--datasets", "twofold", "--data_path", grid["path"], "--out", str(tmp_path)]
    assert compare.main([*given, "--models", *models]) == 2
    assert says in capsys.readouterr().err


class Paced(EpochClock):
    """Every epoch takes ten seconds."""

    def trained(self, seconds):
        super().trained(10.0)


def test_under_a_time_budget_the_learning_rate_falls_over_what_fits_and_the_end_is_validated(grid, home):
    run = of(grid, "ComiRecSA")
    run["settings"] |= {"epochs": 500, "schedule": "cosine", "eval_step": 3}
    one = comparison_run.Run(run, clock=Paced(home / "epochs.json", budget=75.0))
    rates = []
    one.train(
        validated=lambda epoch, score: rates.append((epoch, one.trainer.optimizer.param_groups[0]["lr"]))
    )
    assert [epoch for epoch, _ in rates] == [2, 5, 7]  # eight epochs spend 75 s; the last one is no third one
    shares = [rate / one.config["learning_rate"] for _, rate in rates]
    assert shares == pytest.approx([(1 + np.cos(np.pi * done / 8)) / 2 for done in (3, 6, 8)], abs=0.01)


def test_under_a_time_budget_every_step_of_an_epoch_has_the_rate_of_one_length_also_when_resumed(grid, home):
    run = of(grid, "ComiRecSA")
    run["settings"] |= {"epochs": 500, "schedule": "linear", "eval_step": 1}

    def rates_until(epoch):
        """Rates of the steps by epoch; training is interrupted after the epoch was validated."""
        one = comparison_run.Run(run, clock=Paced(home / "epochs.json", budget=45.0))
        rates, take = {}, one.trainer._step

        def noted(*args, **kwargs):
            rates.setdefault(one.trainer._epoch, []).append(one.trainer.optimizer.param_groups[0]["lr"])
            return take(*args, **kwargs)

        def validated(number, _):
            if number == epoch:
                raise KeyboardInterrupt

        one.trainer._step = noted
        with contextlib.suppress(KeyboardInterrupt):
            one.train(validated=validated)
        return rates, one.config["learning_rate"]

    whole, rate = rates_until(None)
    n_steps = len(whole[0])
    assert n_steps > 1
    assert [*whole] == [0, 1, 2, 3, 4]  # five epochs of ten seconds spend 45
    for epoch in (1, 2, 3, 4):  # after the first one the pace is known
        wanted = [rate * (1 - (epoch * n_steps + step) / (5 * n_steps)) for step in range(n_steps)]
        assert whole[epoch] == pytest.approx(wanted)
    for file in (home / "saved").iterdir():
        file.unlink()
    (home / "epochs.json").unlink()
    before, _ = rates_until(2)
    after, _ = rates_until(None)
    assert {**before, **after} == whole
    assert [*after] == [2, 3, 4]  # the last epoch is kept when the next one begins


def test_the_last_epoch_is_validated_whatever_eval_step(grid, home):
    run = of(grid, "GRU4Rec")
    run["settings"] |= {"epochs": 5, "eval_step": 3}
    seen = []
    one = comparison_run.Run(run, clock=EpochClock(home / "epochs.json", budget=None))
    one.train(validated=lambda epoch, _: seen.append(epoch))
    assert seen == [2, 4]


def test_the_epochs_to_expect_follow_the_pace_and_never_exceed_what_was_asked(tmp_path):
    clock = EpochClock(tmp_path / "epochs.json", budget=30.0)
    assert clock.expected_epochs(9) == 9  # no pace yet
    clock.trained(7.0)
    assert (clock.expected_epochs(9), clock.expected_epochs(4)) == (5, 4)
    clock.trained(21.0)
    assert clock.expected_epochs(9) == 3
    clock.trained(9.0)
    assert clock.is_spent
    assert clock.expected_epochs(9) == 3
    assert EpochClock(tmp_path / "none.json", budget=None).expected_epochs(9) == 9


def test_without_ranks_the_numbers_are_the_same(grid, home):
    row = comparison_run.row({**of(grid, "SASRec"), "per_user": False})
    assert row["readings"] == grid["rows"]["SASRec"]["readings"]
    assert not (home / "ranks.npz").exists()


@pytest.mark.parametrize("model", ["ComiRecSA", "SASRec", "Pop", "BPR"])
def test_a_catalogue_smaller_than_all_cut_offs_is_ranked_whole(home, model):
    path = worlds.cyclic(home / "data", n_users=30, n_items=7, length=6)
    common = {"MAX_ITEM_LIST_LENGTH": "8"}
    run = case(model, "cyclic", seed=1, request=Request(common, data_path=path, max_epochs=1))
    row = comparison_run.row(run)
    assert row["valid_metric"] == "NDCG@7"
    assert 0 < row["valid_score"] <= 1
    for metrics in row["readings"].values():
        assert {name.partition("@")[2] for name in metrics} == {"7"}
        assert metrics["recall@7"] == 1.0


@pytest.mark.parametrize("model", ["ComiRecSA", "Pop"])
def test_what_chooses_the_epoch_need_not_be_among_what_is_reported(grid, home, model):
    run = of(grid, model)
    run["settings"] |= {"topk": [20], "metrics": ["Recall"], "valid_metric": "MRR@5"}
    row = comparison_run.row(run)
    assert 0 < row["valid_score"] <= 1
    assert {*row["readings"]["masked"]} == {"recall@20", "itemcoverage@20", "giniindex@20"}
