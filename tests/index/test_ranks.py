"""Ranks by counting equal ranks by sorting, ties included."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_kuaiformer.index import ranks
from recbole_kuaiformer.index.ranks import count_above
from tests.index.test_multi_interest import WORLD, excluded_sets, pairs_of, world
from tests.reference import retrieval as slow


@settings(max_examples=100, deadline=None)
@given(n_asked=st.integers(1, 15), at_once=st.integers(1, 500), **WORLD)
def test_equals_counting_by_loops(
    n_asked, at_once, seed, n_items, n_rows, n_interests, k, longest, overfetch, negative, duplicates
):
    items, interests = world(
        seed,
        n_items=n_items,
        n_rows=n_rows,
        n_interests=n_interests,
        negative=negative,
        duplicates=duplicates,
    )
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, n_rows, (n_asked,), generator=generator)
    asked = torch.randint(1, n_items, (n_asked,), generator=generator)
    sets = excluded_sets(seed, n_rows=n_rows, n_items=n_items, longest=longest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "SCORES_AT_ONCE", at_once)
        patch.setattr(ranks, "ROWS_AT_ONCE", 3)
        above, equal = count_above(items, interests, rows=rows, item_ids=asked, excluded=pairs_of(sets))
    every = slow.scores_of(items.tolist(), interests.tolist())
    for place, (row, item) in enumerate(zip(rows.tolist(), asked.tolist())):
        want = slow.average_rank(every[row], item, excluded=sets[row])
        assert 1 + int(above[place]) + int(equal[place]) / 2 == want
