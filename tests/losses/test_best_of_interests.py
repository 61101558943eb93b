"""The best of K interests against autograd's own, and rows taken a few at a time against all at once."""

import pytest
import torch

from recbole_kuaiformer.losses.best_of_interests import best_of_interests, summed_over_rows
from recbole_kuaiformer.losses.sampled_softmax import sampled_softmax

P, K, M, D = 7, 3, 11, 5


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n_interests", [1, K])
def test_scores_and_gradients_are_those_of_a_maximum_over_all_products(n_interests):
    weights = vectors(P, M, seed=3)
    results = []
    for scores in (best_of_interests, lambda u, x: torch.einsum("pkd,md->pkm", u, x).max(1).values):
        u = vectors(P, n_interests, D, seed=1).requires_grad_()
        x = vectors(M, D, seed=2).requires_grad_()
        best = scores(u, x)
        results.append((best, *torch.autograd.grad((weights * best).sum(), (u, x))))
    for mine, plain in zip(*results):
        torch.testing.assert_close(mine, plain)


def test_of_equal_interests_the_first_one_alone_learns():
    # Whole numbers: other products of equal rows may differ by what a processor's kernels round.
    u = vectors(P, 1, D).mul(9).round().repeat(1, K, 1).requires_grad_()
    best_of_interests(u, vectors(M, D, seed=1).mul(9).round()).sum().backward()
    assert u.grad[:, 0].abs().min() > 0
    assert (u.grad[:, 1:] == 0).all()


LOSSES = [
    {"logq": "none", "label_smoothing": 0.0, "smoothing_form": "paper", "unique": False},
    {"logq": "both", "label_smoothing": 0.2, "smoothing_form": "paper", "unique": False},
    {"logq": "negatives", "label_smoothing": 0.2, "smoothing_form": "uniform", "unique": False},
    {"logq": "negatives", "label_smoothing": 0.0, "smoothing_form": "paper", "unique": True},
]


@pytest.mark.parametrize("options", LOSSES, ids=str)
@pytest.mark.parametrize("rows_at_once", [1, 3, P, 100])
def test_rows_a_few_at_a_time_give_the_loss_and_the_gradients_of_all_at_once(options, rows_at_once):
    negative = vectors(P, M, seed=5) > -0.5
    log_q, positive_log_q = vectors(M, seed=6).log_softmax(0), vectors(P, seed=7).log_softmax(0)

    def loss(u, positives, items, rows):
        return len(u) * sampled_softmax(
            (u @ positives[..., None]).squeeze(-1).max(1).values,
            best_of_interests(u, items),
            negative=negative[rows],
            log_q=log_q,
            positive_log_q=positive_log_q[rows],
            **options,
        )

    results = []
    for parts in (True, False):
        inputs = [
            vectors(*shape, seed=n).requires_grad_() for n, shape in enumerate(((P, K, D), (P, D), (M, D)))
        ]
        u, positives, items = inputs
        total = (
            summed_over_rows(loss, u, positives=positives, items=items, rows_at_once=rows_at_once)
            if parts
            else loss(u, positives, items, slice(None))
        )
        (3 * total).backward()
        results.append((total.double(), *(one.grad for one in inputs)))
    for mine, whole in zip(*results):
        torch.testing.assert_close(mine, whole, rtol=1e-6, atol=1e-9)


def test_no_more_scores_are_held_than_asked_for():
    seen = []

    def loss(u, positives, items, rows):
        seen.append(len(u))
        return (u @ items.T).sum() + positives.sum()

    summed_over_rows(loss, vectors(P, K, D), positives=vectors(P, D), items=vectors(M, D), rows_at_once=3)
    assert seen == [3, 3, 1]


def test_without_gradients_none_are_computed():
    calls = []

    def loss(u, positives, items, rows):
        calls.append(u.requires_grad)
        return (u @ items.T).sum() + positives.sum()

    u = vectors(P, K, D).requires_grad_()
    with torch.no_grad():
        summed_over_rows(loss, u, positives=vectors(P, D), items=vectors(M, D), rows_at_once=4)
    assert calls == [False, False]


def test_at_least_one_row_at_once():
    with pytest.raises(ValueError, match="rows_at_once must be at least 1, got 0"):
        summed_over_rows(
            lambda *_: vectors(),
            vectors(P, K, D),
            positives=vectors(P, D),
            items=vectors(M, D),
            rows_at_once=0,
        )


def test_no_row_at_all_is_named():
    none = torch.zeros(0, K, D)
    with pytest.raises(ValueError, match="at least one row, got a batch without a target"):
        summed_over_rows(
            lambda *_: vectors(), none, positives=none[:, 0], items=vectors(M, D).float(), rows_at_once=3
        )
