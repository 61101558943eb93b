"""The softmax against double loops, at its extremes, and its gradient against the full softmax."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_kuaiformer.losses.sampled_softmax import LOGQ, SMOOTHING_FORMS, sampled_softmax
from tests.reference.losses import row_loss

P, M, N = 3, 7, 13


def example(seed, *, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    positive = torch.randn(P, generator=generator, dtype=torch.float64) * scale
    scores = torch.randn(P, M, generator=generator, dtype=torch.float64) * scale
    negative = torch.rand(P, M, generator=generator) > 0.3
    q = torch.rand(N, generator=generator, dtype=torch.float64).softmax(0)
    ids = torch.randint(N, (M + P,), generator=generator)
    return positive, scores, negative, q.log()[ids[:M]], q.log()[ids[M:]]


def loss_of(positive, scores, negative, log_q, positive_log_q, **options):
    settings_ = {
        "unique": False,
        "logq": "none",
        "label_smoothing": 0.0,
        "smoothing_form": "paper",
        **options,
    }
    return sampled_softmax(
        positive, scores, negative=negative, log_q=log_q, positive_log_q=positive_log_q, **settings_
    )


@pytest.mark.parametrize("logq", LOGQ)
@pytest.mark.parametrize("form", SMOOTHING_FORMS)
@pytest.mark.parametrize("unique", [False, True])
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    alpha=st.sampled_from([0.0, 0.1, 0.7]),
    scale=st.sampled_from([0.1, 3.0, 30.0]),
)
def test_equals_the_double_loop(logq, form, unique, seed, alpha, scale):
    positive, scores, negative, log_q, positive_log_q = example(seed, scale=scale)
    got = loss_of(
        positive, scores, negative, log_q, positive_log_q,
        unique=unique, logq=logq, label_smoothing=alpha, smoothing_form=form,
    )  # fmt: skip
    rows = [
        row_loss(
            float(positive[i]), scores[i].tolist(), negative[i].tolist(), log_q.tolist(),
            float(positive_log_q[i]),
            unique=unique, logq=logq, alpha=alpha, form=form,
        )
        for i in range(P)
    ]  # fmt: skip
    assert math.isclose(float(got), sum(rows) / P, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("form", SMOOTHING_FORMS)
@pytest.mark.parametrize("logq", LOGQ)
def test_gradient_is_the_derivative(form, logq):
    positive, scores, negative, log_q, positive_log_q = example(4)
    assert torch.autograd.gradcheck(
        lambda a, b: loss_of(
            a, b, negative, log_q, positive_log_q, logq=logq, label_smoothing=0.2, smoothing_form=form
        ),
        (positive.requires_grad_(), scores.requires_grad_()),
    )


@pytest.mark.parametrize("form", SMOOTHING_FORMS)
@pytest.mark.parametrize("dominant", ["negative", "positive"])
def test_a_column_of_nearly_all_the_mass_keeps_loss_and_gradient_right(form, dominant):
    """p = 1 − e^−100: log(1 − p) of the naive form is −inf, and its gradient NaN."""
    scores = torch.zeros(1, 3, requires_grad=True)
    positive = torch.zeros(1, requires_grad=True)
    shift = torch.zeros(1, 3)
    shift[0, 1] = 100.0 if dominant == "negative" else 0.0
    lift = 100.0 if dominant == "positive" else 0.0
    loss = loss_of(
        positive + lift, scores + shift, torch.ones(1, 3, dtype=torch.bool), None, None,
        label_smoothing=0.3, smoothing_form=form,
    )  # fmt: skip
    loss.backward()
    want = row_loss(
        lift, shift[0].tolist(), [True] * 3, [0.0] * 3, 0.0, unique=False, logq="none", alpha=0.3, form=form
    )
    assert math.isclose(float(loss), want, rel_tol=1e-5, abs_tol=1e-6)
    assert torch.isfinite(scores.grad).all()
    assert torch.isfinite(positive.grad).all()
    if dominant == "negative":
        assert scores.grad[0, 1] > 0.3  # it is pushed down, and hard


def test_masked_columns_get_no_gradient_and_a_row_without_negatives_costs_nothing():
    scores = torch.randn(2, M, requires_grad=True)
    positive = torch.randn(2, requires_grad=True)
    negative = torch.tensor([[False] * M, [True, False] + [True] * (M - 2)])
    for form in SMOOTHING_FORMS:
        scores.grad = positive.grad = None
        loss = loss_of(positive, scores, negative, None, None, label_smoothing=0.1, smoothing_form=form)
        loss.backward()
        assert (scores.grad[~negative] == 0).all()
        assert (scores.grad[negative] != 0).all()
        assert positive.grad[0] == 0
        alone = loss_of(
            positive[1:], scores[1:], negative[1:], None, None, label_smoothing=0.1, smoothing_form=form
        )
        torch.testing.assert_close(loss, alone / 2)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(-50, 50), logq=st.sampled_from(LOGQ))
def test_shifting_a_row_or_permuting_columns_changes_nothing(seed, shift, logq):
    positive, scores, negative, log_q, positive_log_q = example(seed)
    options = {"logq": logq, "label_smoothing": 0.1}
    want = loss_of(positive, scores, negative, log_q, positive_log_q, **options)
    torch.testing.assert_close(
        loss_of(positive + shift, scores + shift, negative, log_q, positive_log_q, **options), want
    )
    order = torch.randperm(M, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        loss_of(positive, scores[:, order], negative[:, order], log_q[order], positive_log_q, **options), want
    )


def test_bfloat16_scores_are_summed_in_float32():
    positive, scores, negative, _, _ = example(1)
    low = loss_of(positive.bfloat16(), scores.bfloat16(), negative, None, None)
    assert low.dtype == torch.float32
    exact = loss_of(positive.bfloat16().double(), scores.bfloat16().double(), negative, None, None)
    assert abs(float(low) - float(exact)) < 1e-5


def test_unknown_names_and_empty_batches_are_refused():
    positive, scores, negative, _, _ = example(1)
    with pytest.raises(ValueError, match="logq 'bth' is not known; known: none, both, negatives"):
        loss_of(positive, scores, negative, None, None, logq="bth")
    with pytest.raises(ValueError, match="smoothing_form 'papr' is not known"):
        loss_of(positive, scores, negative, None, None, smoothing_form="papr")
    with pytest.raises(ValueError, match="at least one row"):
        loss_of(positive[:0], scores[:0], negative[:0], None, None)


def test_only_the_corrected_correction_has_the_gradient_of_the_full_softmax():
    """arXiv 2507.09331 by Monte Carlo: 200 items, q Zipf, 128 in-batch draws, p(positive) = ½.

    The positive is the second most popular item. Mean gradient over the draws, as a vector over items,
    against that of the full softmax: relative error about .4 to .5 (none), .8 (both), .01 to .02 (negatives).
    """
    n_items, n_draws, n_repeats, positive = 200, 128, 1500, 1
    generator = torch.Generator().manual_seed(0)
    q = 1 / torch.arange(1, n_items + 1, dtype=torch.float64)
    q = q / q.sum()
    logits = torch.randn(n_items, generator=generator, dtype=torch.float64)
    logits[positive] = -torch.inf
    logits[positive] = logits.logsumexp(0)
    full = logits.softmax(0)
    full[positive] -= 1
    draws = torch.multinomial(q, n_draws * n_repeats, replacement=True, generator=generator)
    errors = {}
    for logq in LOGQ:
        leaf = logits.clone().requires_grad_()
        losses = [
            loss_of(
                leaf[[positive]], leaf[ids][None], (ids != positive)[None], q.log()[ids], q.log()[[positive]],
                logq=logq,
            )
            for ids in draws.view(n_repeats, n_draws)
        ]  # fmt: skip
        torch.stack(losses).mean().backward()
        errors[logq] = float((leaf.grad - full).norm() / full.norm())
    assert errors["negatives"] < 0.03, errors
    assert 0.3 < errors["none"] < 0.65, errors
    assert 0.7 < errors["both"] < 0.95, errors
