"""The log: order, histories and gaps, against a dict of lists."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_kuaiformer.data.log import InteractionLog

rows = st.lists(
    st.tuples(
        st.integers(0, 4), st.integers(1, 9), st.sampled_from([0.0, 0.5, 1.0, 978300760.0, 978300761.0])
    ),
    min_size=1,
    max_size=40,
)


def build(data):
    users, items, times = (np.array(column) for column in zip(*data))
    return InteractionLog.build(users, items, timestamps=times, columns={"n": np.arange(len(data))})


@settings(deadline=None)
@given(rows, st.integers(1, 6))
def test_histories_are_what_came_before_in_stable_order(data, max_length):
    log = build(data)
    histories, lengths = log.histories(np.arange(len(log)), max_length=max_length)
    expected = []
    for user in sorted({user for user, _, _ in data}):
        own = sorted((row for row in enumerate(data) if row[1][0] == user), key=lambda row: row[1][2])
        for place in range(len(own)):
            expected.append(([n for n, _ in own[max(place - max_length, 0) : place]], own[place][0]))
    for row, (history, n) in enumerate(expected):
        assert log.columns["n"][row] == n
        assert [log.columns["n"][r] for r in histories[row] if r >= 0] == history
        assert lengths[row] == len(history)
        assert (histories[row][lengths[row] :] == -1).all()


@settings(deadline=None)
@given(rows)
def test_time_gaps_keep_seconds(data):
    log = build(data)
    gaps = log.time_gaps(np.arange(len(log)))
    for row in range(len(log)):
        if row == log.starts[row]:
            assert np.isnan(gaps[row])
        else:
            assert gaps[row] == log.timestamps[row] - log.timestamps[row - 1]


def test_five_rows_of_one_user_come_out_in_64_bit_order():
    times = 978300000.0 + np.array([760, 780, 761, 800, 790])
    log = InteractionLog.build(np.zeros(5, int), np.array([*map(ord, "abcde")]), timestamps=times, columns={})
    assert "".join(map(chr, log.item_ids)) == "acbed"
