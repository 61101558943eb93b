"""Times of a batch, for the models whose encoders read them."""

from __future__ import annotations

from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_kuaiformer.config import reads_times
from recbole_kuaiformer.data.dataset import ITEM_TIMES, REQUEST_TIME

__all__ = ["reads_times", "times_of"]


def times_of(interaction: Interaction, *, columns: Tensor, key: str, off: str) -> dict[str, Tensor]:
    """``times`` [B, L] and ``request_times`` [B] of the history's ``columns`` [B, L], in seconds.

    Args:
        interaction: with the times of items and request, int64.
        columns: of the interaction, as the encoder has its tokens.
        key: the setting that asks for times, for the message.
        off: its value without them.

    Raises:
        ValueError: the interaction has no times.
    """
    for name in (ITEM_TIMES, REQUEST_TIME):
        if name not in interaction.columns:
            raise ValueError(
                f"{key}: the model reads times, but the batch has no {name!r} (seconds, int64); give it, or "
                f"train with {key}: {off}"
            )
    return {"times": interaction[ITEM_TIMES].gather(1, columns), "request_times": interaction[REQUEST_TIME]}
