"""Adaptive item compression: old history becomes a few group tokens (Eq. 7 of KuaiFormer)."""

from __future__ import annotations

from itertools import groupby

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn.functional import pad

from recbole_kuaiformer.layers.llama_block import LlamaBlock
from recbole_kuaiformer.layers.rope import rotation_table
from recbole_kuaiformer.layers.visibility import attention_bias, group_visibility

SMALLEST_GROUP = 16  # the paper's size for history just beyond the recent items
GROUPS_OF_A_SIZE = 2  # then sizes double: a group stays small beside what is newer than it
# Items in the group layer at a time where no gradient is needed. On a CPU what they make stays in its cache,
# twice as fast as 2**17 at D = 64; elsewhere it bounds memory, at D = 64 some 200 MB.
ITEMS_AT_ONCE = {"cpu": 2**12}
ITEMS_AT_ONCE_ELSEWHERE = 2**18


def geometric_groups(n_items: int) -> tuple[int, ...]:
    """Sizes of the groups over n_items, oldest first: the further back, the coarser.

    Two groups of 16, two of 32, two of 64 … going back in time, the oldest cut to what is left: the number
    of groups grows like the logarithm of the length.

    >>> geometric_groups(208)
    (48, 64, 32, 32, 16, 16)
    >>> [len(geometric_groups(length - 48)) for length in (256, 1024, 4096, 10_000)]
    [6, 10, 14, 17]
    """
    newest_first: list[int] = []
    while (room := n_items - sum(newest_first)) > 0:
        size = SMALLEST_GROUP * 2 ** (len(newest_first) // GROUPS_OF_A_SIZE)
        newest_first.append(min(size, room))
    return tuple(reversed(newest_first))


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

    One layer serves groups of every size; positions inside a group are rotary. Unlike the paper, whose
    largest group has 64 items, a group larger than ``block`` falls into blocks of that size, counted from
    its newest item backwards: items of one block see one another, and the group's token is the mean over
    all its items. The cost of an item then does not grow with its group.

    Args:
        hidden_size: D, width of the tokens.
        n_heads: attention heads of the group layer.
        inner_size: width of the group layer's feed-forward part; 0 leaves it out. Without it the layer
            costs 2 D² an item, as values and output are taken of the mean, and keeps within the paper's
            "+10 %" for 256 items.
        block: most items of a group that see one another.
        hidden_dropout_prob: dropout on what the layer adds to the residual stream.
        attn_dropout_prob: dropout on attention weights.
    """

    def __init__(
        self,
        hidden_size: int,
        *,
        n_heads: int,
        inner_size: int,
        block: int,
        hidden_dropout_prob: float,
        attn_dropout_prob: float,
    ) -> None:
        super().__init__()
        self.head_size = hidden_size // n_heads
        self.block = block
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
            tokens: the old items, oldest first.
            valid: True where the item is real.
            sizes: group sizes, oldest first. They hold all items; the oldest group need not be full.
        """
        lengths = (tokens.shape[1] - sum(sizes[1:]), *sizes[1:])
        group_tokens, group_valid, end = [], [], 0
        for block, run in groupby(zip(sizes, lengths), key=lambda group: min(group[0], self.block)):
            of_run = [length for _, length in run]
            start, end = end, end + sum(of_run)
            pooled, filled = self._pool(
                tokens[:, start:end], valid=valid[:, start:end], lengths=of_run, block=block
            )
            group_tokens.append(pooled)
            group_valid.append(filled)
        return torch.cat(group_tokens, dim=1), torch.cat(group_valid, dim=1)

    def _pool(
        self,
        tokens: Float[Tensor, "B run D"],
        *,
        valid: Bool[Tensor, "B run"],
        lengths: list[int],
        block: int,
    ) -> tuple[Float[Tensor, "B n D"], Bool[Tensor, "B n"]]:
        """Tokens of neighbouring groups, whose blocks all go through the layer together."""
        n_blocks = [-(-length // block) for length in lengths]
        blocks = _in_blocks(tokens, lengths=lengths, block=block)
        real = _in_blocks(valid[..., None], lengths=lengths, block=block).squeeze(-1)
        n_real = torch.stack([part.sum((1, 2)) for part in real.split(n_blocks, dim=1)], dim=1)
        repeats = torch.tensor(n_blocks, device=real.device)
        of_group = n_real.clamp(min=1).repeat_interleave(repeats, dim=1, output_size=sum(n_blocks))
        weights = real.to(tokens.dtype) / of_group[..., None]
        sums = self._block_sums(blocks.flatten(0, 1), real=real.flatten(0, 1), weights=weights.flatten(0, 1))
        parts = sums.unflatten(0, real.shape[:2]).split(n_blocks, dim=1)
        return torch.stack([part.sum(1) for part in parts], dim=1), n_real > 0

    def _block_sums(
        self, blocks: Float[Tensor, "b S D"], *, real: Bool[Tensor, "b S"], weights: Float[Tensor, "b S"]
    ) -> Float[Tensor, "b D"]:
        """Σ weight · BiTransformer(t) over each block."""
        positions = torch.arange(blocks.shape[1], device=blocks.device)[None]
        rotation = rotation_table(positions, head_size=self.head_size)
        items = ITEMS_AT_ONCE.get(blocks.device.type, ITEMS_AT_ONCE_ELSEWHERE)
        at_once = len(blocks) if torch.is_grad_enabled() else max(1, items // blocks.shape[1])
        sums = []
        for some, there, share in zip(blocks.split(at_once), real.split(at_once), weights.split(at_once)):
            bias = attention_bias(group_visibility(there))
            sums.append(self.layer.pooled(some, weights=share, bias=bias, rotation=rotation))
        return torch.cat(sums)


def _in_blocks(
    values: Shaped[Tensor, "B run E"], *, lengths: list[int], block: int
) -> Shaped[Tensor, "B b S E"]:
    """Neighbouring groups cut into blocks; a group's oldest block is filled up with zeros on the left."""
    missing = [-length % block for length in lengths]
    if any(missing):
        parts = values.split(lengths, dim=1)
        values = torch.cat([pad(part, (0, 0, n, 0)) for part, n in zip(parts, missing)], dim=1)
    return values.unflatten(1, (-1, block))  # type: ignore[no-any-return]
