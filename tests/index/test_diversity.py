"""Controllable aggregation equals the greedy loop; λ = 0 is plain top-k."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_kuaiformer.index.diversity import choose_diverse
from recbole_kuaiformer.index.multi_interest import Retrieved
from tests.reference import retrieval as slow


def found(seed, *, n_rows, width, n_there):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randperm(width + 9, generator=generator)[:width] + 1 for _ in range(n_rows)])
    scores = (torch.randint(0, 40, (n_rows, width), generator=generator) / 4).sort(descending=True).values
    ids[:, n_there:], scores[:, n_there:] = 0, -torch.inf
    return Retrieved(ids, scores, torch.where(ids > 0, ids % 3, -1))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6), n_rows=st.integers(1, 4), width=st.integers(1, 12), missing=st.integers(0, 5),
    k=st.integers(1, 14), n_kinds=st.integers(1, 5), weight=st.sampled_from([0.0, 0.25, 1.0, 100.0]),
)  # fmt: skip
def test_equals_the_greedy_loop(seed, n_rows, width, missing, k, n_kinds, weight):
    n_there = max(width - missing, 0)
    lists = found(seed, n_rows=n_rows, width=width, n_there=n_there)
    kinds = torch.randint(0, n_kinds, (width + 10,), generator=torch.Generator().manual_seed(seed))
    chosen = choose_diverse(lists, k=k, categories=kinds, weight=weight)
    assert chosen.item_ids.shape == (n_rows, min(k, width))
    for row in range(n_rows):
        ids, scores = lists.item_ids[row, :n_there].tolist(), lists.scores[row, :n_there].tolist()
        want = slow.diverse(ids, scores, k=k, categories=kinds.tolist(), weight=weight)
        got = chosen.item_ids[row].tolist()
        assert got[: len(want)] == want
        assert got[len(want) :] == [0] * (len(got) - len(want))
        where = {item: place for place, item in enumerate(ids)}
        assert chosen.scores[row, : len(want)].tolist() == [scores[where[item]] for item in want]
        assert chosen.interests[row, : len(want)].tolist() == [item % 3 for item in want]
        if weight == 0:
            assert got == lists.item_ids[row, :k].tolist()


def test_more_weight_gives_more_categories():
    lists = found(1, n_rows=1, width=12, n_there=12)
    kinds = torch.arange(22) % 4 + 1
    kinds[lists.item_ids[0, :4]] = 1
    seen = [
        len({*kinds[choose_diverse(lists, k=4, categories=kinds, weight=w).item_ids[0]].tolist()})
        for w in (0.0, 1000.0)
    ]
    assert seen == [1, 4]


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ValueError, match="diversity: must be a finite number of at least 0"):
        choose_diverse(
            found(1, n_rows=1, width=3, n_there=3), k=2, categories=torch.zeros(20).long(), weight=weight
        )
