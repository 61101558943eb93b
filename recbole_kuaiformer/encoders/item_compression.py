"""Adaptive item compression: old history becomes a few group tokens (Eq. 7 of KuaiFormer)."""

from __future__ import annotations

from itertools import groupby

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from recbole_kuaiformer.layers.llama_block import LlamaBlock
from recbole_kuaiformer.layers.rope import rotation_table
from recbole_kuaiformer.layers.visibility import attention_bias, group_visibility


def fit_layout(
    groups: tuple[int, ...], *, recent_length: int, max_length: int
) -> tuple[tuple[int, ...], int]:
    """The layout cut down to max_length items: groups and recent length that sum to at most it.

    The oldest groups fall away; the group that the cut goes through keeps its newest items.

    >>> fit_layout((64, 64, 16), recent_length=48, max_length=80)
    ((16, 16), 48)
    >>> fit_layout((64, 16), recent_length=48, max_length=20)
    ((), 20)
    """
    recent_length = min(recent_length, max_length)
    room = max_length - recent_length
    kept: list[int] = []
    for size in reversed(groups):
        if room == 0:
            break
        kept.insert(0, min(size, room))
        room -= kept[0]
    return tuple(kept), recent_length


class ItemCompression(nn.Module):
    """Mean(BiTransformer(t_a .. t_b)) over each group: one bidirectional layer, then the mean (Eq. 7).

    One layer serves groups of every size; positions inside a group are rotary.

    Args:
        hidden_size: D, width of the tokens.
        n_heads: attention heads of the group layer.
        inner_size: width of the group layer's feed-forward part; 0 leaves it out. Without it the layer
            costs 4 D² a item, which is what fits the paper's "+10 %" for 256 items.
        hidden_dropout_prob: dropout on what the layer adds to the residual stream.
        attn_dropout_prob: dropout on attention weights.
    """

    def __init__(
        self,
        hidden_size: int,
        *,
        n_heads: int,
        inner_size: int,
        hidden_dropout_prob: float,
        attn_dropout_prob: float,
    ) -> None:
        super().__init__()
        self.head_size = hidden_size // n_heads
        self.layer = LlamaBlock(
            hidden_size,
            n_heads=n_heads,
            inner_size=inner_size,
            hidden_dropout_prob=hidden_dropout_prob,
            attn_dropout_prob=attn_dropout_prob,
        )

    def forward(
        self, tokens: Float[Tensor, "B old D"], *, valid: Bool[Tensor, "B old"], sizes: tuple[int, ...]
    ) -> tuple[Float[Tensor, "B G D"], Bool[Tensor, "B G"]]:
        """One token for each group, and whether the group holds a real item at all.

        Args:
            tokens: the old items, oldest first; ``sum(sizes)`` of them.
            valid: True where the item is real.
            sizes: group sizes, oldest first; neighbours of one size go through the layer together.
        """
        group_tokens, group_valid, start = [], [], 0
        for size, run in groupby(sizes):
            end = start + size * len(list(run))
            pooled, filled = self._pool(tokens[:, start:end], valid=valid[:, start:end], size=size)
            group_tokens.append(pooled)
            group_valid.append(filled)
            start = end
        return torch.cat(group_tokens, dim=1), torch.cat(group_valid, dim=1)

    def _pool(
        self, tokens: Float[Tensor, "B run D"], *, valid: Bool[Tensor, "B run"], size: int
    ) -> tuple[Float[Tensor, "B n D"], Bool[Tensor, "B n"]]:
        n_rows = tokens.shape[0]
        groups = tokens.unflatten(1, (-1, size)).flatten(0, 1)
        real = valid.unflatten(1, (-1, size)).flatten(0, 1)
        positions = torch.arange(size, device=tokens.device)[None]
        mixed = self.layer(
            groups,
            bias=attention_bias(group_visibility(real)),
            rotation=rotation_table(positions, head_size=self.head_size),
        )
        weights = real.to(mixed.dtype) / real.sum(1, keepdim=True).clamp(min=1)
        pooled = (weights[:, None, :] @ mixed).squeeze(1)
        return pooled.unflatten(0, (n_rows, -1)), real.any(1).unflatten(0, (n_rows, -1))
