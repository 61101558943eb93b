"""Slow twin of PinnerFormer's encoder: plain loops over one history, float64."""

import math

import torch

from tests.reference.encoder import attention, part


def layer_norm(x, weight, bias, eps=1e-5):
    centred = x - x.mean()
    return centred / torch.sqrt((centred * centred).mean() + eps) * weight + bias


def gelu(x):
    return torch.stack([v * 0.5 * (1 + math.erf(float(v) / math.sqrt(2))) for v in x])


def pinnerformer(history, state, *, n_layers, n_heads):
    """The vector after the last of the history's tokens, not yet of length 1: [1, D]."""
    rows = [token + state["positions"][i] for i, token in enumerate(history)]
    for number in range(n_layers):
        own = part(state, f"blocks.{number}.")
        norms = own["attention_norm.weight"], own["attention_norm.bias"]
        mixed = attention(
            [layer_norm(row, *norms) for row in rows],
            [0] * len(rows),  # turned by nothing
            lambda i, j: j <= i,
            own["attention.query_key_value.weight"],
            own["attention.output.weight"],
            n_heads,
        )
        rows = [row + add for row, add in zip(rows, mixed)]
        inner = part(own, "feed_forward.")
        rows = [
            row
            + inner["3.weight"]
            @ (
                inner["1.weight"] @ layer_norm(row, inner["0.weight"], inner["0.bias"]) + inner["1.bias"]
            ).clamp(min=0)
            + inner["3.bias"]
            for row in rows
        ]
    out = part(state, "output.")
    return (out["2.weight"] @ gelu(out["0.weight"] @ rows[-1] + out["0.bias"]) + out["2.bias"])[None]
