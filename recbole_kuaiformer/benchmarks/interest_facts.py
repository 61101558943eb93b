"""What the interests of a model do: who finds what, how far apart they are, how pure their lists are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from recbole_kuaiformer.benchmarks.diversity import pair_diversity
from recbole_kuaiformer.benchmarks.encoded_users import Users
from recbole_kuaiformer.index.choose import build_index
from recbole_kuaiformer.index.multi_interest import Exclusions, retrieve

USERS_AT_ONCE = 1024
KINDS = ("main", "minor", "new")  # of a target's category
POPULARITY = ("head", "tail")  # of a target itself
HEAD = 0.1  # share of the items, the most popular ones, that are the head


@dataclass(frozen=True)
class Facts:
    """Numbers about the test users' interests; means over users unless said otherwise.

    Attributes:
        interests: how many a user has. Copies, which stand in for missing ones (MIND), count nowhere.
        wins: [K] share of the targets that each interest is nearest to.
        found: [K] share of the merged lists that each interest found.
        cosines: [K, K] between the interests of one user.
        overlap: share of the items in two interests' own lists that are in both (Jaccard), over all pairs.
        purity_own: share of the pairs of an interest's own list that are of one category, [K].
        purity_merged: the same of the merged list.
        hits: by kind of target, the share of them in the merged list (HR@k). ``main`` is of the category
            that the user has had most items of, ``minor`` of another one that the user has had, ``new`` of
            one that the user has not had; targets of unknown category count in none of these. ``head`` and
            ``tail``: the target is one of the most popular tenth of the items, or of the others.
        targets: how many there are of each kind.
        head: share of the merged lists' items that are of the most popular tenth of the items.
        k: length of the lists.
    """

    interests: float
    wins: list[float]
    found: list[float]
    cosines: list[list[float]]
    overlap: float
    purity_own: list[float]
    purity_merged: float
    hits: dict[str, float]
    targets: dict[str, int]
    head: float
    k: int

    @property
    def effective_interests(self) -> float:
        """Exp of the entropy of ``wins``: K where all win alike, 1 where one wins everything."""
        return math.exp(-sum(share * math.log(share) for share in self.wins if share > 0))

    @property
    def cosine(self) -> float | None:
        """Between two interests of one user, over all pairs; None for a single interest."""
        n = len(self.cosines)
        pairs = [self.cosines[i][j] for i in range(n) for j in range(i)]
        pairs = [cosine for cosine in pairs if not math.isnan(cosine)]
        return sum(pairs) / len(pairs) if pairs else None


def facts(users: Users, *, categories: Int64[Tensor, " N"], k: int) -> Facts:
    """Look at every interest's own list and at the merged one.

    Args:
        users: of the test split.
        categories: of each item id, 0 where it is unknown.
        k: length of the lists.
    """
    index, _ = build_index("auto", users.items)
    categories = categories.to(users.items.device)
    n_interests = users.interests.shape[1]
    first = first_equal(users.interests)
    is_real = first == torch.arange(n_interests, device=first.device)
    merged = retrieve(index, users.interests, k=k, excluded=users.excluded)
    found_by = first.gather(1, merged.interests.clamp(min=0))[merged.interests >= 0]
    own = torch.stack(
        [
            retrieve(index, users.interests[:, [r]].contiguous(), k=k, excluded=users.excluded).item_ids
            for r in range(n_interests)
        ],
        1,
    )  # [U, K, k]
    scores = torch.einsum("ukd,ud->uk", users.interests, users.items[users.targets])
    winners = scores.masked_fill(~is_real, -torch.inf).argmax(1)
    unit = torch.nn.functional.normalize(users.interests, dim=-1)
    are_both = is_real[:, :, None] & is_real[:, None, :]
    cosines = (torch.einsum("ukd,uld->ukl", unit, unit) * are_both).sum(0) / are_both.sum(0)
    is_hit = (merged.item_ids == users.targets[:, None]).any(1)
    kinds = kinds_of_targets(users.targets, history=users.history, categories=categories)
    is_head = head_of(users.history, n_items=len(users.items))
    popular = is_head[users.targets]
    of_kind = {
        "all": torch.ones_like(is_hit),
        **{name: kinds == i for i, name in enumerate(KINDS)},
        **dict(zip(POPULARITY, (popular, ~popular))),
    }
    return Facts(
        interests=_mean(is_real.sum(1)),
        wins=_shares(winners, n_interests),
        found=_shares(found_by, n_interests),
        cosines=cosines.tolist(),
        overlap=_overlap(own, are_both=are_both),
        purity_own=[_purity(own[is_real[:, r], r], categories) for r in range(n_interests)],
        purity_merged=_purity(merged.item_ids, categories),
        hits={name: _mean(is_hit[chosen]) for name, chosen in of_kind.items()},
        targets={name: int(chosen.sum()) for name, chosen in of_kind.items()},
        head=_mean(is_head[merged.item_ids[merged.item_ids > 0]]),
        k=k,
    )


def first_equal(interests: Float[Tensor, "U K D"]) -> Int64[Tensor, "U K"]:
    """The first interest of the user that is equal to each one: itself, unless it is a copy.

    >>> first_equal(torch.tensor([[[1.0], [2.0], [1.0]]])).tolist()
    [[0, 1, 0]]
    """
    same = (interests[:, :, None] == interests[:, None]).all(-1)
    return same.int().argmax(-1)


def head_of(history: Exclusions, *, n_items: int) -> Bool[Tensor, " N"]:
    """Whether an item is of the tenth that most users have had, of equally popular ones those of low number.

    >>> had = Exclusions.of(torch.tensor([0, 1, 1]), torch.tensor([2, 2, 3]))
    >>> head_of(had, n_items=5).tolist()
    [False, False, True, False, False]
    """
    counts = torch.bincount(history.item_ids, minlength=n_items)[1:]  # 0 is padding
    popular = counts.argsort(descending=True, stable=True)[: math.ceil(HEAD * len(counts))] + 1
    return torch.zeros(n_items, dtype=torch.bool, device=counts.device).index_fill(0, popular, True)


def kinds_of_targets(
    targets: Int64[Tensor, " U"], *, history: Exclusions, categories: Int64[Tensor, " N"]
) -> Int64[Tensor, " U"]:
    """Place in KINDS of each target's category, −1 where it is unknown, [U].

    Of two categories that a user has had equally often the lower number counts as the main one.
    """
    kinds = targets.new_full(targets.shape, -1)
    width = int(categories.max()) + 1
    for block in torch.arange(len(targets), device=targets.device).split(USERS_AT_ONCE):
        pairs = history.of_rows(block)
        of_items = categories[pairs.item_ids]
        counts = torch.bincount(pairs.rows * width + of_items, minlength=len(block) * width)
        counts = counts.view(len(block), width)
        counts[:, 0] = 0
        wanted = categories[targets[block]]
        had = counts.gather(1, wanted[:, None]).squeeze(1) > 0
        kind = torch.where(had, torch.where(counts.argmax(1) == wanted, 0, 1), 2)
        kinds[block] = torch.where(wanted > 0, kind, -1)
    return kinds


def as_row(found: Facts) -> Mapping[str, float | None]:
    """The main numbers, by the names that the table has for them."""
    return {
        "interests of a user": found.interests,
        "effective interests": found.effective_interests,
        "largest share of targets": max(found.wins),
        "smallest share": min(found.wins),
        "cosine of two interests": found.cosine,
        f"overlap of two lists of {found.k}": found.overlap if len(found.wins) > 1 else None,
        "purity of an interest's list": _mean(
            torch.tensor([one for one in found.purity_own if not math.isnan(one)], dtype=torch.float64)
        ),
        "purity of the merged list": found.purity_merged,
        f"share of the head (top {HEAD:.0%})": found.head,
        **{f"HR@{found.k}, {name}": found.hits[name] for name in ("all", *KINDS, *POPULARITY)},
    }


def _shares(numbers: Int64[Tensor, " M"], n: int) -> list[float]:
    return (torch.bincount(numbers, minlength=n) / max(1, len(numbers))).tolist()


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if len(values) else math.nan


def _purity(lists: Int64[Tensor, "U k"], categories: Int64[Tensor, " N"]) -> float:
    parts = lists.split(USERS_AT_ONCE)
    return _mean(torch.cat([1 - pair_diversity(categories[part]) for part in parts]))


def _overlap(own: Int64[Tensor, "U K k"], *, are_both: Bool[Tensor, "U K K"]) -> float:
    n_interests = own.shape[1]
    values = []
    for i in range(n_interests):
        for j in range(i):
            chosen = are_both[:, i, j]
            parts = (own[chosen, place].split(USERS_AT_ONCE) for place in (i, j))
            for one, other in zip(*parts):
                is_there = one > 0  # short lists end in padding
                both = ((one[:, :, None] == other[:, None, :]).any(2) & is_there).sum(1)
                values.append(both / (is_there.sum(1) + (other > 0).sum(1) - both))
    return _mean(torch.cat(values)) if values else math.nan
