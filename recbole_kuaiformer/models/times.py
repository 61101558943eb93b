"""Times of a batch, for the models whose encoders read them."""

from __future__ import annotations

from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_kuaiformer.config import TIME_KEYS, time_key
from recbole_kuaiformer.data.dataset import ITEM_TIMES, REQUEST_TIME

__all__ = ["TIME_KEYS", "time_key", "times_of"]


def times_of(interaction: Interaction, *, columns: Tensor, key: str) -> dict[str, Tensor]:
    """``times`` [B, L] and ``request_times`` [B] of the history's ``columns`` [B, L], in seconds.

    Args:
        interaction: with the times of items and request, int64.
        columns: of the interaction, as the encoder has its tokens.
        key: of TIME_KEYS, that asks for times.

    Raises:
        ValueError: the interaction has no times.
    """
    for name in (ITEM_TIMES, REQUEST_TIME):
        if name not in interaction.columns:
            raise ValueError(
                f"{key}: the model reads times, but the batch has no {name!r} (seconds, int64); give it, or "
                f"train with {key}: {TIME_KEYS[key]}"
            )
    return {"times": interaction[ITEM_TIMES].gather(1, columns), "request_times": interaction[REQUEST_TIME]}
