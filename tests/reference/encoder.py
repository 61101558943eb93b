"""Slow twins of the encoder's equations: plain loops over lists of vectors, float64."""

import math

import torch


def layer_norm_rms(x, weight, eps=1e-6):
    return x / torch.sqrt((x * x).mean() + eps) * weight


def turned(vector, position, base=10_000.0):
    """Rotary position: dimension i and i + E/2 are one plane."""
    half = len(vector) // 2
    out = vector.clone()
    for i in range(half):
        angle = position * base ** (-2 * i / len(vector))
        a, b = vector[i], vector[i + half]
        out[i] = a * math.cos(angle) - b * math.sin(angle)
        out[i + half] = b * math.cos(angle) + a * math.sin(angle)
    return out


def attention(rows, positions, sees, qkv, out, n_heads):
    """Eq. 6, attention part: rows [T] of vectors; sees(i, j) says whether i sees j."""
    width = rows[0].shape[0]
    size = width // n_heads
    projected = [qkv @ row for row in rows]
    result = []
    for i in range(len(rows)):
        heads = []
        for h in range(n_heads):
            query = turned(projected[i][h * size : (h + 1) * size], positions[i])
            scores, values = [], []
            for j in range(len(rows)):
                if sees(i, j):
                    key = turned(projected[j][width + h * size : width + (h + 1) * size], positions[j])
                    scores.append(float(query @ key) / math.sqrt(size))
                    values.append(projected[j][2 * width + h * size : 2 * width + (h + 1) * size])
            top = max(scores)
            weights = [math.exp(s - top) for s in scores]
            heads.append(sum(w * v for w, v in zip(weights, values)) / sum(weights))
        result.append(out @ torch.cat(heads))
    return result


def feed_forward(row, gate_up, down):
    inner = gate_up.shape[0] // 2
    gate, up = gate_up[:inner] @ row, gate_up[inner:] @ row
    return down @ (gate / (1 + torch.exp(-gate)) * up)


def block(rows, positions, sees, state, n_heads):
    """Eq. 6: pre-norm attention and SwiGLU, each with a residual."""
    normed = [layer_norm_rms(row, state["attention_norm.weight"]) for row in rows]
    mixed = attention(
        normed,
        positions,
        sees,
        state["attention.query_key_value.weight"],
        state["attention.output.weight"],
        n_heads,
    )
    rows = [row + add for row, add in zip(rows, mixed)]
    if "feed_forward.0.weight" not in state:
        return rows
    return [
        row
        + feed_forward(
            layer_norm_rms(row, state["feed_forward.0.weight"]),
            state["feed_forward.1.gate_up.weight"],
            state["feed_forward.1.down.weight"],
        )
        for row in rows
    ]


def part(state, prefix):
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def kuaiformer(items, state, *, groups, recent_length, block_size, n_layers, n_heads, end="oldest"):
    """Eq. 7 and 8 for one user: interests of a target that comes after the last of ``items``.

    Groups are counted from the newest item backwards; a group without an item gives no token. Blocks are
    counted from a group's newest item backwards, and see only themselves. With ``end`` newest all of that is
    counted from the other side.
    """
    items = list(items)[:: 1 if end == "oldest" else -1]
    recent = items[max(len(items) - recent_length, 0) :]
    old = items[: len(items) - len(recent)]
    tokens = []
    for size in reversed(groups):
        group, old = old[max(len(old) - size, 0) :], old[: max(len(old) - size, 0)]
        if group:
            # positions inside a group that is not full: only their differences matter
            mixed = []
            for stop in range(len(group), 0, -block_size):
                some = group[max(stop - block_size, 0) : stop]
                mixed += block(
                    some, range(len(some)), lambda i, j: True, part(state, "compression.layer."), n_heads
                )
            tokens.insert(0, sum(mixed) / len(group))
    queries = list(state["queries"])
    rows = (tokens + recent)[:: 1 if end == "oldest" else -1] + queries
    for number in range(n_layers):
        rows = block(rows, range(len(rows)), lambda i, j: j <= i, part(state, f"blocks.{number}."), n_heads)
    return torch.stack([layer_norm_rms(row, state["norm.weight"]) for row in rows[-len(queries) :]])
