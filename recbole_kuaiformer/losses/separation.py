"""A term that keeps a user's interests apart."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def mean_squared_cosine(interests: Float[Tensor, "N K D"]) -> Float[Tensor, ""]:
    """Mean of the squared cosine over rows and pairs of interests; 0 for K = 1.

    0 where all are at right angles, 1 where they point one way (or opposite ways). Copies of an interest,
    which stand in for those that a user does not have (MIND), are no pairs.

    >>> mean_squared_cosine(torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [3.0, 3.0]]])).item()
    0.5
    >>> mean_squared_cosine(torch.tensor([[[2.0, 1.0], [2.0, 1.0]]])).item()
    0.0
    """
    unit = torch.nn.functional.normalize(interests, dim=-1)
    squared = (unit @ unit.transpose(1, 2)).square()
    is_pair = (interests[:, :, None] != interests[:, None]).any(-1)
    return (squared * is_pair).sum() / is_pair.sum().clamp(min=1)
