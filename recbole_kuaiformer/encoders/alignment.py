"""Histories from the right edge to the left one, for encoders that count positions from the oldest item."""

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
