"""SwiGLU feed-forward (Shazeer 2020, arXiv 2002.05202), as in the Llama block."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
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
        gate, up = self.gate_up(tokens).chunk(2, dim=-1)
        return self.down(silu(gate) * up)  # type: ignore[no-any-return]
