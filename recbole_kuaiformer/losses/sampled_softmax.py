"""The one softmax: positive against candidates, corrected by log q, smoothed (Eq. 10–12 of KuaiFormer).

Sources: KuaiFormer (arXiv 2411.10057v1); Yi et al., RecSys 2019; "Correcting the LogQ Correction"
(arXiv 2507.09331).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LOGQ = ("none", "both", "negatives")
SMOOTHING_FORMS = ("paper", "uniform")


def sampled_softmax(  # noqa: PLR0913 (one softmax, and all that it may be told)
    positive_scores: Float[Tensor, " P"],
    candidate_scores: Float[Tensor, "P M"],
    *,
    negative: Bool[Tensor, "P M"],
    log_q: Float[Tensor, " M"] | None,
    positive_log_q: Float[Tensor, " P"] | None,
    unique: bool,
    logq: str,
    label_smoothing: float,
    smoothing_form: str,
) -> Float[Tensor, ""]:
    """Mean over rows of the smoothed negative log likelihood of each row's positive.

    A row's softmax runs over its own positive and its valid negatives; other columns take no part in it
    and get no gradient. A row without a negative costs nothing.

    Args:
        positive_scores: score of each row's positive, already over the temperature.
        candidate_scores: scores of the columns, likewise.
        negative: True where the column is a negative of the row.
        log_q: log probability of each column's item; None corrects nothing.
        positive_log_q: the same of each row's positive.
        unique: the probabilities are of being among the columns at all, not of one draw.
        logq: ``none``; ``both``, s − log q everywhere (Eq. 11); ``negatives``, positive as it is and
            negatives s − log(expected count), which is n q / (1 − q_positive) for n valid negatives drawn
            with repeats, and the inclusion probability without.
        label_smoothing: α in [0, 1).
        smoothing_form: ``paper``, −(1−α) log p⁺ − (α/M) Σ_neg log(1 − p) with M all columns (the |B| of
            Eq. 12); ``uniform``, −(1−α) log p⁺ − (α/M') Σ log p over the row's M' valid columns.

    Raises:
        ValueError: there is no row, or logq or smoothing_form is not known.
    """
    _one_of(logq, LOGQ, what="logq")
    _one_of(smoothing_form, SMOOTHING_FORMS, what="smoothing_form")
    if len(positive_scores) == 0:
        raise ValueError("a softmax needs at least one row, got a batch without a target")
    logits = torch.cat(
        [_at_least_float32(positive_scores)[:, None], _at_least_float32(candidate_scores)], dim=1
    )
    offsets = torch.zeros_like(logits)
    if log_q is not None and positive_log_q is not None:
        if logq == "both":
            offsets[:, 0] -= positive_log_q
            offsets[:, 1:] -= log_q
        elif logq == "negatives":
            offsets[:, 1:] -= _log_expected_count(
                log_q, positive_log_q=positive_log_q, negative=negative, unique=unique
            )
    rows, columns = negative.logical_not().nonzero(as_tuple=True)  # few: a mask would be a whole pass
    offsets[rows, columns + 1] = -torch.inf
    logits += offsets  # once, and nothing of it on the way back
    log_p = logits.log_softmax(dim=1)
    if not label_smoothing:
        return -log_p[:, 0].mean()
    smoothing = _paper_smoothing if smoothing_form == "paper" else _uniform_smoothing
    loss = label_smoothing * smoothing(logits, log_p=log_p) - (1 - label_smoothing) * log_p[:, 0]
    return loss.mean()


def _log_expected_count(
    log_q: Float[Tensor, " M"],
    *,
    positive_log_q: Float[Tensor, " P"],
    negative: Bool[Tensor, "P M"],
    unique: bool,
) -> Float[Tensor, "#P M"]:
    """Log of how often each column's item is expected among the row's negatives."""
    if unique:
        return log_q[None]
    n_negatives = negative.sum(1).clamp(min=1).to(log_q.dtype)
    # A positive that is nearly all of the distribution leaves 1 − q no digits: eps is what is left.
    rest = (-torch.expm1(positive_log_q)).clamp(min=torch.finfo(log_q.dtype).eps)
    return log_q + (n_negatives.log() - rest.log())[:, None]


def _paper_smoothing(logits: Float[Tensor, "P M1"], *, log_p: Float[Tensor, "P M1"]) -> Float[Tensor, " P"]:
    """−(1/M) Σ_neg log(1 − p) without ever forming 1 − p.

    At most one column of a row has p > ½; there log(1 − p) is the log-sum-exp of the others less that of
    all. Everywhere else log1p(−p) has all its digits.
    """
    n_columns = logits.shape[1] - 1
    top = logits.argmax(dim=1, keepdim=True)
    others = logits.scatter(1, top, -torch.inf)
    alone = torch.isneginf(others).all(1, keepdim=True)  # a row without a negative: p = 1, nothing to push
    others = torch.where(alone, torch.zeros_like(others), others)
    log_rest = others.logsumexp(1, keepdim=True) - logits.logsumexp(1, keepdim=True)
    p_other = log_p.scatter(1, top, -torch.inf).exp()
    log_1mp = torch.log1p(-p_other.clamp(max=0.5 + 1e-6)).scatter(1, top, log_rest)
    is_negative = torch.isfinite(logits).index_fill(1, logits.new_zeros(1, dtype=torch.long), False)
    return -torch.where(is_negative, log_1mp, 0.0).sum(1) / n_columns


def _uniform_smoothing(logits: Float[Tensor, "P M1"], *, log_p: Float[Tensor, "P M1"]) -> Float[Tensor, " P"]:
    """−(1/M') Σ log p over the row's valid columns, its positive among them."""
    valid = torch.isfinite(logits)
    return -torch.where(valid, log_p, 0.0).sum(1) / valid.sum(1)


def _at_least_float32(scores: Tensor) -> Tensor:
    return scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores


def _one_of(name: str, known: tuple[str, ...], *, what: str) -> None:
    if name not in known:
        raise ValueError(f"{what} {name!r} is not known; known: {', '.join(known)}")
