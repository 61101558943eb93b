"""A damaged file in a run's folder: named, kept aside, the run made again; the others go on."""

import json

import numpy as np
import pytest

from recbole_kuaiformer.benchmarks import (
    comparison_grid,
    comparison_run,
    damaged_files,
    running,
    significance,
)
from recbole_kuaiformer.benchmarks.comparison_settings import Request, case
from recbole_kuaiformer.benchmarks.damaged_files import put_aside
from recbole_kuaiformer.benchmarks.epoch_clock import EpochClock
from recbole_kuaiformer.benchmarks.user_ranks import UserRanks
from tests import worlds
from tests.unplugged import Unplugged

RESULT = {
    "kind": "run", "per_user": True, "train_seconds": 1.0, "test_users": 3, "valid_score": 0.5,
    "valid_reading": "kept", "readings": {"kept": {}},
}  # fmt: skip
TOKENS = np.array(["a", "b", "c"])
RANKS = UserRanks(TOKENS, TOKENS, {"kept": np.array([1, 2, 3])})


def run_of(seed, **more):
    facts = {"kind": "run", "model": "M", "name": "M", "dataset": "d", "params": {}, "resolved": {}}
    settings = {"per_user": True, "settings": {}, "time_budget": None}
    return {**facts, **settings, "seed": seed, "identity": f"abc{seed}", **more}


@pytest.fixture
def begun(monkeypatch):
    """Seeds of the runs that were made, each without training."""
    seeds = []

    def measured(given, *, folder, **_):
        seeds.append(given["seed"])
        if given["per_user"]:
            RANKS.save(folder / "ranks.npz")
        return [{**RESULT, "per_user": given["per_user"]}]

    monkeypatch.setattr(running, "measured", measured)
    return seeds


