"""Slow twins of the baselines' encoders: plain loops over lists of vectors, float64."""

import math

import torch


def softmax(values):
    top = max(values)
    exps = [math.exp(value - top) for value in values]
    return [value / sum(exps) for value in exps]


def squash(vector):
    length = math.sqrt(float(vector @ vector))
    return vector * 0 if length == 0 else length**2 / (1 + length**2) * vector / length


def comirec_sa(history, state):
    """A = softmax_t(W2 tanh(W1 (e_t + p_t) + b1) + b2); interests = A · E."""
    logits = []
    for t, item in enumerate(history):
        inner = torch.tanh(state["inner.weight"] @ (item + state["positions"][t]) + state["inner.bias"])
        logits.append(state["attention.weight"] @ inner + state["attention.bias"])
    interests = []
    for k in range(len(logits[0])):
        weights = softmax([float(one[k]) for one in logits])
        interests.append(sum(weight * item for weight, item in zip(weights, history)))
    return torch.stack(interests)


def routed(votes, logits, n_rounds):
    """votes[t][k] → capsules and the last shares; the softmax runs over the interests k."""
    logits = [list(row) for row in logits]
    for step in range(n_rounds):
        shares = [softmax(row) for row in logits]
        capsules = [
            squash(sum(shares[t][k] * votes[t][k] for t in range(len(votes)))) for k in range(len(votes[0]))
        ]
        if step < n_rounds - 1:
            for t, row in enumerate(votes):
                for k, vote in enumerate(row):
                    logits[t][k] += float(vote @ capsules[k])
    return torch.stack(capsules), shares


def comirec_dr(history, transform, n_rounds):
    """transform[t][k]: W_tk; one entry of t stands for all where it is shared."""
    n_interests = len(transform[0])
    votes = [
        [transform[min(t, len(transform) - 1)][k] @ item for k in range(n_interests)]
        for t, item in enumerate(history)
    ]
    return routed(votes, [[0.0] * n_interests for _ in history], n_rounds)[0]


def mind(history, transform, initial, n_rounds):
    """K'_u = max(1, min(K, log2 |history|)) capsules; the others repeat them in turn."""
    n_real = max(1, min(len(initial[0]), int(math.log2(len(history)))))
    votes = [[transform @ item] * n_real for item in history]
    logits = [[float(value) for value in initial[t][:n_real]] for t in range(len(history))]
    capsules = routed(votes, logits, n_rounds)[0]
    return torch.stack([capsules[k % n_real] for k in range(len(initial[0]))])
