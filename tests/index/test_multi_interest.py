"""Several interests, exclusions, ties, duplicates: always the brute-force answer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_kuaiformer.index import multi_interest
from recbole_kuaiformer.index.base import TopK
from recbole_kuaiformer.index.choose import build_index
from recbole_kuaiformer.index.multi_interest import Exclusions, certified, retrieve, retrieve_readings
from tests.index.test_indexes import table
from tests.reference import retrieval as slow


def world(seed, *, n_items, n_rows, n_interests, negative=False, duplicates=False):
    items = table(n_items, 4, seed=seed)
    interests = table(n_rows * n_interests, 4, seed=seed + 1).view(n_rows, n_interests, 4).clone()
    if negative:
        items, interests = -items.abs() - 1, interests.abs() + 1
    if duplicates:
        items[n_items // 2 :] = items[: n_items - n_items // 2].clone()
        interests[:, -1] = interests[:, 0]  # a missing interest repeats a real one
    return items, interests


def excluded_sets(seed, *, n_rows, n_items, longest):
    generator = torch.Generator().manual_seed(seed)
    sets = []
    for _ in range(n_rows):
        length = int(torch.randint(0, longest + 1, (), generator=generator))
        sets.append(set(torch.randint(1, n_items, (length,), generator=generator).tolist()))
    return sets


def pairs_of(sets):
    rows = [row for row, one in enumerate(sets) for _ in one]
    ids = [item for one in sets for item in one]
    return Exclusions.of(torch.tensor(rows, dtype=torch.int64), torch.tensor(ids, dtype=torch.int64))


WORLD = {
    "seed": st.integers(0, 10**6), "n_items": st.integers(2, 60), "n_rows": st.integers(1, 6),
    "n_interests": st.integers(1, 5), "k": st.integers(1, 70), "longest": st.integers(0, 40),
    "overfetch": st.integers(0, 20), "negative": st.booleans(), "duplicates": st.booleans(),
}  # fmt: skip


@pytest.mark.parametrize("backend", ["torch", "faiss_cpu"])
@settings(max_examples=120, deadline=None)
@given(**WORLD)
def test_equals_brute_force(
    backend, seed, n_items, n_rows, n_interests, k, longest, overfetch, negative, duplicates
):
    items, interests = world(
        seed,
        n_items=n_items,
        n_rows=n_rows,
        n_interests=n_interests,
        negative=negative,
        duplicates=duplicates,
    )
    sets = excluded_sets(seed, n_rows=n_rows, n_items=n_items, longest=longest)
    index, _ = build_index(backend, items)
    result = retrieve(index, interests, k=k, excluded=pairs_of(sets), overfetch=overfetch)
    every = slow.scores_of(items.tolist(), interests.tolist())
    assert result.item_ids.shape == result.scores.shape == result.interests.shape == (n_rows, k)
    for row in range(n_rows):
        want = slow.top_k(every[row], k=k, excluded=sets[row])
        n_found = len(want)
        ids, scores = result.item_ids[row].tolist(), result.scores[row].tolist()
        assert scores[:n_found] == [score for _, score in want]
        assert all(item == 0 for item in ids[n_found:])
        assert all(score == -float("inf") for score in scores[n_found:])
        assert result.interests[row, n_found:].tolist() == [-1] * (k - n_found)
        assert len({*ids[:n_found]}) == n_found
        assert not {*ids[:n_found]} & (sets[row] | {0})
        for item, score, interest in zip(ids[:n_found], scores, result.interests[row].tolist()):
            assert float(interests[row, interest] @ items[item]) == score == every[row][item]


@settings(max_examples=200, deadline=None)
@given(width=st.integers(1, 60), **WORLD)
def test_the_certificate_is_never_wrong(
    width, seed, n_items, n_rows, n_interests, k, longest, overfetch, negative, duplicates
):
    """For any number of items fetched, a certified row is the brute-force answer."""
    items, interests = world(
        seed,
        n_items=n_items,
        n_rows=n_rows,
        n_interests=n_interests,
        negative=negative,
        duplicates=duplicates,
    )
    sets = excluded_sets(seed, n_rows=n_rows, n_items=n_items, longest=longest)
    index, _ = build_index("torch", items)
    found = multi_interest._search(index, interests, k=min(width, index.n_items))
    result = multi_interest._Merged.of(found).best(k=k, excluded=pairs_of(sets))
    every = slow.scores_of(items.tolist(), interests.tolist())
    for row in certified(result, found=found, n_items=index.n_items).nonzero().flatten().tolist():
        want = [score for _, score in slow.top_k(every[row], k=k, excluded=sets[row])]
        assert result.scores[row, : len(want)].tolist() == want


def test_a_row_without_certificate_is_searched_again():
    """One user has seen the 9 best of 30 items; two extra fetched items cannot do."""
    items = torch.zeros(31, 2)
    items[:, 0] = torch.arange(31.0)
    interests = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    searched = []

    class Counting:
        n_items, is_exact, max_k, description = 30, True, None, "counting"

        def search(self, queries, *, k):
            searched.append((len(queries), k))
            return build_index("torch", items)[0].search(queries, k=k)

    excluded = pairs_of([set(range(22, 31)), {1}])
    result = retrieve(Counting(), interests, k=3, excluded=excluded, overfetch=2)
    assert result.item_ids.tolist() == [[21, 20, 19], [30, 29, 28]]
    assert searched == [(2, 5), (1, 12)]


def test_one_long_history_does_not_deepen_the_search_of_all(monkeypatch):
    """Forty users have seen their six best items, one has seen 150: he alone is searched that deep."""
    torch.manual_seed(0)
    items, interests = torch.randn(200, 6), torch.randn(41, 2, 6)
    oracle, _ = build_index("torch", items)
    best = oracle.search(interests[:, 0], k=150).item_ids
    sets = [{*row[: 150 if user == 7 else 6].tolist()} for user, row in enumerate(best)]
    searched = []

    class Counting:
        n_items, is_exact, max_k, description = 199, True, None, "counting"

        def search(self, queries, *, k):
            searched.append((len(queries), k))
            return oracle.search(queries, k=k)

    monkeypatch.setattr(multi_interest, "RESULTS_AT_ONCE", 2000)
    result = retrieve(Counting(), interests, k=5, excluded=pairs_of(sets), overfetch=1)
    assert max(rows * k for rows, k in searched) <= 2000
    assert [(rows, k) for rows, k in searched if k > 100] == [(2, 155)]
    every = slow.scores_of(items.tolist(), interests.tolist())
    for row in range(41):
        want = [item for item, _ in slow.top_k(every[row], k=5, excluded=sets[row])]
        assert result.item_ids[row].tolist() == want


def test_an_approximate_index_is_never_asked_for_more_than_it_can_find():
    items = torch.randn(100, 4)
    oracle, _ = build_index("torch", items)

    class Limited:
        n_items, is_exact, max_k, description = 99, False, 20, "limited"

        def search(self, queries, *, k):
            assert k <= 20
            return oracle.search(queries, k=k)

    seen = oracle.search(items[3:4], k=18).item_ids[0]
    result = retrieve(Limited(), items[3:4][None], k=10, excluded=pairs_of([{*seen.tolist()}]))
    assert (result.item_ids[0, :2] > 0).all()
    assert (result.item_ids[0, 2:] == 0).all()


def test_two_readings_come_from_one_search():
    items, interests = world(3, n_items=40, n_rows=5, n_interests=3)
    sets = excluded_sets(3, n_rows=5, n_items=40, longest=6)
    index, _ = build_index("torch", items)
    kept, masked = retrieve_readings(index, interests, k=7, readings=(None, pairs_of(sets)))
    assert torch.equal(kept.scores, retrieve(index, interests, k=7).scores)
    assert torch.equal(masked.scores, retrieve(index, interests, k=7, excluded=pairs_of(sets)).scores)
    assert not torch.equal(kept.item_ids, masked.item_ids)


def test_users_in_blocks_are_as_users_at_once(monkeypatch):
    torch.manual_seed(4)
    items, interests = torch.randn(40, 4), torch.randn(23, 2, 4)  # no ties, whose order is open
    sets = excluded_sets(4, n_rows=23, n_items=40, longest=12)
    index, _ = build_index("torch", items)
    whole = retrieve(index, interests, k=7, excluded=pairs_of(sets))
    monkeypatch.setattr(multi_interest, "RESULTS_AT_ONCE", 4 * 2 * (7 + 32))
    parts = retrieve(index, interests, k=7, excluded=pairs_of(sets))
    for name in ("item_ids", "scores", "interests"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name


def test_an_approximate_index_fills_lists_that_history_emptied():
    torch.manual_seed(0)
    items = torch.nn.functional.normalize(torch.randn(200, 8), dim=1)
    index, _ = build_index("faiss_cpu", items, factory="HNSW32", parameters="efSearch=200")
    near = index.search(items[7:8], k=60).item_ids[0]
    excluded = pairs_of([set(near.tolist())])
    result = retrieve(index, items[7:8][None], k=20, excluded=excluded, overfetch=1)
    assert (result.item_ids > 0).all()
    assert not {*result.item_ids[0].tolist()} & {*near.tolist()}


def test_mistakes_are_named():
    index, _ = build_index("torch", table(9, 4))
    with pytest.raises(ValueError, match="k: must be at least 1, got 0"):
        retrieve(index, torch.ones(2, 1, 4), k=0)
    with pytest.raises(ValueError, match="queries: 2 of 2 rows hold NaN"):
        retrieve(index, torch.full((2, 1, 4), torch.nan), k=1)


def test_found_lists_of_nothing_merge_to_nothing():
    merged = multi_interest._Merged.of(
        TopK(torch.zeros(2, 3, 4, dtype=torch.int64), torch.full((2, 3, 4), -torch.inf))
    )
    result = merged.best(k=5, excluded=None)
    assert (result.item_ids == 0).all()
    assert (result.interests == -1).all()
