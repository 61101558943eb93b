"""The curve over λ: at 0 it is the evaluation's own number, and it goes where it must."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from recbole.quick_start import run_recbole

from recbole_kuaiformer.benchmarks import diversity
from recbole_kuaiformer.benchmarks.item_categories import categories_of
from tests import worlds

N_USERS, K = 40, 5


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint over 24 items, whose kind is their letter and whose tags are several."""
    home = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        worlds.at_home(patch, home)
        path = worlds.two_kinds(home / "data", n_users=N_USERS)
        given = worlds.small_for(
            "ComiRecSA", path, "twofold", epochs=4, topk=[K], valid_metric="NDCG@5", eval_batch_size=16
        )
        result = run_recbole("ComiRecSA", "twofold", config_dict={**given, "report_both": True})
        (checkpoint,) = [f for f in (home / "saved").glob("*.pth") if "-last" not in f.name]
        return checkpoint, result["test_result"]


@pytest.fixture(autouse=True)
def _at_home(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)


def curve(trained, *, history="masked", categories=None, **more):
    users = diversity.users_of(trained[0], history=history)
    if categories is None:
        categories = categories_of(users.dataset, "kind")
    return diversity.curve(
        users, categories=categories, **{"k": K, "pool": 12, "weights": [0.0, 0.02, 0.1, 100.0], **more}
    )


@pytest.mark.parametrize("history", ["kept", "masked"])
def test_without_lambda_it_is_the_evaluation(trained, history):
    first = curve(trained, history=history)[0]
    suffix = "_masked" if history == "masked" else ""
    assert first["hit"] == pytest.approx(trained[1][f"recall@5{suffix}"], abs=5e-5)
    assert first["ndcg"] == pytest.approx(trained[1][f"ndcg@5{suffix}"], abs=5e-5)


def test_a_large_lambda_takes_both_kinds_in_turn(trained):
    rows = curve(trained, pool=23, history="kept")
    assert rows[-1]["diversity"] == pytest.approx(6 / 10)  # of 5 items 3 and 2: 6 of 10 pairs differ
    assert rows[0]["diversity"] < rows[-1]["diversity"]
    assert rows[1]["lambda"] / rows[2]["lambda"] == pytest.approx(0.2)


def test_lambda_is_in_units_of_the_scores(trained):
    users = diversity.users_of(trained[0], history="masked")
    kinds = categories_of(users.dataset, "kind")
    options = {"categories": kinds, "k": K, "pool": 12, "weights": [0.0, 0.01, 0.05, 0.2]}
    once = diversity.curve(users, **options)
    scaled = diversity.curve(replace(users, interests=8 * users.interests), **options)
    for one, other in zip(once, scaled):
        assert other.pop("lambda") == pytest.approx(8 * one.pop("lambda"))
        assert one == other
    assert len({row["diversity"] for row in once}) > 2


def test_one_kind_for_all_leaves_everything_as_it_is(trained):
    rows = curve(trained, categories=torch.ones(25, dtype=torch.int64))
    assert {row["diversity"] for row in rows} == {0.0}
    assert len({(row["hit"], row["ndcg"]) for row in rows}) == 1


def test_unknown_kinds_are_all_different(trained):
    rows = curve(trained, categories=torch.zeros(25, dtype=torch.int64))
    assert {row["diversity"] for row in rows} == {1.0}


def test_the_command_line_writes_the_curve(trained, tmp_path, capsys):
    given = ["--checkpoint", str(trained[0]), "--out", str(tmp_path / "out"), "--weights", "0", "0.1"]
    assert diversity.main([*given, "--category", "kind", "-k", str(K), "--pool", "12"]) == 0
    with (tmp_path / "out" / "diversity.csv").open() as file:
        read = [*csv.DictReader(file)]
    want = curve(trained, weights=[0.0, 0.1])
    assert [{name: float(value) for name, value in row.items()} for row in read] == want
    assert np.isfinite([*want[1].values()]).all()
    assert diversity.main([*given, "--category", "nothing"]) == 2
    assert "has no field 'nothing'" in capsys.readouterr().err
    pytest.importorskip("matplotlib")
    assert (tmp_path / "out" / "diversity.png").read_bytes().startswith(b"\x89PNG")
