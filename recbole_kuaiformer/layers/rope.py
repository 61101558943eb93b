"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), as in the Llama block."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


def rotation_table(
    positions: Int[Tensor, "B T"], *, head_size: int, base: float = 10_000.0
) -> tuple[Float[Tensor, "B 1 T half"], Float[Tensor, "B 1 T half"]]:
    """Cosine and sine of every position's angle in each of head_size / 2 planes.

    Only differences of positions matter to attention, so any offset common to a row is free.

    Args:
        positions: position of each token; negative ones are legal.
        head_size: width of one head, even.
        base: the slowest plane turns once in about 2π · base positions.

    Raises:
        ValueError: head_size is odd.
    """
    if head_size % 2:
        raise ValueError(f"rotary positions need an even width per head, got {head_size}")
    planes = torch.arange(0, head_size, 2, device=positions.device, dtype=torch.float32)
    angles = positions[:, None, :, None].float() * base ** (-planes / head_size)
    return angles.cos(), angles.sin()


def rotate(
    heads: Float[Tensor, "B H T E"],
    *,
    cos: Float[Tensor, "#B 1 T half"],
    sin: Float[Tensor, "#B 1 T half"],
) -> Float[Tensor, "B H T E"]:
    """The vectors turned by their positions: dimension i is paired with i + E/2."""
    cos, sin = cos.to(heads.dtype), sin.to(heads.dtype)
    if torch.compiler.is_compiling():  # a compiler fuses the passes by itself
        first, second = heads.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return _Rotation.apply(heads, cos, sin)  # type: ignore[no-any-return, no-untyped-call]


class _Rotation(torch.autograd.Function):
    """Its gradient is turned back; written out, that is a third of the passes over memory."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(heads, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, -sin), None, None


def _turned(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    turned = torch.empty_like(heads, memory_format=torch.contiguous_format)  # a third of the time of strided
    (first, second), (into_first, into_second) = heads.chunk(2, dim=-1), turned.chunk(2, dim=-1)
    torch.mul(first, cos, out=into_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=into_second).addcmul_(first, sin)
    return turned
