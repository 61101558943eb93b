"""Exact ranks by counting: how many items score above a given one, without sorting or storing scores."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from recbole_kuaiformer.index.multi_interest import Exclusions, best_scores, leave_out

SCORES_AT_ONCE = 2**23
ROWS_AT_ONCE = 1024
ROUNDING = 1e-6  # of |u||x|: two products of one pair of vectors, in matrices of other shapes, differ by less
COARSE_ROUNDING = 2e-3  # the same where products may be of TF32 or bfloat16


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

    The catalogue streams past; memory does not depend on its size. Where scores lie so close that rounding
    decides, the row is counted again from one product over the whole catalogue, as a full score matrix
    would have it. The item's average rank is 1 + above + equal / 2.

    Args:
        items: [N, D], row 0 is padding and takes no part.
        interests: K vectors for each row; a score is the largest of K dot products.
        rows: row of each item asked about.
        item_ids: id of each item asked about.
        excluded: items that leave a row's ranking.
    """
    above, equal = torch.zeros_like(rows), torch.zeros_like(rows)
    for part in _parts(rows, size=ROWS_AT_ONCE):
        above[part], equal[part] = _streamed(
            items, interests, rows=rows[part], item_ids=item_ids[part], excluded=excluded
        )
    close = (equal > 0).nonzero().flatten()
    for part in close.split(max(1, SCORES_AT_ONCE // len(items))):
        if len(part):
            above[part], equal[part] = _whole(
                items, interests, rows=rows[part], item_ids=item_ids[part], excluded=excluded
            )
    return above, equal


def _parts(rows: Tensor, *, size: int) -> tuple[Tensor, ...]:
    """Places of the pairs, those of one row together."""
    return rows.argsort(stable=True).split(size) if len(rows) else ()


def _streamed(
    items: Tensor, interests: Tensor, *, rows: Tensor, item_ids: Tensor, excluded: Exclusions | None
) -> tuple[Tensor, Tensor]:
    """Items above by more than rounding, and items within it."""
    users, place = rows.unique(return_inverse=True)
    vectors = interests[users]
    theirs = None if excluded is None else excluded.of_rows(users)
    wanted = items[item_ids]
    own = (interests[rows] @ wanted[..., None]).squeeze(-1).amax(1)[:, None]
    rounding = ROUNDING if torch.get_float32_matmul_precision() == "highest" else COARSE_ROUNDING
    slack = rounding * interests[rows].norm(dim=-1).amax(1)[:, None] * wanted.norm(dim=-1)[:, None]
    above, close = torch.zeros_like(rows), torch.zeros_like(rows)
    width = max(1, SCORES_AT_ONCE // (interests.shape[1] * len(rows)))
    for start in range(1, len(items), width):
        part = items[start : start + width]
        scores = (vectors.flatten(0, 1) @ part.T).unflatten(0, vectors.shape[:2]).amax(1)
        if theirs is not None:
            there = (theirs.item_ids >= start) & (theirs.item_ids < start + len(part))
            scores[theirs.rows[there], theirs.item_ids[there] - start] = -torch.inf
        of_pairs = scores[place]
        here = ((item_ids >= start) & (item_ids < start + len(part))).nonzero().flatten()
        of_pairs[here, item_ids[here] - start] = -torch.inf
        more = (of_pairs > own + slack).sum(1)
        above += more
        close += (of_pairs >= own - slack).sum(1) - more
    return above, close


def _whole(
    items: Tensor, interests: Tensor, *, rows: Tensor, item_ids: Tensor, excluded: Exclusions | None
) -> tuple[Tensor, Tensor]:
    users, place = rows.unique(return_inverse=True)
    scores = best_scores(interests[users], items)
    own = scores[place, item_ids][:, None]
    leave_out(scores, None if excluded is None else excluded.of_rows(users))
    of_pairs = scores[place]
    of_pairs[torch.arange(len(rows), device=rows.device), item_ids] = -torch.inf
    return (of_pairs > own).sum(1), (of_pairs == own).sum(1)
