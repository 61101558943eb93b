"""SwiGLU feed-forward (Shazeer 2020, arXiv 2002.05202), as in the Llama block."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu


def default_inner_size(hidden_size: int) -> int:
    """8/3 of the width, rounded up to a multiple of 8: three matrices then cost what two of 4 D would.

    >>> default_inner_size(64)
    176
    """
    return -(-8 * hidden_size // 24) * 8


class FeedForward(nn.Module):
    """SwiGLU: down(SiLU(gate(x)) ⊙ up(x)), no biases (the feed-forward part of Eq. 6)."""

    def __init__(self, hidden_size: int, *, inner_size: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(hidden_size, 2 * inner_size, bias=False)
        self.down = nn.Linear(inner_size, hidden_size, bias=False)

    def forward(self, tokens: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """The tokens, each passed through the same two-layer gate."""
        gate_up = self.gate_up(tokens)
        if torch.compiler.is_compiling():  # a compiler fuses the passes by itself
            gate, up = gate_up.chunk(2, dim=-1)
            return self.down(silu(gate) * up)  # type: ignore[no-any-return]
        return self.down(_Gated.apply(gate_up))  # type: ignore[no-any-return, no-untyped-call]


class _Gated(torch.autograd.Function):
    """SiLU(gate) ⊙ up of [gate | up]; the gradients of both are written where they lie, not put together."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        of_both = torch.empty_like(gate_up)
        of_gate, of_up = of_both.chunk(2, dim=-1)
        torch.mul(silu(gate), grad, out=of_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=of_gate)
        return of_both
