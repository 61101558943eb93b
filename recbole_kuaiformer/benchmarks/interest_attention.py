"""Where KuaiFormer's query tokens look: attention of the last block over the history, by recency."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from recbole_kuaiformer.encoders.kuaiformer import KuaiFormerEncoder


class AttentionByRecency:
    """Sums up what every query gives to the newest token of a history, the one before it, and so on.

    Hung into a model by ``watch``; each row that the model then encodes counts once. Tokens are items, and
    beyond the newest ``recent_length`` of them groups of items.
    """

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._counts: Tensor | None = None

    def watch(self, model: Any) -> None:
        """Begin to listen, if the model's encoder is KuaiFormer's; of other ones nothing is kept."""
        encoder = getattr(model, "encoder", None)
        if isinstance(encoder, KuaiFormerEncoder):
            last: Any = encoder.blocks[-1]
            last.attention.register_forward_pre_hook(self._add, with_kwargs=True)

    @property
    def shares(self) -> Float[Tensor, "K T"] | None:
        """Mean attention of each query, over heads and over the rows that have so many tokens.

        None if nothing was listened to. What is missing to one in a row goes to the queries themselves.
        """
        if self._sums is None or self._counts is None:
            return None
        return self._sums / self._counts.clamp(min=1)

    @property
    def counts(self) -> Float[Tensor, " T"] | None:
        """Rows that have so many tokens."""
        return self._counts

    @torch.no_grad()
    def _add(self, attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        weights = attention.weights(*args, **kwargs).mean(1)  # [B, S, T]
        n_history = weights.shape[2] - weights.shape[1]  # one target: all queries are its own
        seen = kwargs["bias"][:, 0, 0, :n_history] == 0
        newest_first = weights[:, :, :n_history].sum(0).flip(-1).double()
        counts = seen.sum(0).flip(-1).double()
        width = max(n_history, 0 if self._counts is None else len(self._counts))
        self._sums = _wider(self._sums, newest_first, width)
        self._counts = _wider(self._counts, counts, width)


def _wider(before: Tensor | None, more: Tensor, width: int) -> Tensor:
    """The sum of the two, both filled up with zeros to the width."""
    total = torch.nn.functional.pad(more, (0, width - more.shape[-1]))
    return total if before is None else total + torch.nn.functional.pad(before, (0, width - before.shape[-1]))
