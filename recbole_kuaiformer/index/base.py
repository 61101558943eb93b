"""What an index is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

NONE = 0  # the padding id: what stands where there is no item


@dataclass(frozen=True)
class TopK:
    """The best items of each row, best first; id 0 and score −inf where there are no more.

    Attributes:
        item_ids: [Q, k], or [B, K, k], ids 1 … N−1.
        scores: of the same shape, dot products.
    """

    item_ids: Int64[Tensor, "*Q k"]
    scores: Float[Tensor, "*Q k"]

    def widened(self, k: int) -> TopK:
        """The same lists with k columns, filled up with nothing."""
        missing = k - self.item_ids.shape[1]
        if missing <= 0:
            return self
        pad = torch.nn.functional.pad
        return TopK(pad(self.item_ids, (0, missing)), pad(self.scores, (0, missing), value=-torch.inf))


@runtime_checkable
class Index(Protocol):
    """Finds the items of largest dot product with a query.

    An index is built from the whole item table [N, D]; row 0, the padding, is left out of it and its id is
    never returned as an item.

    Attributes:
        n_items: N − 1, items that can be found.
        is_exact: whether the result is the true top-k, up to rounding of the dot products.
        max_k: the largest k an approximate index can search for; None for any.
        description: what it is, for the log.
    """

    n_items: int
    is_exact: bool
    max_k: int | None
    description: str

    def search(self, queries: Float[Tensor, "Q D"], *, k: int) -> TopK:
        """The k best items of each query; k beyond the catalogue gives what there is, filled with nothing."""
        ...


class IndexUnavailableError(RuntimeError):
    """The backend cannot run here; the message says why and what to install."""


def check_items(items: Float[Tensor, "N D"]) -> None:
    """Refuse an item table that no search can rank.

    Raises:
        ValueError: the table holds no item, or a vector that is not finite.
    """
    if len(items) < 2:
        raise ValueError(f"an index needs at least one item beside the padding row, got {len(items)} rows")
    check_finite(items[1:], what="item vectors", first_id=1)


def check_search(queries: Float[Tensor, "Q D"], *, k: int) -> None:
    """Refuse what no search can answer.

    Args:
        queries: in the type that they are searched in.
        k: items asked for.

    Raises:
        ValueError: a query is not finite in that type, or k < 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    check_finite(queries, what="queries")


def check_finite(vectors: Float[Tensor, "M D"], *, what: str, first_id: int = 0) -> None:
    """Refuse NaN and infinity: FAISS answers them with no items and no error.

    Raises:
        ValueError: names the first row at fault.
    """
    # One pass without a mask of the table's size; finite parts may overflow in sum, so look again then.
    if torch.isfinite(vectors.sum()):
        return
    bad = (~torch.isfinite(vectors)).any(-1).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"{what}: {len(bad)} of {len(vectors)} rows hold NaN or infinity, the first is row "
            f"{int(bad[0]) + first_id} (as {str(vectors.dtype).removeprefix('torch.')})"
        )
