"""Compression: operations and time of the KuaiFormer encoder over history length and layout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbole_kuaiformer.benchmarks import flops, measuring
from recbole_kuaiformer.encoders.item_compression import geometric_groups
from recbole_kuaiformer.encoders.kuaiformer import KuaiFormerEncoder, QueryInit
from recbole_kuaiformer.layers.feed_forward import default_inner_size

Rows = list[dict[str, Any]]
Layout = tuple[tuple[int, ...], int]  # group sizes, oldest first; recent items

SIZE, N_HEADS, N_INTERESTS, RECENT = 64, 2, 4, 48
BLOCK = 64  # most items of a group that see one another
PAPER: Layout = ((64, 64, 16, 16, 16, 16, 16), RECENT)


def geometric(length: int) -> Layout:
    """Groups that double in size the older they are, before the recent items; the oldest takes what is left.

    >>> geometric(300)
    ((28, 64, 64, 32, 32, 16, 16), 48)
    """
    return geometric_groups(length - RECENT), RECENT


def layout_of(name: str) -> Layout:
    """The layout a row is named after: ``plain 64``, ``compressed 256``, ``geometric 1024``."""
    kind, length = name.split()
    if kind == "plain":
        return (), int(length)
    return PAPER if kind == "compressed" else geometric(int(length))


def encoder_of(
    layout: Layout, *, size: int, n_layers: int, dropout: float, query_init: QueryInit = "learned"
) -> KuaiFormerEncoder:
    """A KuaiFormer encoder of that layout, with the heads, interests and group layer of the defaults."""
    return KuaiFormerEncoder(
        size,
        n_layers=n_layers,
        n_heads=N_HEADS,
        inner_size=None,
        n_interests=N_INTERESTS,
        query_init=query_init,
        query_std=None,
        compression_groups=layout[0],
        recent_length=layout[1],
        compression_block=BLOCK,
        compression_ffn=False,
        compression_end="oldest",
        hidden_dropout_prob=dropout,
        attn_dropout_prob=0.0,
    )


class Turn:
    """One encoder with random full histories and a single target each, as in the paper."""

    def __init__(self, name: str, *, n_layers: int, batch: int) -> None:
        torch.manual_seed(1)
        self.groups, self.recent = layout_of(name)
        self.length = sum(self.groups) + self.recent
        self.encoder = encoder_of((self.groups, self.recent), size=SIZE, n_layers=n_layers, dropout=0.2)
        self.tokens = torch.randn(batch, self.length, SIZE, requires_grad=True)
        self.valid = torch.ones(batch, self.length, dtype=torch.bool)
        self.n_unseen = torch.zeros(batch, 1, dtype=torch.long)

    def _interests(self, tokens: Tensor) -> Tensor:
        return self.encoder(tokens, valid=self.valid, n_unseen=self.n_unseen)  # type: ignore[no-any-return]

    def step(self) -> None:
        """Forward and backward of the encoder in training."""
        self.encoder.train()
        self._interests(self.tokens).sum().backward()

    @torch.no_grad()  # torch's counter cannot look into inference_mode
    def inference(self) -> None:
        """Forward alone, in evaluation."""
        self.encoder.eval()
        self._interests(self.tokens.detach())


def flops_by_formula(layout: Layout, *, n_layers: int, training: bool) -> int:
    """Operations of one sequence by hand: 2 for each multiply-and-add of a matrix product.

    A layer costs 4 D² a token for query, key, value and output, 3 D · inner for SwiGLU, 2 T D for attention
    over T tokens; in the last one the history is keys and values alone. The group layer costs 2 D² an item
    for query and key, and their products over its block; then the mean's attention, values and output, once
    a block. Backward is twice a product, and 2.5 times a fused attention, whose scores are computed anew.
    """
    groups, recent = layout
    n_tokens, feed_forward = len(groups) + recent + N_INTERESTS, 3 * SIZE * default_inner_size(SIZE)
    linear = (n_layers - 1) * n_tokens * (4 * SIZE**2 + feed_forward)
    linear += N_INTERESTS * (2 * SIZE**2 + feed_forward) + n_tokens * 2 * SIZE**2
    attention = 2 * n_tokens * SIZE * ((n_layers - 1) * n_tokens + N_INTERESTS)
    means = 0  # products with weights that take no gradient
    for size in groups:
        block = min(size, BLOCK)
        n_blocks = -(-size // block)  # the group is filled up to whole blocks
        linear += n_blocks * (block * (2 * SIZE**2 + block * SIZE + N_HEADS * SIZE) + 2 * SIZE**2)
        means += n_blocks * block * (N_HEADS * block + SIZE)
    factors = (3, 3.5, 2) if training else (1, 1, 1)
    return int(2 * sum(factor * part for factor, part in zip(factors, (linear, attention, means))))


def compression(case: dict[str, Any]) -> Rows:
    """Operations and seconds a sequence of each layout, in turn: a training step, and an inference."""
    turns = {}
    for name in case["layouts"]:
        batch = case["long_batch" if int(name.split()[1]) > 1024 else "batch"]
        turns[name] = Turn(name, n_layers=case["n_layers"], batch=batch)
    taken = {
        what: measuring.interleaved(
            {name: getattr(turn, what) for name, turn in turns.items()}, rounds=case["rounds"]
        )
        for what in ("inference", "step")
    }
    return [_row(name, turn, taken=taken, n_layers=case["n_layers"]) for name, turn in turns.items()]


def _row(name: str, turn: Turn, *, taken: dict[str, dict[str, list[float]]], n_layers: int) -> dict[str, Any]:
    batch, layout = len(turn.valid), (turn.groups, turn.recent)
    row: dict[str, Any] = {"layout": name, "n_layers": n_layers, "length": turn.length, "batch": batch}
    row["tokens"] = len(turn.groups) + turn.recent + N_INTERESTS
    for what in ("inference", "step"):
        row[f"{what}_flops"] = flops.counted(getattr(turn, what)) / batch
        row[f"{what}_flops_by_formula"] = flops_by_formula(layout, n_layers=n_layers, training=what == "step")
        row[f"{what}_seconds"] = [seconds / batch for seconds in taken[what][name]]
    return row
