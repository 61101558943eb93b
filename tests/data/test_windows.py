"""Windows: every target exactly once an epoch, inside its window's recent items, in any order asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_kuaiformer.data.log import InteractionLog
from recbole_kuaiformer.data.windows import Windows, n_batches_of


def make_log(lengths):
    users = np.repeat(np.arange(len(lengths)), lengths)
    times = np.concatenate([np.arange(n, dtype=float) for n in lengths])
    return InteractionLog.build(users, np.arange(1, len(users) + 1), timestamps=times, columns={})


worlds = st.lists(st.integers(2, 30), min_size=1, max_size=12)


@settings(deadline=None)
@given(worlds, st.integers(1, 9), st.integers(1, 7), st.integers(0, 2**16), st.data())
def test_each_target_exactly_once_and_within_the_span(lengths, span, batch_size, seed, data):
    log = make_log(lengths)
    possible = np.flatnonzero(np.arange(len(log)) > log.starts)
    keep = data.draw(st.lists(st.booleans(), min_size=len(possible), max_size=len(possible)))
    chosen = possible[np.array(keep) | (np.arange(len(possible)) == 0)]
    windows = Windows.cut(log, targets=chosen, span=span)
    seen, sizes = [], windows.sizes()
    n_batches = n_batches_of(sizes, batch_size=batch_size)
    batches = [
        *windows.batches(n_batches, sizes=sizes, lengths=windows.lengths(8), rng=np.random.default_rng(seed))
    ]
    assert len(batches) == n_batches
    for numbers in batches:
        assert abs(sizes[numbers].sum() - len(chosen) / n_batches) <= sizes.max()
        targets = windows.targets(numbers, n_drawn=None, rng=None)
        for number, row in zip(numbers, targets):
            own = row[row >= 0]
            assert (np.diff(own) > 0).all()
            assert own[-1] == windows.lasts[number]
            assert own[-1] - own[0] < span
            assert (log.user_ids[own] == log.user_ids[own[0]]).all()
            seen += own.tolist()
    assert sorted(seen) == chosen.tolist()


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_one_long_window_does_not_swell_the_batches_of_all_others(where):
    lengths = {"first": [300, *[3] * 60], "middle": [*[3] * 30, 300, *[3] * 30], "last": [*[3] * 60, 300]}[
        where
    ]
    log = make_log(lengths)
    windows = Windows.cut(log, targets=np.flatnonzero(np.arange(len(log)) > log.starts), span=299)
    sizes = windows.sizes()
    n_batches = n_batches_of(sizes, batch_size=20)
    assert n_batches == 21  # 299 + 120 targets
    for rng in (None, np.random.default_rng(5)):
        batches = [*windows.batches(n_batches, sizes=sizes, lengths=windows.lengths(300), rng=rng)]
        sums = [sizes[numbers].sum() for numbers in batches]
        assert len(batches) == n_batches
        assert sorted(np.concatenate(batches).tolist()) == [*range(61)]
        assert sum(total > 22 for total in sums) == 1, "only the long window's batch is beyond what was asked"


def test_drawn_targets_are_of_the_window_distinct_and_differ_between_epochs():
    windows = Windows.cut(make_log([40, 9]), targets=np.r_[1:40, 41:49], span=10)
    numbers = np.arange(len(windows))
    every = windows.targets(numbers, n_drawn=None, rng=None)
    draws = [windows.targets(numbers, n_drawn=3, rng=np.random.default_rng(seed)) for seed in (0, 1)]
    for drawn in draws:
        for row, full in zip(drawn, every):
            own = row[row >= 0]
            assert len(own) == min(3, (full >= 0).sum()) == len(set(own))
            assert set(own) <= set(full)
    assert not np.array_equal(*draws)


def test_an_epochs_order_depends_on_the_generator_alone():
    windows = Windows.cut(make_log([30] * 20), targets=np.flatnonzero(np.arange(600) % 30), span=5)

    def order(seed):
        rng = np.random.default_rng(seed)
        return np.concatenate(
            [*windows.batches(9, sizes=windows.sizes(), lengths=windows.lengths(50), rng=rng)]
        ).tolist()

    assert order(3) == order(3) != order(4)


def test_a_first_interaction_cannot_be_a_target():
    with pytest.raises(ValueError, match="first interaction"):
        Windows.cut(make_log([3]), targets=np.array([0, 1]), span=2)
    with pytest.raises(ValueError, match="no interaction that has a history"):
        Windows.cut(make_log([3]), targets=np.array([], dtype=int), span=2)


def test_a_users_newest_windows_alone_hold_the_newest_targets():
    targets = np.r_[1:40, 41:49]
    every = Windows.cut(make_log([40, 9]), targets=targets, span=10)
    newest = Windows.cut(make_log([40, 9]), targets=targets, span=10, per_user=2)
    assert np.flatnonzero(newest.is_target).tolist() == [*range(20, 40), *range(41, 49)]
    assert newest.firsts.tolist() == [20, 30, 41]
    assert newest.lasts.tolist() == [29, 39, 48]
    assert len(every) == 5


@pytest.mark.parametrize(
    ("batch_size", "n_batches"), [(1, 5), (9, 5), (10, 4), (20, 2), (26, 2), (39, 1), (99, 1)]
)
def test_a_batch_holds_about_as_many_targets_as_asked_but_at_least_a_window(batch_size, n_batches):
    windows = Windows.cut(make_log([31, 10]), targets=np.r_[1:31, 32:41], span=9)
    assert windows.sizes().tolist() == [3, 9, 9, 9, 9]
    assert windows.sizes(4).tolist() == [3, 4, 4, 4, 4]
    assert n_batches_of(windows.sizes(), batch_size=batch_size) == n_batches
