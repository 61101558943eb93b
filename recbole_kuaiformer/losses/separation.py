"""A term that keeps a user's interests apart."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def mean_squared_cosine(interests: Float[Tensor, "N K D"]) -> Float[Tensor, ""]:
    """Mean, over rows and pairs of different interests, of the squared cosine between them; 0 for K = 1.

    0 where all are at right angles, 1 where they point one way (or opposite ways). At exactly equal interests
    the gradient is zero: copies are not torn apart.

    >>> mean_squared_cosine(torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [3.0, 3.0]]])).item()
    0.5
    """
    n_interests = interests.shape[1]
    if n_interests == 1:
        return interests.sum() * 0
    unit = torch.nn.functional.normalize(interests, dim=-1)
    squared = (unit @ unit.transpose(1, 2)).square()
    diagonal = squared.diagonal(dim1=1, dim2=2).sum()
    return (squared.sum() - diagonal) / (len(interests) * n_interests * (n_interests - 1))
