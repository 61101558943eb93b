"""What a position predicts: which rows it may draw, how often each, and that a batch is else as it was."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model

from recbole_kuaiformer.data.dataset import TARGET_IDS, TARGET_UNSEEN
from recbole_kuaiformer.data.horizon import Horizon
from recbole_kuaiformer.data.log import InteractionLog
from recbole_kuaiformer.data.planning import BatchPlan
from tests import worlds


def make_log(times):
    """One user for each list of times; items 101, 102, …"""
    users = np.repeat(np.arange(len(times)), [len(own) for own in times])
    stamps = np.concatenate([np.array(own, dtype=float) for own in times])
    return InteractionLog.ordered(users, 101 + np.arange(len(users)), timestamps=stamps, columns={})


def allowed(horizon):
    rows = horizon.targets.tolist()
    return {row: rows[k : last + 1] for k, (row, last) in enumerate(zip(rows, horizon.furthest))}


#              user 0: rows 0 … 5              user 1: rows 6 … 8
LOG = make_log([[0, 10, 20, 100, 110, 130], [0, 3, 9]])
TRAINED = np.array([1, 2, 4, 5, 7, 8])  # row 3 is held out


@pytest.mark.parametrize(
    ("n_events", "seconds", "expected"),
    [
        (1, None, {1: [1], 2: [2], 4: [4], 5: [5], 7: [7], 8: [8]}),
        (2, None, {1: [1, 2], 2: [2, 4], 4: [4, 5], 5: [5], 7: [7, 8], 8: [8]}),
        (9, None, {1: [1, 2, 4, 5], 2: [2, 4, 5], 4: [4, 5], 5: [5], 7: [7, 8], 8: [8]}),
        # From the newest item seen, row 0 at 0, to what comes by 20; row 4's, row 3, stands at 100.
        (None, 20.0, {1: [1, 2], 2: [2], 4: [4], 5: [5], 7: [7, 8], 8: [8]}),
        (None, 5.0, {1: [1], 2: [2], 4: [4], 5: [5], 7: [7], 8: [8]}),  # nothing so soon: the next one
        (2, 110.0, {1: [1, 2], 2: [2, 4], 4: [4, 5], 5: [5], 7: [7, 8], 8: [8]}),
    ],
)
def test_written_out(n_events, seconds, expected):
    assert allowed(Horizon.of(LOG, targets=TRAINED, n_events=n_events, seconds=seconds)) == expected


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 30), min_size=2, max_size=9), min_size=1, max_size=5),
    st.sampled_from([None, 1, 2, 3, 20]),
    st.sampled_from([None, 1.0, 4.0, 11.0]),
    st.data(),
)
def test_equals_the_plain_loops(gaps, n_events, seconds, data):
    log = make_log([np.cumsum(own) for own in gaps])
    possible = np.flatnonzero(np.arange(len(log)) > log.starts)
    keep = data.draw(st.lists(st.booleans(), min_size=len(possible), max_size=len(possible)))
    targets = possible[np.array(keep) | (np.arange(len(possible)) == 0)]
    found = allowed(Horizon.of(log, targets=targets, n_events=n_events, seconds=seconds))
    for row in targets:
        later = [t for t in targets if t >= row and log.user_ids[t] == log.user_ids[row]][:n_events]
        if seconds is not None:
            later = [t for t in later if log.timestamps[t] - log.timestamps[row - 1] <= seconds]
        assert found[row] == (later or [row])


def test_every_row_of_a_horizon_is_drawn_equally_often():
    horizon = Horizon.of(LOG, targets=TRAINED, n_events=3, seconds=None)
    rows = np.tile([[1, 8, -1], [2, 7, 4]], (6000, 1))
    drawn = horizon.draw(rows, rng=np.random.default_rng(3))
    assert (drawn[rows < 0] == -1).all()
    for row, values in allowed(horizon).items():
        got, counts = np.unique(drawn[rows == row], return_counts=True)
        if row in rows:
            assert got.tolist() == values
            np.testing.assert_allclose(counts / counts.sum(), 1 / len(values), atol=0.03)


def test_how_often_each_row_is_expected():
    """Row 8 by the positions of rows 7 (half of the time) and 8 (always)."""
    horizon = Horizon.of(LOG, targets=TRAINED, n_events=2, seconds=None)
    np.testing.assert_allclose(horizon.expected(), [0.5, 1, 1, 1.5, 0.5, 1.5])


@pytest.fixture
def world(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    return worlds.cyclic(tmp_path / "data", n_users=9, n_items=30, length=20)  # no item twice for a user


def loader(path, model="SASRecPlus", **more):
    given = worlds.small_for(model, path, "cyclic", train_batch_size=16, **more)
    config = Config(model, "cyclic", config_dict=given)
    return data_preparation(config, create_dataset(config))


@pytest.mark.parametrize(
    "more", [{"target_horizon": 3}, {"target_horizon": None, "target_horizon_seconds": 180.0}]
)
def test_batches_predict_the_next_three_and_show_what_they_showed(world, more):
    """Next = item + 1 a minute later, so what is predicted stands 1, 2 or 3 after the newest item seen."""
    train, _, _ = loader(world, **more)
    plain, *_ = loader(world)
    tokens = train.dataset.field2id_token["item_id"]
    number = np.array([-1, *(int(token[1:]) for token in tokens[1:])])
    user_end = {}  # number of each user's newest training item: 18 of 20 are trained on or seen
    log = train.dataset.log
    for row in train.dataset.inter_feat["log_row"].tolist():
        user_end[log.user_ids[row]] = number[log.item_ids[row]]
    steps = []
    for mine, theirs in zip(train, plain):
        same = set(mine.columns) - {TARGET_IDS}
        assert all(torch.equal(mine[name], theirs[name]) for name in same)
        for user, ids, hidden, history, n in zip(
            mine["user_id"].tolist(), mine[TARGET_IDS], mine[TARGET_UNSEEN], mine["item_id_list"],
            mine["item_length"].tolist(),
        ):  # fmt: skip
            for item, unseen in zip(ids[ids > 0].tolist(), hidden.tolist()):
                seen = number[history[n - unseen - 1]]
                step, left = (number[item] - seen) % 30, (user_end[user] - seen) % 30
                assert 1 <= step <= min(3, left)
                steps.append(step)
    assert len(steps) == 9 * 17
    assert min(np.bincount(steps, minlength=4)[1:]) > 0.2 * len(steps)


def test_the_models_frequencies_are_those_of_what_it_predicts(world):
    train, *_ = loader(world, "PinnerFormer", target_horizon=4, negatives="mixed")
    model = get_model("PinnerFormer")(train.config, train.dataset)
    n, n_epochs = model.n_items, 240
    drawn = torch.cat([batch[TARGET_IDS].flatten() for _ in range(n_epochs) for batch in train])
    found = torch.bincount(drawn[drawn > 0], minlength=n) / (drawn > 0).sum()
    assert model.frequency(1).std() > 0.005
    torch.testing.assert_close(model.frequency(1), found, rtol=0, atol=0.004)


def test_draws_depend_on_seed_and_epoch_alone(world):
    def epochs(**more):
        train, *_ = loader(world, target_horizon=3, **more)
        return [torch.cat([batch[TARGET_IDS].flatten().sort().values for batch in train]) for _ in range(2)]

    one, again, other = epochs(), epochs(), epochs(seed=8)
    assert all(torch.equal(a, b) for a, b in zip(one, again))
    assert not torch.equal(*one)
    assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize("n_drawn", [None, 2])
def test_with_everything_off_the_plan_is_that_of_order_and_draws_alone(world, n_drawn):
    """The generators of windows and targets are the first two of the epoch's, whatever else may be drawn."""
    train, *_ = loader(world, targets_per_window=n_drawn)
    order, draws = map(np.random.default_rng, np.random.SeedSequence([7, 5]).spawn(2))
    lengths = train.windows.lengths(16)
    sizes = train.windows.sizes(n_drawn)
    batches = [*train.windows.batches(len(train), sizes=sizes, lengths=lengths, rng=order)]
    plans = [*train.plan(5)]
    assert len(plans) == len(batches) > 2
    for plan, numbers in zip(plans, batches):
        assert np.array_equal(plan.numbers, numbers)
        assert np.array_equal(plan.targets, train.windows.targets(numbers, n_drawn=n_drawn, rng=draws))
        assert np.array_equal(plan.predicted, plan.targets)
        assert plan.histories is None


def test_processes_share_a_batch_between_them():
    numbers, targets = np.arange(3), np.arange(6).reshape(3, 2)
    whole = BatchPlan(numbers, targets, predicted=targets + 10, histories=targets + 20)
    shares = [whole.share(rank, world_size=2) for rank in range(2)]
    assert [share.numbers.tolist() for share in shares] == [[0, 2], [1]]
    assert shares[0].predicted.tolist() == [[10, 11], [14, 15]]
    assert shares[1].histories.tolist() == [[22, 23]]
    idle = whole.share(3, world_size=4)
    assert (idle.targets == -1).all()
    assert (idle.predicted == -1).all()
    assert len(idle.numbers) == len(idle.histories) == 1
