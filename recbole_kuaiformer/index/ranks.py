"""Exact ranks by counting: how many items score above a given one, without sorting or storing scores."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from recbole_kuaiformer.index.multi_interest import Exclusions

SCORES_AT_ONCE = 2**23
ROWS_AT_ONCE = 1024


@torch.no_grad()
def count_above(
    items: Float[Tensor, "N D"],
    interests: Float[Tensor, "B K D"],
    *,
    rows: Int64[Tensor, " P"],
    item_ids: Int64[Tensor, " P"],
    excluded: Exclusions | None = None,
) -> tuple[Int64[Tensor, " P"], Int64[Tensor, " P"]]:
    """For each given (row, item): how many other items score above it, and how many exactly as it does.

    The catalogue streams past; memory does not depend on its size. The item's own column is left out, as
    two products of different shape may differ in the last bit. Its average rank is 1 + above + equal / 2.

    Args:
        items: [N, D], row 0 is padding and takes no part.
        interests: K vectors for each row; a score is the largest of K dot products.
        rows: row of each item asked about.
        item_ids: id of each item asked about.
        excluded: items that leave a row's ranking.
    """
    above, equal = torch.zeros_like(rows), torch.zeros_like(rows)
    for start in range(0, len(interests), ROWS_AT_ONCE):
        block = torch.arange(start, min(start + ROWS_AT_ONCE, len(interests)), device=rows.device)
        asked = ((rows >= block[0]) & (rows <= block[-1])).nonzero().flatten()
        for part in asked.split(ROWS_AT_ONCE):
            if len(part) == 0:
                continue
            above[part], equal[part] = _of_block(
                items,
                interests[block],
                rows=rows[part] - start,
                item_ids=item_ids[part],
                excluded=None if excluded is None else excluded.of_rows(block),
            )
    return above, equal


def _of_block(
    items: Tensor, interests: Tensor, *, rows: Tensor, item_ids: Tensor, excluded: Exclusions | None
) -> tuple[Tensor, Tensor]:
    own = (interests[rows] @ items[item_ids][..., None]).squeeze(-1).amax(1)[:, None]
    above, equal = torch.zeros_like(rows), torch.zeros_like(rows)
    width = max(1, SCORES_AT_ONCE // (interests.shape[1] * max(len(interests), len(rows))))
    for start in range(1, len(items), width):
        part = items[start : start + width]
        scores = (interests.flatten(0, 1) @ part.T).unflatten(0, interests.shape[:2]).amax(1)
        if excluded is not None:
            there = (excluded.item_ids >= start) & (excluded.item_ids < start + len(part))
            scores[excluded.rows[there], excluded.item_ids[there] - start] = -torch.inf
        of_items = scores[rows]
        here = ((item_ids >= start) & (item_ids < start + len(part))).nonzero().flatten()
        of_items[here, item_ids[here] - start] = -torch.inf
        above += (of_items > own).sum(1)
        equal += (of_items == own).sum(1)
    return above, equal
