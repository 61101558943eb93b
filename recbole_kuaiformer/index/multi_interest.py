"""K searches per user, merged by best score, de-duplicated, exclusions taken out, proven exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from recbole_kuaiformer.index.base import NONE, Index, TopK

OVERFETCH = 32  # extra items per interest in the first search; rows that need more are searched again
RESULTS_AT_ONCE = 2**20  # scores held while lists are merged


@dataclass(frozen=True)
class Exclusions:
    """Items that must not be retrieved, row by row.

    Attributes:
        rows: [E] row numbers, in ascending order.
        item_ids: [E] the item that leaves that row.
    """

    rows: Int64[Tensor, " E"]
    item_ids: Int64[Tensor, " E"]

    @classmethod
    def of(cls, rows: Int64[Tensor, " E"], item_ids: Int64[Tensor, " E"]) -> Exclusions:
        """Pairs in any order, repeated or not."""
        if len(rows) == 0:
            return cls(rows, item_ids)
        stride = int(item_ids.max()) + 1
        keys = (rows * stride + item_ids).unique()
        return cls(keys // stride, keys % stride)

    def of_rows(self, chosen: Int64[Tensor, " R"]) -> Exclusions:
        """The exclusions of the chosen rows (ascending), which become rows 0 … R−1."""
        if len(self.rows) == 0 or len(chosen) == 0:
            return Exclusions(self.rows[:0], self.item_ids[:0])
        place = torch.searchsorted(chosen, self.rows).clamp(max=len(chosen) - 1)
        kept = chosen[place] == self.rows
        return Exclusions(place[kept], self.item_ids[kept])

    def without(self, others: Exclusions) -> Exclusions:
        """These pairs except those that are among the others."""
        if len(self.rows) == 0 or len(others.rows) == 0:
            return self
        stride = max(int(self.item_ids.max()), int(others.item_ids.max())) + 1
        keys, theirs = (one.rows * stride + one.item_ids for one in (self, others))
        kept = ~torch.isin(keys, theirs)
        return Exclusions(self.rows[kept], self.item_ids[kept])

    def counts(self, n_rows: int) -> Int64[Tensor, " B"]:
        """How many items leave each of n_rows rows."""
        return torch.bincount(self.rows, minlength=n_rows)

    def contains(self, item_ids: Int64[Tensor, "B C"]) -> Bool[Tensor, "B C"]:
        """Whether each item is excluded from its row."""
        if len(self.rows) == 0:
            return torch.zeros_like(item_ids, dtype=torch.bool)
        stride = max(int(item_ids.max()), int(self.item_ids.max())) + 1
        keys = self.rows * stride + self.item_ids  # ascending, as rows are and ids within them
        asked = torch.arange(len(item_ids), device=item_ids.device)[:, None] * stride + item_ids
        place = torch.searchsorted(keys, asked.contiguous()).clamp(max=len(keys) - 1)
        return keys[place] == asked


@dataclass(frozen=True)
class Retrieved:
    """The best items of each user, best first; id 0, score −inf and interest −1 where there are no more.

    Attributes:
        item_ids: [B, k].
        scores: [B, k] max_r(u_r · x), Eq. 9 of KuaiFormer.
        interests: [B, k] which interest r found the item.
    """

    item_ids: Int64[Tensor, "B k"]
    scores: Float[Tensor, "B k"]
    interests: Int64[Tensor, "B k"]


def best_scores(interests: Float[Tensor, "B K D"], items: Float[Tensor, "N D"]) -> Float[Tensor, "B N"]:
    """max_r(u_r · x) of every item, padding included (Eq. 9 of KuaiFormer); holds 2 B N scores at most."""
    scores = interests[:, 0] @ items.T
    for r in range(1, interests.shape[1]):
        scores = torch.maximum(scores, interests[:, r] @ items.T)
    return scores


def leave_out(scores: Float[Tensor, "B N"], excluded: Exclusions | None) -> None:
    """Put −inf, in place, where the padding and the excluded items stand."""
    scores[:, 0] = -torch.inf
    if excluded is not None:
        scores[excluded.rows, excluded.item_ids] = -torch.inf


def retrieve(
    index: Index,
    interests: Float[Tensor, "B K D"],
    *,
    k: int,
    excluded: Exclusions | None = None,
    overfetch: int = OVERFETCH,
) -> Retrieved:
    """The k items of largest max_r(u_r · x) for each user (Eq. 2 and 9 of KuaiFormer).

    Equal scores stand in no promised order, and either may be the last one in. Exact over an exact index,
    whatever ``overfetch``: a row is taken as it is when the certificate of ``certified`` holds, and searched
    again otherwise, deep enough that it must be exact.

    Args:
        index: where to search.
        interests: K vectors for each user. A user with fewer repeats one of them.
        k: how many items; beyond what a row can have it gives what there is.
        excluded: items that leave a user's list (the history).
        overfetch: items fetched per interest beyond k in the first search, at most.

    Raises:
        ValueError: an interest is not finite, or k < 1.
    """
    (result,) = retrieve_readings(index, interests, k=k, readings=(excluded,), overfetch=overfetch)
    return result


def retrieve_readings(
    index: Index,
    interests: Float[Tensor, "B K D"],
    *,
    k: int,
    readings: tuple[Exclusions | None, ...],
    overfetch: int = OVERFETCH,
) -> tuple[Retrieved, ...]:
    """As ``retrieve``, for several sets of exclusions over one search: one result for each."""
    if k < 1:
        raise ValueError(f"k: must be at least 1, got {k}")
    rows_at_once = max(1, RESULTS_AT_ONCE // (interests.shape[1] * (k + overfetch)))
    blocks = torch.arange(len(interests), device=interests.device).split(rows_at_once)
    parts = [
        _retrieve_block(
            index,
            interests[block],
            k=k,
            readings=tuple(_of_block(one, block, n_rows=len(interests)) for one in readings),
            overfetch=overfetch,
        )
        for block in blocks
    ]
    return tuple(_joined([part[reading] for part in parts]) for reading in range(len(readings)))


def _of_block(excluded: Exclusions | None, block: Tensor, *, n_rows: int) -> Exclusions | None:
    if excluded is None or len(block) == n_rows:
        return excluded
    return excluded.of_rows(block)


def _joined(parts: list[Retrieved]) -> Retrieved:
    if len(parts) == 1:
        return parts[0]
    return Retrieved(
        torch.cat([part.item_ids for part in parts]),
        torch.cat([part.scores for part in parts]),
        torch.cat([part.interests for part in parts]),
    )


def _retrieve_block(
    index: Index,
    interests: Float[Tensor, "B K D"],
    *,
    k: int,
    readings: tuple[Exclusions | None, ...],
    overfetch: int,
) -> tuple[Retrieved, ...]:
    longest = max((_longest(one, len(interests)) for one in readings), default=0)
    fetched = _possible(index, k + min(longest, overfetch))
    found = _search(index, interests, k=fetched)
    lists = _Merged.of(found)
    return tuple(
        _completed(index, interests, k=k, excluded=one, found=found, result=lists.best(k=k, excluded=one))
        for one in readings
    )


def _possible(index: Index, k: int) -> int:
    """As many of k items as the index holds, and an approximate one can find."""
    limit = None if index.is_exact else index.max_k
    return min(k, index.n_items, limit or k)


def _longest(excluded: Exclusions | None, n_rows: int) -> int:
    return 0 if excluded is None or len(excluded.rows) == 0 else int(excluded.counts(n_rows).max())


def _completed(
    index: Index,
    interests: Float[Tensor, "B K D"],
    *,
    k: int,
    excluded: Exclusions | None,
    found: TopK,
    result: Retrieved,
) -> Retrieved:
    """The result, its uncertified rows searched again at a depth that leaves no doubt."""
    if excluded is None or len(excluded.rows) == 0:  # k items from each interest suffice
        return result
    if index.is_exact:
        doubtful = ~certified(result, found=found, n_items=index.n_items)
    else:
        doubtful = result.item_ids[:, -1] == NONE  # all that can be known: the list is not full
    counts = excluded.counts(len(interests))
    for rows, depth in _buckets(doubtful.nonzero().flatten(), counts, k=k, n_interests=interests.shape[1]):
        found_deep = _Merged.of(_search(index, interests[rows], k=_possible(index, depth)))
        again = found_deep.best(k=k, excluded=excluded.of_rows(rows))
        result.item_ids[rows], result.scores[rows] = again.item_ids, again.scores
        result.interests[rows] = again.interests
    return result


def _buckets(
    rows: Int64[Tensor, " R"], counts: Int64[Tensor, " B"], *, k: int, n_interests: int
) -> Iterator[tuple[Int64[Tensor, " S"], int]]:
    """Rows to search again and how deep, few enough at a time to hold their lists.

    k + what a row excludes leaves no doubt. Rows of like numbers go together, so that one user with a long
    history does not deepen the search of all.
    """
    depths = k + counts[rows]
    while len(rows):
        deepest = int(depths.max())
        chosen = (2 * depths > deepest).nonzero().flatten()
        chosen = chosen[: max(1, RESULTS_AT_ONCE // (n_interests * deepest))]
        yield rows[chosen], deepest
        left = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        left[chosen] = False
        rows, depths = rows[left], depths[left]


def certified(result: Retrieved, *, found: TopK, n_items: int) -> Bool[Tensor, " B"]:
    """Rows that are exact beyond doubt, whatever was fetched and excluded.

    Either k allowed items were found and the k-th best scores no less than the last item that **every**
    interest returned, so that nothing unseen can score more; or every interest returned everything.

    Args:
        result: the k best of the lists ``found``, after exclusions.
        found: lists [B, K, K'] of the interests, best first.
        n_items: how many items the index holds.
    """
    if found.item_ids.shape[-1] >= n_items:
        return torch.ones(len(result.item_ids), dtype=torch.bool, device=result.item_ids.device)
    worst_fetched = found.scores[:, :, -1].amax(1)
    return (result.item_ids[:, -1] != NONE) & (result.scores[:, -1] >= worst_fetched)


def _search(index: Index, interests: Float[Tensor, "B K D"], *, k: int) -> TopK:
    """Lists [B, K, k] of every interest."""
    n_rows, n_interests = interests.shape[:2]
    found = index.search(interests.flatten(0, 1), k=k)
    return TopK(found.item_ids.view(n_rows, n_interests, -1), found.scores.view(n_rows, n_interests, -1))


@dataclass(frozen=True)
class _Merged:
    """Each row's distinct items, best first: [B, C], with repeats at the end as nothing."""

    item_ids: Tensor
    scores: Tensor
    interests: Tensor

    @classmethod
    def of(cls, found: TopK) -> _Merged:
        n_rows, n_interests, width = found.item_ids.shape
        ids, scores = found.item_ids.flatten(1), found.scores.flatten(1)
        if n_interests == 1:  # one list is in order and has no repeats
            return cls(ids, scores, torch.zeros_like(ids))
        which = torch.arange(n_interests, device=ids.device).repeat_interleave(width).expand(n_rows, -1)
        ids, order = ids.sort(dim=1)
        scores, which = scores.gather(1, order), which.gather(1, order)
        scores, which, is_repeat = _best_of_runs(ids, scores, which=which, longest=n_interests)
        scores = scores.masked_fill(is_repeat | (ids == NONE), -torch.inf)
        scores, order = scores.sort(dim=1, descending=True)
        return cls(ids.gather(1, order), scores, which.gather(1, order))

    def best(self, *, k: int, excluded: Exclusions | None) -> Retrieved:
        """The first k that are not excluded."""
        allowed = self.scores > -torch.inf
        if excluded is not None:
            allowed &= ~excluded.contains(self.item_ids)
        places = allowed.cumsum(1)
        kept = allowed & (places <= k)
        rows, columns = kept.nonzero(as_tuple=True)
        at = places[rows, columns] - 1
        result = Retrieved(
            self.item_ids.new_full((len(kept), k), NONE),
            self.scores.new_full((len(kept), k), -torch.inf),
            self.interests.new_full((len(kept), k), -1),
        )
        result.item_ids[rows, at] = self.item_ids[rows, columns]
        result.scores[rows, at] = self.scores[rows, columns]
        result.interests[rows, at] = self.interests[rows, columns]
        return result


def _best_of_runs(
    ids: Int64[Tensor, "B C"], scores: Float[Tensor, "B C"], *, which: Int64[Tensor, "B C"], longest: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores and interests with the best of each run of equal ids at its head; True where no head."""
    scores, which = scores.clone(), which.clone()
    for step in range(1, longest):
        same = ids[:, step:] == ids[:, :-step]
        better = same & (scores[:, step:] > scores[:, :-step])
        scores[:, :-step] = torch.where(better, scores[:, step:], scores[:, :-step])
        which[:, :-step] = torch.where(better, which[:, step:], which[:, :-step])
    is_repeat = torch.zeros_like(ids, dtype=torch.bool)
    is_repeat[:, 1:] = ids[:, 1:] == ids[:, :-1]
    return scores, which, is_repeat