def without(key):
    return json.dumps({name: value for name, value in RESULT.items() if name != key} | {"seconds": 1.0})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", b'{"kind": "run", "per'),
        ("run.json", b""),
        ("run.json", b"[]"),
        ("run.json", b"\xff\xfe"),
        *(("run.json", without(key).encode()) for key in ("per_user", "readings", "train_seconds")),
        ("ranks.npz", b"garbage"),
        ("ranks.npz", b""),
        ("ranks.npz", "half"),
        ("ranks.npz", "fewer"),
        ("ranks.npz", None),
    ],
)
def test_a_damaged_result_is_kept_aside_and_its_run_alone_made_again(tmp_path, begun, capsys, name, content):
    cases = [run_of(seed) for seed in (1, 2, 3)]
    assert len([*comparison_grid.rows(cases, out=tmp_path)]) == 3
    folder = comparison_grid.folder_of(cases[1], out=tmp_path)
    file, other = folder / name, folder / ("ranks.npz" if name == "run.json" else "run.json")
    before = other.read_bytes()
    if content == "half":
        content = file.read_bytes()[: len(file.read_bytes()) // 2]
    if content == "fewer":
        UserRanks(TOKENS[:2], TOKENS, RANKS.ranks).save(file)
        content = file.read_bytes()
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    capsys.readouterr()
    rows = [*comparison_grid.rows(cases, out=tmp_path)]
    said = capsys.readouterr().out
    assert begun == [1, 2, 3, 2]
    assert all("failed" not in row for row in rows)
    assert f"{file} is {'not there' if content is None else 'damaged'}" in said
    aside = file.with_name(f"{name}.damaged")
    assert aside.is_file() == (content is not None)
    assert content is None or aside.read_bytes() == content
    assert other.with_name(f"{other.name}.before").read_bytes() == before
    assert [*comparison_grid.rows(cases, out=tmp_path)] == rows
    assert len(begun) == 4


def test_a_run_whose_users_have_no_ranks_is_finished_without_them(tmp_path, begun):
    folder = comparison_grid.folder_of(run_of(1), out=tmp_path)
    folder.mkdir(parents=True)
    running.write(folder / "run.json", {**RESULT, "seconds": 1.0, "has_ranks": False})
    (row,) = comparison_grid.rows([run_of(1)], out=tmp_path)
    assert row["seconds"] == 1.0
    assert begun == []


def test_damaged_ranks_that_nobody_asked_for_are_said_and_left_out(tmp_path, begun, capsys):
    cases = [run_of(seed, per_user=False) for seed in (1, 2)]
    rows = [*comparison_grid.rows(cases, out=tmp_path)]
    files = [comparison_grid.folder_of(one, out=tmp_path) / "ranks.npz" for one in cases]
    RANKS.save(files[0])
    files[1].write_bytes(b"garbage")
    assert [*significance.ranks_by_model(rows, out=tmp_path)["M"]] == [1]
    assert f"{files[1]}: no ranks of users" in capsys.readouterr().out
    assert begun == [1, 2]


def test_nothing_that_was_kept_aside_is_written_over(tmp_path):
    for text in ("one", "two", "three"):
        (tmp_path / "a.json").write_text(text)
        put_aside(tmp_path / "a.json")
    names = ("a.json.damaged", "a.json.damaged2", "a.json.damaged3")
    assert [(tmp_path / name).read_text() for name in names] == ["one", "two", "three"]


@pytest.fixture(params=["ComiRecSA", "SASRec"])
def interrupted(tmp_path, monkeypatch, request):
    """The case of a training that was cut off, in the working directory, before its fourth epoch."""
    path = worlds.cyclic(tmp_path / "data", n_users=20)
    common = {"topk": "[5,10]", "MAX_ITEM_LIST_LENGTH": "12", "hidden_size": "8"}
    found = case(request.param, "cyclic", seed=1, request=Request(common, data_path=path, max_epochs=4))
    (tmp_path / "run").mkdir()
    worlds.at_home(monkeypatch, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        comparison_run.Run(found, clock=Unplugged(tmp_path / "run" / "epochs.json", budget=None)).train()
    return found


@pytest.mark.parametrize("what", ["last", "best", "no best", "epochs", "other epochs", "no epochs"])
def test_a_damaged_training_begins_anew_and_says_so(interrupted, tmp_path, capsys, what):
    home = tmp_path / "run"
    (last,) = home.glob("saved/*-last.pth")
    best = last.with_name(last.name.replace("-last", ""))
    file = {"last": last, "best": best}.get(what.rpartition(" ")[2], home / "epochs.json")
    content = file.read_bytes()[: file.stat().st_size // 2]
    if what == "other epochs":
        content = b'{"seconds": [1.0], "valid": []}'
    file.unlink() if what.startswith("no ") else file.write_bytes(content)
    row = comparison_run.row(interrupted)
    assert row["epochs"] == 4
    assert len(json.loads((home / "epochs.json").read_text())["valid"]) == 4
    said = capsys.readouterr().err
    assert f"progress: {file} " in said
    assert "training begins anew" in said
    if not what.startswith("no "):
        assert file.with_name(f"{file.name}.damaged").read_bytes() == content
    assert last.with_name(f"{last.name}.{'damaged' if what == 'last' else 'before'}").is_file()


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"seconds": [1], "valid": [3]}', '{"seconds": "a"}'])
def test_epochs_that_cannot_be_read_are_kept_aside_and_the_clock_begins_anew(tmp_path, capsys, text):
    file = tmp_path / "epochs.json"
    file.write_text(text)
    clock = EpochClock(file, budget=None)
    assert (clock.epochs, clock.seconds, clock.best_epoch(bigger=True)) == (0, 0, None)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.count(f"{file} is damaged (") == 1
    assert (tmp_path / "epochs.json.damaged").read_text() == text


def test_a_training_that_is_not_damaged_goes_on(interrupted, tmp_path, capsys):
    seconds = json.loads((tmp_path / "run" / "epochs.json").read_text())["seconds"]
    assert comparison_run.row(interrupted)["epochs"] == 4
    assert json.loads((tmp_path / "run" / "epochs.json").read_text())["seconds"][:2] == seconds[:2]
    assert "begins anew" not in capsys.readouterr().err


def test_a_row_says_what_a_finished_run_is_read_by(interrupted, tmp_path):
    row = {"seconds": 1.0, **comparison_run.row(interrupted)}
    damaged_files.check(row, file=tmp_path / "run.json")
    assert row["has_ranks"]
