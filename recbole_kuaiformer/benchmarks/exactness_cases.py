"""Exactness: several targets in one pass against a separate pass for each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from recbole_kuaiformer.benchmarks.compression_cases import Layout, encoder_of
from recbole_kuaiformer.encoders.causal import CausalEncoder
from recbole_kuaiformer.encoders.comirec import ComiRecDREncoder, ComiRecSAEncoder
from recbole_kuaiformer.encoders.kuaiformer import QueryInit
from recbole_kuaiformer.encoders.mind import MINDEncoder

Rows = list[dict[str, Any]]

SIZE, N_ITEMS, N_INTERESTS = 32, 41, 3
LONGEST = 40
LAYOUTS: dict[str, Layout] = {  # each holds LONGEST items
    "plain": ((), 40), "compressed": ((12, 8, 4, 4), 12), "uneven groups": ((1, 9, 6, 4), 20),
}  # fmt: skip


def encoders() -> dict[str, nn.Module]:
    """Every encoder, KuaiFormer's in each layout and with both kinds of queries."""
    torch.manual_seed(1)
    causal = CausalEncoder(
        SIZE, n_layers=2, n_heads=2, inner_size=None, hidden_dropout_prob=0.0, attn_dropout_prob=0.0
    )
    made: dict[str, nn.Module] = {"SASRecPlus": causal}
    kinds: tuple[QueryInit, ...] = ("learned", "recent")
    for query_init in kinds:
        for name, layout in LAYOUTS.items():
            made[f"KuaiFormer, {name}, {query_init} queries"] = encoder_of(
                layout, size=SIZE, n_layers=2, dropout=0.0, query_init=query_init
            )
    made["ComiRecSA"] = ComiRecSAEncoder(SIZE, n_interests=N_INTERESTS, max_length=LONGEST)
    routed = {"n_interests": N_INTERESTS, "max_length": LONGEST, "n_rounds": 3}
    made["ComiRecDR"] = ComiRecDREncoder(SIZE, **routed, shared_transform=False)
    made["MIND"] = MINDEncoder(SIZE, **routed)
    return made


@dataclass(frozen=True)
class Window:
    """Histories aligned to the right with several targets each, and what the targets are.

    Attributes:
        item_ids: [B, L]. lengths: [B] real items of each row, the newest ones.
        n_unseen: [B, P] newest items hidden from each target; fewer than any row has.
        positives: [B, P].
    """

    item_ids: Tensor
    lengths: Tensor
    n_unseen: Tensor
    positives: Tensor

    @classmethod
    def draw(cls, generator: torch.Generator, *, most_unseen: int) -> Window:
        """Rows of random lengths, one of them of the window's full width; random targets."""

        def between(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high + 1, shape, generator=generator)

        width, n_rows, n_targets = int(between(2, LONGEST, 1)), 3, int(between(1, 7, 1))
        lengths = between(1, width, n_rows)
        lengths[0] = width
        n_unseen = between(0, 10**6, n_rows, n_targets) % lengths.clamp(max=most_unseen)[:, None]
        return cls(
            item_ids=between(1, N_ITEMS - 1, n_rows, width),
            lengths=lengths,
            n_unseen=n_unseen,
            positives=between(1, N_ITEMS - 1, n_rows, n_targets),
        )


def together(encoder: nn.Module, window: Window, items: Tensor) -> Tensor:
    """Interests of all targets in one pass, [B · P, K, D]."""
    width = window.item_ids.shape[1]
    valid = torch.arange(width) >= width - window.lengths[:, None]
    interests: Tensor = encoder(items[window.item_ids], valid=valid, n_unseen=window.n_unseen)
    return interests.flatten(0, 1)


def apart(encoder: nn.Module, window: Window, items: Tensor) -> Tensor:
    """The same from a pass for each target: no padding, its history cut, the groups left where they were."""
    interests = []
    for ids, length, unseen in zip(window.item_ids, window.lengths.tolist(), window.n_unseen.tolist()):
        for n in unseen:
            seen = ids[len(ids) - length : len(ids) - n]
            recent = getattr(encoder, "recent_length", None)
            if recent is not None:
                encoder.recent_length = recent - n
            valid, none = torch.ones(1, len(seen), dtype=torch.bool), torch.zeros(1, 1, dtype=torch.long)
            interests.append(encoder(items[seen][None], valid=valid, n_unseen=none)[0])
            if recent is not None:
                encoder.recent_length = recent
    return torch.cat(interests)


def exactness(case: dict[str, Any]) -> Rows:
    """The largest differences over random windows: of vectors, of the loss, and of its gradient.

    The gradient's is relative to its largest entry.
    """
    rows = []
    for dtype in (torch.float32, torch.float64):
        for name, encoder in encoders().items():
            differences = _differences(encoder.to(dtype), dtype=dtype, windows=case["windows"])
            rows.append({"encoder": name, "dtype": str(dtype).removeprefix("torch."), **differences})
    return rows


def _differences(encoder: nn.Module, *, dtype: torch.dtype, windows: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(2)
    items = torch.randn(N_ITEMS, SIZE, generator=generator).to(dtype).requires_grad_()
    recent = getattr(encoder, "recent_length", LONGEST)
    worst = {"windows": windows, "targets": 0, "vectors": 0.0, "loss": 0.0, "gradient": 0.0}
    for _ in range(windows):
        window = Window.draw(generator, most_unseen=recent)
        one, many = (way(encoder, window, items) for way in (together, apart))
        losses = [_loss(interests, window, items) for interests in (one, many)]
        gradients = [
            torch.autograd.grad(loss, [items, *encoder.parameters()], materialize_grads=True)
            for loss in losses
        ]
        worst["targets"] += window.positives.numel()
        worst["vectors"] = max(worst["vectors"], float((one - many).detach().abs().max()))
        worst["loss"] = max(worst["loss"], float((losses[0] - losses[1]).detach().abs()))
        worst["gradient"] = max(worst["gradient"], _relative(*gradients))
    return worst


def _loss(interests: Tensor, window: Window, items: Tensor) -> Tensor:
    """Mean cross-entropy of the best interest's cosine over the temperature, over all items (Eq. 9, 10)."""
    normed = nn.functional.normalize
    scores = (normed(interests, dim=-1) @ normed(items, dim=-1).T).amax(1) / 0.05
    return cross_entropy(scores, window.positives.flatten())


def _relative(ones: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> float:
    largest = max(float(other.abs().max()) for other in others)
    difference = max(float((one - other).abs().max()) for one, other in zip(ones, others))
    return difference / largest if largest else math.inf
