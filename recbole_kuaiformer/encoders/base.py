"""What an encoder is."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor


class HistoryEncoder(Protocol):
    """Turns a history into K interests for each of P targets in one pass.

    ``tokens`` and ``valid`` are aligned to the right: the newest item stands in the last column, padding
    to the left of the oldest. ``n_unseen[b, p]`` is how many of the newest items target p must not see:
    0 for a target that comes after the whole history.
    """

    def __call__(
        self,
        tokens: Float[Tensor, "B L D"],
        *,
        valid: Bool[Tensor, "B L"],
        n_unseen: Int[Tensor, "B P"],
    ) -> Float[Tensor, "B P K D"]:
        """The interests of every target."""
        ...


@runtime_checkable  # types of arguments are checked under pytest
class SingleTargetEncoder(Protocol):
    """Turns a history into K interests for the one target that comes after it.

    What cannot serve several targets at once (every item sees the whole history, say) is written like
    this and wrapped in ``encoders.separate.SeparatePasses``. ``tokens`` and ``valid`` are aligned to the
    right as for a ``HistoryEncoder``; padding must not change an output, and a row may be all padding.
    """

    def __call__(
        self, tokens: Float[Tensor, "B L D"], *, valid: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B K D"]:
        """The interests of each row."""
        ...
