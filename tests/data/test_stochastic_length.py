"""Stochastic Length against its law, and what batches make of it."""

from itertools import permutations

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation

from recbole_kuaiformer.data.dataset import ITEM_TIMES, REQUEST_TIME, TARGET_IDS, TARGET_UNSEEN
from recbole_kuaiformer.data.log import InteractionLog
from recbole_kuaiformer.data.stochastic_length import StochasticLength
from recbole_kuaiformer.data.windows import Windows
from tests import worlds

CHOICES = ("recent", "uniform", "weighted")


@pytest.mark.parametrize(
    ("length", "whole"), [(84, 1.0), (85, 0.987), (128, 0.435), (200, 0.178), (256, 0.109)]
)
def test_how_many_histories_stay_whole(length, whole):
    """N^α/n² with N = 256, α = 1.6: of 256 items 10.9 %; up to 84 of them all."""
    law = StochasticLength(256, 1.6, "recent")
    assert law.size == 84
    n = 200_000
    shortened = law.shortened(np.full(n, length), rng=np.random.default_rng(length))
    assert abs(1 - shortened.mean() - whole) < 0.004


def test_alpha_of_two_keeps_everything():
    law = StochasticLength(50, 2.0, "recent")
    assert not law.shortened(np.full(999, 50), rng=np.random.default_rng(0)).any()


@pytest.mark.parametrize("choice", CHOICES)
def test_so_many_items_stay_and_none_of_the_padding(choice):
    law = StochasticLength(16, 1.0, choice)
    lengths = np.array([16, 4, 9, 1, 5])
    ages = np.random.default_rng(1).integers(0, 99, (5, 16)).astype(float)
    kept = law.kept(ages, lengths, rng=np.random.default_rng(2))
    assert kept.sum(1).tolist() == [4, 4, 4, 1, 4]
    assert not kept[np.arange(16) >= lengths[:, None]].any()
    if choice == "recent":
        assert np.flatnonzero(kept[2]).tolist() == [5, 6, 7, 8]


def drawn_one_by_one(weights, size):
    """How likely each item is among ``size`` drawn without replacement, over all orders."""
    share = np.zeros(len(weights))
    for order in permutations(range(len(weights)), size):
        chance, left = 1.0, sum(weights)
        for i in order:
            chance, left = chance * weights[i] / left, left - weights[i]
        share[[*order]] += chance
    return share


@pytest.mark.parametrize("choice", ["uniform", "weighted"])
def test_how_often_each_item_stays(choice):
    """Weighted: 1 − age / sum of ages, drawn one by one without replacement."""
    ages = np.array([70.0, 20.0, 9.0, 1.0, 0.0])
    weights = np.ones(5) if choice == "uniform" else 1 - ages / ages.sum()
    n, law = 40_000, StochasticLength(5, 1.0, choice)
    assert law.size == 2
    kept = law.kept(np.tile(ages, (n, 1)), np.full(n, 5), rng=np.random.default_rng(4))
    np.testing.assert_allclose(kept.mean(0), drawn_one_by_one(weights, 2), atol=0.012)


@pytest.mark.parametrize("ages", [[0.0, 0.0, 0.0], [np.nan, np.nan, np.nan]])
def test_without_times_every_item_weighs_the_same(ages):
    law = StochasticLength(4, 1.0, "weighted")
    kept = law.kept(np.tile(ages, (9_000, 1)), np.full(9_000, 3), rng=np.random.default_rng(5))
    np.testing.assert_allclose(kept.mean(0), 2 / 3, atol=0.03)


def test_targets_are_what_is_left_that_has_something_before_it_and_the_last():
    log = InteractionLog.ordered(np.zeros(9, int), np.arange(9), timestamps=np.arange(9.0), columns={})
    windows = Windows.cut(log, targets=np.array([2, 3, 4, 6, 8]), span=7)  # rows 2 … 8
    for left, expected in [
        ([0, 3, 6, -1], [3, 6, 8]),
        ([3, 4, -1, -1], [4, 8]),  # nothing that is left stands before row 3
        ([1, 5, 7, -1], [8]),  # rows 5 and 7 are no targets
        ([0, 1, -1, -1], [8]),
    ]:
        got = windows.targets(np.array([0]), n_drawn=None, rng=None, histories=np.array([left]))
        assert got.tolist() == [expected]


@pytest.fixture
def world(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    return worlds.cyclic(tmp_path / "data", n_users=40, n_items=50, length=30)


def splits(path, **more):
    given = worlds.small_for(
        "HSTU", path, "cyclic", MAX_ITEM_LIST_LENGTH=25, window_targets=25, train_batch_size=200,
        use_times=True, use_request_time=True, **more,
    )  # fmt: skip
    config = Config("HSTU", "cyclic", config_dict=given)
    return data_preparation(config, create_dataset(config))


@pytest.mark.parametrize("choice", CHOICES)
def test_batches_hold_subsequences_and_targets_of_theirs(world, choice):
    """Next = item + 1 a minute later: in a history items and times go up together, wherever they are from."""
    train, *_ = splits(world, stochastic_length_alpha=1.2, stochastic_length_choice=choice)
    number = np.array([-1, *(int(token[1:]) for token in train.dataset.field2id_token["item_id"][1:])])
    size = int(25**0.6)  # 6
    lengths, gaps = [], []
    for batch in train:
        for history, n, times, request, ids, hidden in zip(
            batch["item_id_list"], batch["item_length"].tolist(), batch[ITEM_TIMES], batch[REQUEST_TIME],
            batch[TARGET_IDS], batch[TARGET_UNSEEN],
        ):  # fmt: skip
            items = number[history[:n]]
            steps = np.diff([*items, number[ids[ids > 0][-1]]]) % 50
            seconds = np.diff([*times[:n].tolist(), int(request)])
            assert (steps >= 1).all()
            assert (seconds == 60 * steps).all()
            assert (history[n:] == 0).all()
            if n > size:
                assert (steps == 1).all()
            own = [(int(i), int(h)) for i, h in zip(ids, hidden) if i > 0]
            assert own[-1][1] == 0
            assert all(history[n - h] == i and 0 < h < n for i, h in own[:-1])
            assert len(own) == n  # all that is left but the oldest, and the last
            lengths.append(n)
            gaps += steps.tolist()
    short = [n for n in lengths if n <= size]
    assert 0 < len(short) < len(lengths)
    assert (max(gaps) > 1) == (choice != "recent")


def test_an_epoch_is_the_same_by_seed_and_number_and_evaluation_does_not_change(world):
    def made(**more):
        train, valid, _ = splits(world, **more)
        rows = valid.dataset[torch.arange(len(valid.dataset))]
        histories = [
            torch.cat([torch.nn.functional.pad(b["item_id_list"], (0, 25 - b["item_id_list"].shape[1]))
                       for b in train])
            for _ in range(2)
        ]  # fmt: skip
        return histories, rows

    options = {"stochastic_length_alpha": 1.2, "stochastic_length_choice": "uniform"}
    (one, rows), (again, _), (_, plain_rows) = made(**options), made(**options), made()
    assert all(torch.equal(a, b) for a, b in zip(one, again))
    assert not torch.equal(*one)
    assert all(torch.equal(rows[name], plain_rows[name]) for name in rows)
    assert rows["item_length"].max() == 25
