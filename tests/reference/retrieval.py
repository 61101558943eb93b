"""Slow twins of retrieval: plain loops in float64; nothing of the package is imported."""

import math


def scores_of(items, interests):
    """max_r(u_r · x) for every item of every user (Eq. 9), as nested lists."""
    return [
        [max(sum(a * b for a, b in zip(vector, item)) for vector in user) for item in items]
        for user in interests
    ]


def top_k(scores, *, k, excluded=()):
    """(id, score) of one user's k best, best first, ties by lower id; id 0 and the excluded stay out."""
    ranked = sorted((-score, item) for item, score in enumerate(scores) if item != 0 and item not in excluded)
    return [(item, -score) for score, item in ranked[:k]]


def average_rank(scores, item, *, excluded=()):
    """Rank of an item, ties counted half."""
    others = [s for i, s in enumerate(scores) if i not in (0, item) and i not in excluded]
    return 1 + sum(s > scores[item] for s in others) + sum(s == scores[item] for s in others) / 2


def diverse(ids, scores, *, k, categories, weight):
    """Greedy argmax_i score(i) + weight · #{j chosen: category_i ≠ category_j}; 0 differs from all."""
    chosen, left = [], list(range(len(ids)))
    while left and len(chosen) < k:

        def value(place):
            mine = categories[ids[place]]
            others = sum(mine == 0 or categories[ids[j]] != mine for j in chosen)
            return scores[place] + weight * others

        best = max(left, key=lambda place: (value(place), -place))
        chosen.append(best)
        left.remove(best)
    return [ids[place] for place in chosen]


def ndcg_of_rank(rank, *, k):
    """NDCG@k of one positive item at a rank (1 is best)."""
    return 1 / math.log2(1 + rank) if rank <= k else 0.0
