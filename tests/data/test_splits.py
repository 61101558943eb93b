"""Vectorised splits, filters and order against RecBole's own loops, on random data."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.data.dataset import Dataset

from recbole_kuaiformer.compat import notice_other_order
from recbole_kuaiformer.data.log import stable_order, time_order
from recbole_kuaiformer.data.logged import LoggedDataset
from recbole_kuaiformer.data.splits import by_ratio, leave_one_out

keys = st.lists(st.integers(0, 6), max_size=40).map(lambda values: np.array(values, dtype=np.int64))
recbole = Dataset.__new__(Dataset)


@settings(deadline=None)
@given(keys, st.integers(1, 2))
def test_leave_one_out_is_recboles_in_its_order(users, n_held_out):
    theirs = recbole._split_index_by_leave_one_out(recbole._grouped_index(users), n_held_out)
    assert [part.tolist() for part in leave_one_out(users, n_held_out=n_held_out)] == theirs


@settings(deadline=None)
@given(keys, st.sampled_from([[0.8, 0.1, 0.1], [0.5, 0.5], [0.34, 0.33, 0.33], [1.0, 0.0, 0.0]]))
def test_ratio_splits_are_recboles_in_its_order(users, ratios):
    theirs = [[] for _ in ratios]
    for rows in recbole._grouped_index(users):
        cuts = recbole._calcu_split_ids(tot=len(rows), ratios=ratios)
        for part, start, end in zip(theirs, [0, *cuts], [*cuts, len(rows)]):
            part.extend(rows[start:end])
    mine = by_ratio(
        users, n_parts=len(ratios), bounds=lambda size: recbole._calcu_split_ids(tot=size, ratios=ratios)
    )
    assert [part.tolist() for part in mine] == theirs


@settings(deadline=None)
@given(st.lists(st.integers(-(2**40), 2**40) | st.integers(-3, 3)))
def test_a_radix_sort_is_stable(values):
    keys = np.array(values, dtype=np.int64)
    assert stable_order(keys).tolist() == np.argsort(keys, kind="stable").tolist()


times = st.sampled_from([0.0, 0.25, 0.5, 0.75]) | st.sampled_from(
    [-1.5, 3.0, 978300760.0, 978300761.0, 1e300]
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), times), min_size=1))
def test_time_order_is_the_merge_sorts(rows):
    users, seconds = np.array([u for u, _ in rows]), np.array([float(t) for _, t in rows])
    assert time_order(users, seconds).tolist() == np.lexsort((seconds, users)).tolist()


class Said:
    """A dataset that keeps what is logged."""

    dataset_name = "said"

    def __init__(self):
        self.logger, self.lines = self, []

    def info(self, line):
        self.lines.append(line)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(978300700, 978300900)), min_size=1))
def test_the_notice_counts_what_float32_would_move(rows):
    users, seconds = np.array([u for u, _ in rows]), np.array([float(t) for _, t in rows])
    order = np.lexsort((seconds, users))
    theirs = np.lexsort((seconds.astype(np.float32), users))
    last = np.r_[users[order][1:] != users[order][:-1], True]
    said = Said()
    notice_other_order(said, users=users, times=seconds, order=order)
    if (theirs == order).all():
        assert said.lines == []
    else:
        assert f"move {(theirs != order).sum()} of {len(rows)} " in said.lines[0]
        assert f"give {(theirs != order)[last].sum()} of {last.sum()} users" in said.lines[0]


class Frames:
    """What RecBole's filter reads and writes."""

    uid_field, iid_field = "u", "i"
    _parse_intervals_str, _within_intervals = Dataset._parse_intervals_str, Dataset._within_intervals
    _get_illegal_ids_by_inter_num = Dataset._get_illegal_ids_by_inter_num
    _banned = LoggedDataset._banned

    def __init__(self, rows, *, users, items, intervals):
        self.logger = self
        self.debug = self.warning = lambda _: None
        self.config = dict(zip(("user_inter_num_interval", "item_inter_num_interval"), intervals))
        self.inter_feat = pd.DataFrame(rows, columns=["u", "i"])
        self.user_feat = None if users is None else pd.DataFrame({"u": users})
        self.item_feat = None if items is None else pd.DataFrame({"i": items})


tokens = st.sampled_from("abcdef")
intervals = st.sampled_from([None, "[0,inf)", "[2,inf)", "[3,5]", "(1,4);[6,9]"])


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(tokens, tokens), max_size=30),
    st.none() | st.just([*"abcdef"]),
    st.none() | st.just([*"fedcba"]),
    st.tuples(intervals, intervals),
)
def test_the_filter_by_number_of_interactions_is_recboles(rows, users, items, asked):
    mine, theirs = (Frames(rows, users=users, items=items, intervals=asked) for _ in range(2))
    LoggedDataset._filter_by_inter_num(mine)
    Dataset._filter_by_inter_num(theirs)
    for name in ("inter_feat", "user_feat", "item_feat"):
        one, other = getattr(mine, name), getattr(theirs, name)
        if other is not None:
            assert one.index.tolist() == other.index.tolist(), Counter(rows)
            assert one.to_numpy().tolist() == other.to_numpy().tolist()


@pytest.mark.parametrize(
    "text", ["a\nb\n", "a\r\nb\r\n", 'a"b\n', "a\rb\n", "a\r", "\r\r\n", "x" * (2**20 - 1) + "\r\n"]
)
def test_a_quote_or_a_bare_return_is_found(tmp_path, text):
    from recbole_kuaiformer.compat import _parsers_disagree

    file = tmp_path / "file"
    file.write_bytes(text.encode())
    bare = text.replace("\r\n", "")
    assert _parsers_disagree(file) == ('"' in bare or "\r" in bare)
