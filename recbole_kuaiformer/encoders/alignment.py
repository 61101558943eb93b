"""Histories moved within their columns: to the left edge, or turned round."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def left_columns(valid: Bool[Tensor, "B L"]) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """For each column of the left-aligned history the column it comes from, and whether it holds an item.

    >>> columns, there = left_columns(torch.tensor([[False, True, True]]))
    >>> columns.tolist(), there.tolist()
    ([[1, 2, 0]], [[True, True, False]])
    """
    n_columns, lengths = valid.shape[1], valid.sum(1, keepdim=True)
    columns = torch.arange(n_columns, device=valid.device)
    return (columns + n_columns - lengths) % n_columns, columns < lengths


def left_aligned(
    tokens: Float[Tensor, "B L D"], *, valid: Bool[Tensor, "B L"], n_unseen: Int[Tensor, "B P"]
) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B P L"]]:
    """Tokens with the oldest item in column 0 (padding is zero), and what each target sees of them."""
    source, there = left_columns(valid)
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    moved = torch.where(there[..., None], tokens[rows, source], 0)
    columns = torch.arange(tokens.shape[1], device=tokens.device)
    return moved, columns < (valid.sum(1, keepdim=True) - n_unseen)[..., None]


def ending_at_last_seen(
    tokens: Float[Tensor, "B L D"], *, valid: Bool[Tensor, "B L"], n_unseen: Int[Tensor, "B 1"]
) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
    """A right-aligned history without its newest items, so that the last one seen is in the last column.

    Where a history has one target, the last block of an encoder is needed in that column alone.

    Returns:
        The tokens (padding is zero), and True where there is one.
    """
    columns = torch.arange(tokens.shape[1], device=tokens.device) - n_unseen
    source = columns.clamp(min=0)
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    there = valid[rows, source] & (columns >= 0)
    return torch.where(there[..., None], tokens[rows, source], 0), there


def turned_round(tokens: Float[Tensor, "B L D"], *, valid: Bool[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
    """A right-aligned history with its items in the opposite order, in the same columns.

    >>> tokens = torch.tensor([[0.0, 1.0, 2.0, 3.0], [5.0, 6.0, 7.0, 8.0]])[..., None]
    >>> turned_round(tokens, valid=tokens[..., 0] > 0)[..., 0].tolist()
    [[0.0, 3.0, 2.0, 1.0], [8.0, 7.0, 6.0, 5.0]]
    """
    columns = torch.arange(valid.shape[1], device=valid.device)
    source = torch.where(valid, 2 * valid.shape[1] - 1 - valid.sum(1, keepdim=True) - columns, columns)
    return tokens[torch.arange(len(tokens), device=tokens.device)[:, None], source]
