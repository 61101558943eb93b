"""Slow twin of the softmax: double loops over Python floats."""

import math


def row_loss(positive, scores, negative, log_q, positive_log_q, *, unique, logq, alpha, form):
    """Loss of one row; scores, negative, log_q are lists over its columns."""
    n = sum(negative)
    kept = []
    for s, is_negative, lq in zip(scores, negative, log_q):
        if not is_negative:
            continue
        if logq == "both" or (logq == "negatives" and unique):
            kept.append(s - lq)
        elif logq == "negatives":
            kept.append(s - math.log(n * math.exp(lq) / (1 - math.exp(positive_log_q))))
        else:
            kept.append(s)
    own = positive - positive_log_q if logq == "both" else positive
    top = max([own, *kept])
    total = sum(math.exp(s - top) for s in [own, *kept])
    log_p = [s - top - math.log(total) for s in [own, *kept]]
    loss = -(1 - alpha) * log_p[0]
    if alpha and form == "paper":
        for j in range(1, len(log_p)):
            rest = sum(math.exp(s - top) for i, s in enumerate([own, *kept]) if i != j)
            loss -= alpha / len(scores) * (math.log(rest) - math.log(total))
    elif alpha:
        loss -= alpha / len(log_p) * sum(log_p)
    return loss


def streaming(steps, n_items, *, rate, initial_gap):
    """Yi et al., Algorithm 2, one slot per item: gap of each item after the given steps (sets of ids)."""
    last, gap = [0] * n_items, [initial_gap] * n_items
    for t, ids in enumerate(steps, start=1):
        for i in ids:
            gap[i] = (1 - rate) * gap[i] + rate * (t - last[i])
            last[i] = t
    return gap
