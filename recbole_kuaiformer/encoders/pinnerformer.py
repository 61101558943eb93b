"""PinnerFormer: one vector per user from a causal transformer with learned positions (arXiv 2205.04507)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from recbole_kuaiformer.encoders.alignment import ending_at_last_seen, left_aligned
from recbole_kuaiformer.layers.dropout import Dropout
from recbole_kuaiformer.layers.pre_norm_block import PreNormBlock
from recbole_kuaiformer.layers.visibility import attention_bias, causal_visibility


class PinnerFormerEncoder(nn.Module):
    """Blocks over token + position, and W2 GELU(W1 h + b1) + b2 of the output at the last item seen.

    One causal pass serves all targets of a window; with one target the last block is computed at its last
    item alone, but in training, where dropout would draw otherwise than before. Positions count from
    the oldest item of the window.

    Args:
        hidden_size: D.
        n_layers: blocks. n_heads: H.
        inner_size: width of the feed-forward part; None for the paper's 4 D.
        max_length: L, positions there are.
        hidden_dropout_prob: dropout on the residual stream.
        attn_dropout_prob: dropout on attention weights.
    """

    def __init__(
        self,
        hidden_size: int,
        *,
        n_layers: int,
        n_heads: int,
        inner_size: int | None,
        max_length: int,
        hidden_dropout_prob: float,
        attn_dropout_prob: float,
    ) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(max_length, hidden_size) * hidden_size**-0.5)
        self.dropout = Dropout(hidden_dropout_prob)
        self.blocks = nn.ModuleList(
            PreNormBlock(
                hidden_size,
                n_heads=n_heads,
                inner_size=inner_size or 4 * hidden_size,
                hidden_dropout_prob=hidden_dropout_prob,
                attn_dropout_prob=attn_dropout_prob,
            )
            for _ in range(n_layers)
        )
        self.output = nn.Sequential(
            nn.Linear(hidden_size, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size)
        )

    def forward(
        self, tokens: Float[Tensor, "B L D"], *, valid: Bool[Tensor, "B L"], n_unseen: Int[Tensor, "B P"]
    ) -> Float[Tensor, "B P 1 D"]:
        """One vector for each target, not yet of length 1; zero for a target that sees nothing."""
        if n_unseen.shape[1] == 1 and not self.training:
            return self._of_one_target(tokens, valid=valid, n_unseen=n_unseen)
        sequence, seen = left_aligned(tokens, valid=valid, n_unseen=n_unseen)
        sequence = self.dropout(sequence + self.positions[: tokens.shape[1]])
        places = torch.arange(tokens.shape[1], device=tokens.device)
        bias = attention_bias(causal_visibility(places < valid.sum(1, keepdim=True)))
        for block in self.blocks:
            sequence = block(sequence, bias=bias)
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        lasts = seen.sum(-1)
        outputs = self.output(sequence[rows, (lasts - 1).clamp(min=0)])
        return (outputs * (lasts > 0)[..., None])[:, :, None]  # type: ignore[no-any-return]

    def _of_one_target(self, tokens: Tensor, *, valid: Tensor, n_unseen: Tensor) -> Float[Tensor, "B 1 1 D"]:
        sequence, there = ending_at_last_seen(tokens, valid=valid, n_unseen=n_unseen)
        sequence = sequence + self.positions[(there.cumsum(1) - 1).clamp(min=0)]
        bias = attention_bias(causal_visibility(there))
        for number, block in enumerate(self.blocks, start=1):
            sequence = block(sequence, bias=bias[:, :, -1:] if number == len(self.blocks) else bias)
        return (self.output(sequence) * there[:, -1:, None])[:, None]  # type: ignore[no-any-return]
