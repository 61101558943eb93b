"""Exact search in torch, on the CPU or a GPU: the oracle of every other index."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from recbole_kuaiformer.index.base import TopK, check_items, check_search

QUERIES_AT_ONCE = 1024
SCORES_AT_ONCE = {"cpu": 2**23, "cuda": 2**26}  # 32 and 256 MiB of scores, whatever the catalogue's size


class TorchIndex:
    """Streams the item table past the queries; memory is bounded by SCORES_AT_ONCE, not by the catalogue.

    Args:
        items: [N, D], row 0 is padding. Kept as it is, not copied; the search runs on its device.

    Raises:
        ValueError: the table holds no item, or a vector that is not finite.
    """

    is_exact = True
    max_k: int | None = None

    def __init__(self, items: Float[Tensor, "N D"]) -> None:
        check_items(items)
        self.items = items.detach()[1:]
        self.n_items = len(self.items)
        self.description = f"torch on {items.device}"

    @torch.no_grad()
    def search(self, queries: Float[Tensor, "Q D"], *, k: int) -> TopK:
        """As the protocol says.

        Raises:
            ValueError: a query is not finite in the items' type, or k < 1.
        """
        queries = queries.to(self.items)
        check_search(queries, k=k)
        found = min(k, self.n_items)
        if len(queries) == 0:
            nothing = torch.zeros(0, k, dtype=torch.int64, device=queries.device)
            return TopK(nothing, nothing.to(queries.dtype))
        blocks = [self._search_block(block, k=found) for block in queries.split(QUERIES_AT_ONCE)]
        ids = torch.cat([ids for ids, _ in blocks])
        return TopK(ids + 1, torch.cat([scores for _, scores in blocks])).widened(k)

    def _search_block(
        self, queries: Float[Tensor, "Q D"], *, k: int
    ) -> tuple[Int64[Tensor, "Q k"], Float[Tensor, "Q k"]]:
        at_once = SCORES_AT_ONCE.get(queries.device.type, SCORES_AT_ONCE["cpu"])
        width = min(max(at_once // len(queries), 2 * k), self.n_items)
        buffer = queries.new_empty(len(queries) * width)
        ids, best = None, None
        for start in range(0, self.n_items, width):
            part = self.items[start : start + width]
            scores = buffer[: len(queries) * len(part)].view(len(queries), len(part))
            torch.mm(queries, part.T, out=scores)
            if ids is None or best is None:
                best, ids = scores.topk(min(k, len(part)), sorted=False)
            else:
                ids, best = _merged(ids, best, scores=scores, start=start, k=k)
        if ids is None or best is None:
            raise ValueError("an index without items")  # check_items refused it
        best, order = best.sort(descending=True, stable=True)
        return ids.gather(1, order), best


def _merged(
    ids: Int64[Tensor, "Q k"], best: Float[Tensor, "Q k"], *, scores: Float[Tensor, "Q C"], start: int, k: int
) -> tuple[Int64[Tensor, "Q k"], Float[Tensor, "Q k"]]:
    """The k best of what was found and of further scores.

    Only scores above a row's k-th best are looked at: after the first part of a long table they are few,
    and picking them out is cheaper than another top-k over the whole part.
    """
    if best.shape[1] < k:  # the first part held fewer than k items
        better = torch.ones_like(scores, dtype=torch.bool)
    else:
        better = scores > best.amin(1, keepdim=True)
    rows, columns = better.nonzero(as_tuple=True)
    if len(rows) == 0:
        return ids, best
    counts = torch.bincount(rows, minlength=len(scores))
    places = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    width = int(counts.max())
    more = scores.new_full((len(scores), width), -torch.inf)
    more_ids = ids.new_zeros(len(scores), width)
    more[rows, places] = scores[rows, columns]
    more_ids[rows, places] = columns + start
    best, order = torch.cat([best, more], dim=1).topk(k, sorted=False)
    return torch.cat([ids, more_ids], dim=1).gather(1, order), best
