"""Continuous attribute → bucket (Eq. 4 of KuaiFormer)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Scale = Literal["uniform", "log"]


def bucketize(
    values: Float[Tensor, "*batch"], *, n_buckets: int, maximum: float, scale: Scale
) -> Int64[Tensor, "*batch"]:
    """Bucket of each value: 1 .. n_buckets, and 0 for a missing one (NaN).

    ``uniform`` is Eq. 4, int(min(f, f_max) / f_max · n), clamped to the last row; ``log`` does the same
    to log(1 + f), for heavy tails such as watch times and time gaps. Values below 0 count as 0.

    Raises:
        ValueError: the scale is neither ``uniform`` nor ``log``.

    >>> bucketize(torch.tensor([0.0, 0.3, 299.9, 400.0, float("nan")]), n_buckets=1000, maximum=300.0,
    ...           scale="uniform")
    tensor([   1,    2, 1000, 1000,    0])
    """
    missing = torch.isnan(values)
    clipped = values.nan_to_num(0.0).clamp(min=0.0, max=maximum)
    if scale == "uniform":
        share = clipped / maximum
    elif scale == "log":
        share = torch.log1p(clipped) / math.log1p(maximum)
    else:
        raise ValueError(f"scale {scale!r} is not known; known are 'uniform' and 'log'")
    buckets = (share * n_buckets).long().clamp(max=n_buckets - 1) + 1
    return buckets.masked_fill(missing, 0)
