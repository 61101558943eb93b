"""Histories from the right edge to the left one, for encoders that count positions from the oldest item."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def left_aligned(
    tokens: Float[Tensor, "B L D"], *, valid: Bool[Tensor, "B L"], n_unseen: Int[Tensor, "B P"]
) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B P L"]]:
    """Tokens with the oldest item in column 0 (padding is zero), and what each target sees of them."""
    n_columns, lengths = tokens.shape[1], valid.sum(1, keepdim=True)
    columns = torch.arange(n_columns, device=tokens.device)
    source = (columns + n_columns - lengths) % n_columns
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    there = columns < lengths
    moved = torch.where(there[..., None], tokens[rows, source], 0)
    return moved, columns < (lengths - n_unseen)[..., None]
