"""One vector per user from a causal transformer: every position predicts what comes after it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from recbole_kuaiformer.encoders.alignment import ending_at_last_seen, left_aligned
from recbole_kuaiformer.layers.dropout import Dropout
from recbole_kuaiformer.layers.feed_forward import default_inner_size
from recbole_kuaiformer.layers.llama_block import LlamaBlock
from recbole_kuaiformer.layers.rms_norm import RMSNorm
from recbole_kuaiformer.layers.rope import rotation_table
from recbole_kuaiformer.layers.visibility import attention_bias, causal_visibility


class CausalEncoder(nn.Module):
    """The blocks of KuaiFormer without compression and query tokens: u = output at the last item seen.

    One causal pass serves all targets of a window at no further cost (SASRec's training, Kang & McAuley
    2018). With one target the last block is computed at its last item alone, but in training,
    where dropout would draw otherwise than it did for published results.

    Args:
        hidden_size: D.
        n_layers: Llama blocks.
        n_heads: H.
        inner_size: width of the feed-forward part; None for 8/3 D.
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
        hidden_dropout_prob: float,
        attn_dropout_prob: float,
    ) -> None:
        super().__init__()
        self.head_size = hidden_size // n_heads
        self.dropout = Dropout(hidden_dropout_prob)
        self.blocks = nn.ModuleList(
            LlamaBlock(
                hidden_size,
                n_heads=n_heads,
                inner_size=inner_size or default_inner_size(hidden_size),
                hidden_dropout_prob=hidden_dropout_prob,
                attn_dropout_prob=attn_dropout_prob,
            )
            for _ in range(n_layers)
        )
        self.norm = RMSNorm(hidden_size)

    def forward(
        self, tokens: Float[Tensor, "B L D"], *, valid: Bool[Tensor, "B L"], n_unseen: Int[Tensor, "B P"]
    ) -> Float[Tensor, "B P 1 D"]:
        """One vector for each target; zero for a target that sees nothing."""
        if n_unseen.shape[1] == 1 and not self.training:
            return self._of_one_target(tokens, valid=valid, n_unseen=n_unseen)
        sequence, seen = left_aligned(self.dropout(tokens), valid=valid, n_unseen=n_unseen)
        places = torch.arange(sequence.shape[1], device=tokens.device)
        bias = attention_bias(causal_visibility(places < valid.sum(1, keepdim=True)))
        rotation = rotation_table(places[None], head_size=self.head_size)
        for block in self.blocks:
            sequence = block(sequence, bias=bias, rotation=rotation)
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        lasts = seen.sum(-1)
        outputs = self.norm(sequence)[rows, (lasts - 1).clamp(min=0)]
        return (outputs * (lasts > 0)[..., None])[:, :, None]  # type: ignore[no-any-return]

    def _of_one_target(self, tokens: Tensor, *, valid: Tensor, n_unseen: Tensor) -> Float[Tensor, "B 1 1 D"]:
        sequence, there = ending_at_last_seen(tokens, valid=valid, n_unseen=n_unseen)
        bias = attention_bias(causal_visibility(there))
        places = torch.arange(1 - sequence.shape[1], 1, device=tokens.device)  # alike however wide the batch
        rotation = rotation_table(places[None], head_size=self.head_size)
        for number, block in enumerate(self.blocks, start=1):
            is_last = number == len(self.blocks)
            sequence = block(sequence, bias=bias[:, :, -1:] if is_last else bias, rotation=rotation)
        return (self.norm(sequence) * there[:, -1:, None])[:, None]  # type: ignore[no-any-return]
