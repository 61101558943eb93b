"""Score of the best of K interests, and a loss whose score matrix is never there as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

LossOfRows = Callable[[Tensor, Tensor, Tensor, slice], Tensor]


def best_of_interests(interests: Float[Tensor, "P K D"], items: Float[Tensor, "M D"]) -> Float[Tensor, "P M"]:
    """max_r(u_r · x_j) of every row and item; the gradient is the winner's, the first of equals'.

    Vectors that are equal may have products that are not: where a row lies decides how a processor rounds.
    """
    if interests.shape[1] == 1:
        return interests[:, 0] @ items.T
    return _BestOfInterests.apply(interests, items)  # type: ignore[no-any-return, no-untyped-call]


class _BestOfInterests(torch.autograd.Function):
    """Scores lie as [K, P, M], so that maxima and winners are whole passes over memory, without an index."""

    @staticmethod
    def forward(ctx: Any, interests: Tensor, items: Tensor) -> Tensor:
        of_interest = interests.transpose(0, 1).flatten(0, 1)
        scores = (of_interest @ items.T).unflatten(0, (interests.shape[1], -1))
        best = scores.amax(0)
        ctx.save_for_backward(of_interest, items, scores, best)
        return best  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        of_interest, items, scores, best = ctx.saved_tensors
        shares, left = torch.empty_like(scores), grad.clone()
        for share, score in zip(shares, scores, strict=True):
            torch.eq(score, best, out=share).mul_(left)  # as 1.0 and 0.0: a product with booleans is slow
            left -= share
        shares = shares.flatten(0, 1)
        of_rows = (shares @ items).unflatten(0, (len(scores), -1)).transpose(0, 1)
        return of_rows, shares.T @ of_interest


def summed_over_rows(
    loss: LossOfRows,
    interests: Float[Tensor, "P K D"],
    *,
    positives: Float[Tensor, "P D"],
    items: Float[Tensor, "M D"],
    rows_at_once: int,
) -> Float[Tensor, ""]:
    """Sum of a loss over rows, some at a time, and each part differentiated as soon as it is known.

    The scores of a few rows fit a processor's cache where all of them do not fit memory; the sum and the
    gradients are those of one pass over all rows.

    Args:
        loss: summed loss of some rows: called with their interests, their positives, all items, and the
            slice of rows.
        interests: u of each row.
        positives: vector of each row's target.
        items: vectors of the candidates.
        rows_at_once: rows of one call, at least 1.

    Raises:
        ValueError: there is no row, or rows_at_once is below 1.
    """
    if len(interests) == 0:
        raise ValueError("a softmax needs at least one row, got a batch without a target")
    if rows_at_once < 1:
        raise ValueError(f"rows_at_once must be at least 1, got {rows_at_once}")
    learns = torch.is_grad_enabled() and any(part.requires_grad for part in (interests, positives, items))
    return _SummedOverRows.apply(  # type: ignore[no-any-return, no-untyped-call]
        loss, interests, positives, items, rows_at_once, learns
    )


class _SummedOverRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        loss: LossOfRows,
        interests: Tensor,
        positives: Tensor,
        items: Tensor,
        rows_at_once: int,
        learns: bool,
    ) -> Tensor:
        total = interests.new_zeros((), dtype=torch.float32)
        of_interests, of_positives = torch.empty_like(interests), torch.empty_like(positives)
        of_items = torch.zeros_like(items)
        candidates = items.detach().requires_grad_(learns)
        for start in range(0, len(interests), rows_at_once):
            rows = slice(start, start + rows_at_once)
            u, x = (part[rows].detach().requires_grad_(learns) for part in (interests, positives))
            with torch.set_grad_enabled(learns):
                part = loss(u, x, candidates, rows)
            total += part.detach()
            if learns:
                of_interests[rows], of_positives[rows], of_these = torch.autograd.grad(
                    part, (u, x, candidates)
                )
                of_items += of_these
        ctx.save_for_backward(of_interests, of_positives, of_items)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        of_interests, of_positives, of_items = ctx.saved_tensors
        return None, grad * of_interests, grad * of_positives, grad * of_items, None, None
