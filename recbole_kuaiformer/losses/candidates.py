"""Who competes in the softmax, and how likely each was to appear (Eq. 10–11 of KuaiFormer)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from recbole_kuaiformer.losses import processes

NEVER = torch.iinfo(torch.int64).max  # later than any row of a log


@dataclass(frozen=True)
class Candidates:
    """The columns of a score matrix [P, M]; a row's own positive is scored apart from them.

    Attributes:
        item_ids: [M] int64 ids of the columns.
        log_q: [M] log of the probability that one draw yields the column's item; with ``unique`` log of
            the probability that the batch holds it at all; None where no correction is due.
        positive_log_q: [P] the same for each row's own positive.
        unique: each id is there once, and the probabilities are those of being in the batch.
    """

    item_ids: Tensor
    log_q: Tensor | None
    positive_log_q: Tensor | None
    unique: bool

    def of_rows(self, first: int, *, n_rows: int) -> Candidates:
        """The same columns for ``n_rows`` of the rows alone."""
        log_q = self.positive_log_q
        mine = None if log_q is None else log_q[first : first + n_rows]
        return replace(self, positive_log_q=mine)


def in_batch(
    positive_ids: Int64[Tensor, " P"], *, q: Float[Tensor, " N"], n_negatives: int, deduplicate: bool
) -> Candidates:
    """The positives of the batch; de-duplicated, an item is in it with probability 1 − (1 − q)^P."""
    del n_negatives  # the batch decides
    log_q = q.clamp(min=torch.finfo(q.dtype).tiny).log()
    if not deduplicate:
        return Candidates(positive_ids, log_q[positive_ids], log_q[positive_ids], unique=False)
    never = len(positive_ids) * torch.log1p(-q.clamp(max=1 - torch.finfo(q.dtype).eps))
    log_inclusion = (-torch.expm1(never)).clamp(min=torch.finfo(q.dtype).tiny).log()
    ids = positive_ids.unique()
    return Candidates(ids, log_inclusion[ids], log_inclusion[positive_ids], unique=True)


def uniform(
    positive_ids: Int64[Tensor, " P"], *, q: Float[Tensor, " N"], n_negatives: int, deduplicate: bool
) -> Candidates:
    """``n_negatives`` ids drawn with replacement from the catalogue, each with probability 1 / (N − 1)."""
    _refuse_deduplication("uniform", asked=deduplicate)
    ids = _draw_uniform(n_negatives, n_items=len(q), device=positive_ids.device)
    log_q = q.new_full((len(ids),), -math.log(len(q) - 1))
    return Candidates(ids, log_q, log_q[:1].expand(len(positive_ids)), unique=False)


def mixed(
    positive_ids: Int64[Tensor, " P"], *, q: Float[Tensor, " N"], n_negatives: int, deduplicate: bool
) -> Candidates:
    """The batch's positives and ``n_negatives`` uniform ids, all corrected by the mixture of both."""
    _refuse_deduplication("mixed", asked=deduplicate)
    n_positives = len(positive_ids)
    drawn = _draw_uniform(n_negatives, n_items=len(q), device=positive_ids.device)
    ids = torch.cat([positive_ids, drawn])
    mixture = (n_positives * q + n_negatives / (len(q) - 1)) / (n_positives + n_negatives)
    log_q = mixture.log()
    return Candidates(ids, log_q[ids], log_q[positive_ids], unique=False)


def whole_catalogue(
    positive_ids: Int64[Tensor, " P"], *, q: Float[Tensor, " N"], n_negatives: int, deduplicate: bool
) -> Candidates:
    """Every item 1 .. N − 1; nothing is sampled, so nothing is corrected."""
    del n_negatives
    _refuse_deduplication("all", asked=deduplicate)
    return Candidates(torch.arange(1, len(q), device=positive_ids.device), None, None, unique=False)


NEGATIVES: dict[str, Callable[..., Candidates]] = {
    "in_batch": in_batch,
    "uniform": uniform,
    "mixed": mixed,
    "all": whole_catalogue,
}


def draw_candidates(
    negatives: str,
    positive_ids: Int64[Tensor, " P"],
    *,
    q: Float[Tensor, " N"],
    n_negatives: int,
    deduplicate: bool,
) -> Candidates:
    """Candidates of the named kind.

    Args:
        negatives: a name in NEGATIVES.
        positive_ids: targets of the batch, those of all processes.
        q: probability that one target of a batch is the item; q[0], of padding, is 0. An item of
            probability 0 that is a target all the same counts with the smallest positive number.
        n_negatives: uniform ids to draw, from torch's global generator; process 0's draw is everybody's.
        deduplicate: each id competes once (``in_batch`` alone).

    Raises:
        ValueError: the name is not known, or de-duplication was asked of candidates that do not repeat.
    """
    if negatives not in NEGATIVES:
        near = difflib.get_close_matches(negatives, NEGATIVES, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"negatives {negatives!r} is not known{hint}; known: {', '.join(NEGATIVES)}")
    return NEGATIVES[negatives](positive_ids, q=q, n_negatives=n_negatives, deduplicate=deduplicate)


def negative_mask(
    positive_ids: Int64[Tensor, " P"], candidate_ids: Int64[Tensor, " M"]
) -> Bool[Tensor, "P M"]:
    """True where the column may be the row's negative: everywhere but at the row's own positive id."""
    return positive_ids[:, None] != candidate_ids


class KnownPositives(nn.Module):
    """Which (user, item) pairs the training data holds, and since when: one sorted int64 key each.

    Args:
        user_ids: [R] and item_ids: [R], int64, of the training interactions.
        rows: [R] int64, their rows of the log, which is in order of time. n_items: N.
    """

    keys: Tensor
    first_rows: Tensor

    def __init__(
        self,
        user_ids: Int64[Tensor, " R"],
        item_ids: Int64[Tensor, " R"],
        *,
        rows: Int64[Tensor, " R"],
        n_items: int,
    ) -> None:
        super().__init__()
        self.n_items = n_items
        keys, pair = (user_ids * n_items + item_ids).unique(return_inverse=True)
        first = torch.full_like(keys, NEVER).scatter_reduce_(0, pair, rows, "amin")
        self.register_buffer("keys", keys, persistent=False)
        self.register_buffer("first_rows", first, persistent=False)

    def forward(
        self, user_ids: Int64[Tensor, " B"], candidate_ids: Int64[Tensor, " M"]
    ) -> Int64[Tensor, "B M"]:
        """The row at which the user had the item first; NEVER where that is not known."""
        wanted = user_ids[:, None] * self.n_items + candidate_ids
        place = torch.searchsorted(self.keys, wanted).clamp(max=len(self.keys) - 1)
        return self.first_rows[place].where(self.keys[place] == wanted, NEVER)


def _draw_uniform(n: int, *, n_items: int, device: torch.device) -> Int64[Tensor, " n"]:
    return processes.of_first(torch.randint(1, n_items, (n,), device=device))


def _refuse_deduplication(negatives: str, *, asked: bool) -> None:
    if asked:
        raise ValueError(f"only in_batch candidates can be de-duplicated, not {negatives!r}")
