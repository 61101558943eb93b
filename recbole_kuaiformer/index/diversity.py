"""Diversity-controlled choice among retrieved items (controllable aggregation of ComiRec)."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from recbole_kuaiformer.index.base import NONE
from recbole_kuaiformer.index.multi_interest import Retrieved


def choose_diverse(found: Retrieved, *, k: int, categories: Int64[Tensor, " N"], weight: float) -> Retrieved:
    """The k retrieved items chosen one by one for score and for other categories than those chosen.

    The next item is argmax_i [score(i) + λ Σ_{j chosen} 1(category_i ≠ category_j)] (ComiRec, KDD 2020);
    equal values go to the better score. λ = 0 is plain top-k.

    Args:
        found: candidates, best first; the more of them, the more there is to choose from.
        k: how many to choose.
        categories: category of each item id; 0 is unknown, and an unknown one differs from every other.
        weight: λ ≥ 0, in units of the score.

    Raises:
        ValueError: λ is negative, NaN or infinite.
    """
    if not 0 <= weight < float("inf"):
        raise ValueError(f"diversity: must be a finite number of at least 0, got {weight}")
    ids = found.item_ids
    k = min(k, ids.shape[1])
    kinds = categories.to(ids.device)[ids]
    values = found.scores.double()
    columns = torch.empty(len(ids), k, dtype=torch.int64, device=ids.device)
    open_ = torch.ones_like(ids, dtype=torch.bool)
    for step in range(k):
        # An item that is not there scores −inf and is chosen last; argmax takes the first of equals.
        chosen = values.masked_fill(~open_, -torch.inf)
        best = torch.where(open_.any(1), chosen.argmax(1), 0)
        best = torch.where(chosen.isinf().all(1), open_.int().argmax(1), best)
        columns[:, step] = best
        open_.scatter_(1, best[:, None], False)
        kind = kinds.gather(1, best[:, None])
        is_item = ids.gather(1, best[:, None]) != NONE
        differs = (kinds != kind) | (kind == 0)
        values = values + weight * (differs & is_item)
    return Retrieved(
        ids.gather(1, columns), found.scores.gather(1, columns), found.interests.gather(1, columns)
    )
