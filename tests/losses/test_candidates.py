"""Candidates: who competes, and with what probability."""

import pytest
import torch

from recbole_kuaiformer.losses.candidates import (
    NEGATIVES,
    NEVER,
    KnownPositives,
    draw_candidates,
    negative_mask,
)

N, P, DRAWN = 13, 7, 50
Q = torch.cat([torch.zeros(1), torch.arange(1.0, N) / torch.arange(1.0, N).sum()])


def draw(name, positive_ids, *, deduplicate=False, q=Q):
    return draw_candidates(name, positive_ids, q=q, n_negatives=DRAWN, deduplicate=deduplicate)


@pytest.mark.parametrize("name", sorted(NEGATIVES))
class TestContract:
    def test_ids_are_items_with_one_log_q_each(self, name):
        positive_ids = torch.randint(1, N, (P,))
        candidates = draw(name, positive_ids)
        assert candidates.item_ids.dtype == torch.int64
        assert candidates.item_ids.min() >= 1
        assert candidates.item_ids.max() < N
        if candidates.log_q is not None:
            assert candidates.log_q.shape == candidates.item_ids.shape
            assert candidates.positive_log_q.shape == (P,)
            assert torch.isfinite(candidates.log_q).all()

    def test_the_importance_weighted_sum_is_the_full_sum(self, name):
        """E Σ_j exp(s_j) / (M q_j) over the columns is Σ exp(s) over the catalogue."""
        torch.manual_seed(0)
        scores = torch.randn(N).exp()
        total, repeats = 0.0, 4000
        for _ in range(repeats):
            candidates = draw(name, torch.multinomial(Q, P, replacement=True))
            ids = candidates.item_ids
            weights = (
                torch.ones(len(ids)) if candidates.log_q is None else 1 / (len(ids) * candidates.log_q.exp())
            )
            total += float((scores[ids] * weights).sum()) / repeats
        assert abs(total / float(scores[1:].sum()) - 1) < 0.05

    def test_an_item_never_counted_keeps_its_logarithm_finite(self, name):
        q = Q.clone()
        q[3] = 0
        candidates = draw(name, torch.tensor([3, 4]), q=q)
        if candidates.positive_log_q is not None:
            assert torch.isfinite(candidates.positive_log_q).all()


def test_mixture_is_the_formula():
    candidates = draw("mixed", torch.tensor([2, 5, 5]))
    want = (3 * Q + DRAWN / (N - 1)) / (3 + DRAWN)
    torch.testing.assert_close(candidates.log_q.exp(), want[candidates.item_ids])
    assert candidates.item_ids[:3].tolist() == [2, 5, 5]


def test_deduplicated_probability_is_how_often_a_batch_holds_the_item():
    torch.manual_seed(0)
    seen, repeats = torch.zeros(N), 5000
    for _ in range(repeats):
        ids = torch.multinomial(Q, P, replacement=True)
        candidates = draw("in_batch", ids, deduplicate=True)
        assert candidates.item_ids.tolist() == sorted(set(ids.tolist()))
        seen[candidates.item_ids] += 1 / repeats
    full = draw("in_batch", torch.arange(1, N), deduplicate=True)
    of_seven = 1 - (1 - Q[full.item_ids]) ** P
    torch.testing.assert_close(seen[1:], of_seven, rtol=0, atol=0.03)
    batch = draw("in_batch", torch.arange(1, P + 1), deduplicate=True)
    torch.testing.assert_close(batch.log_q.exp(), of_seven[:P])


def test_names_and_deduplication_are_checked():
    with pytest.raises(ValueError, match=r"negatives 'in_bach' is not known \(did you mean 'in_batch'\?\)"):
        draw("in_bach", torch.tensor([1]))
    for name in ("uniform", "mixed", "all"):
        with pytest.raises(ValueError, match="only in_batch candidates"):
            draw(name, torch.tensor([1]), deduplicate=True)


def test_a_rows_own_id_is_no_negative_of_it():
    mask = negative_mask(torch.tensor([2, 3]), torch.tensor([3, 2, 2, 5]))
    assert mask.tolist() == [[True, False, False, True], [False, True, True, True]]


def test_known_positives_equal_a_dictionary():
    torch.manual_seed(0)
    users, items = torch.randint(0, 9, (40,)), torch.randint(1, N, (40,))
    rows = torch.randperm(99)[:40]
    first = {}
    for user, item, row in sorted(zip(users.tolist(), items.tolist(), rows.tolist()), key=lambda one: one[2]):
        first.setdefault((user, item), row)
    assert len(first) < 40
    known = KnownPositives(users, items, rows=rows, n_items=N)
    got = known(torch.arange(9), torch.arange(N))
    assert got.tolist() == [[first.get((u, i), NEVER) for i in range(N)] for u in range(9)]
