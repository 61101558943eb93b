"""Slow twin of HSTU: plain loops over vectors, float64."""

import math

import torch


def silu(x):
    return x / (1 + torch.exp(-x))


def normed(x, eps=1e-6):
    return (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + eps)


def bucket(seconds):
    return min(max(int(math.log(max(abs(seconds), 1)) / 0.301), 0), 128)


def layer(rows, next_times, times, state, n, n_heads, qk_size, value_size):
    projected = [silu(normed(row) @ state["input"]) for row in rows]
    ends = [n_heads * value_size, 2 * n_heads * value_size]
    ends.append(ends[1] + n_heads * qk_size)
    result = []
    for i in range(len(rows)):
        heads = []
        for h in range(n_heads):
            total = torch.zeros(value_size, dtype=rows[0].dtype)
            query = projected[i][ends[1] + h * qk_size : ends[1] + (h + 1) * qk_size]
            for j in range(i + 1):
                key = projected[j][ends[2] + h * qk_size : ends[2] + (h + 1) * qk_size]
                rab = state["position_bias"][n - 1 + j - i]
                if "time_bias" in state:
                    rab = rab + state["time_bias"][bucket(next_times[i] - times[j])]
                value = projected[j][ends[0] + h * value_size : ends[0] + (h + 1) * value_size]
                total = total + silu(query @ key + rab) / n * value
            heads.append(total)
        gated = projected[i][: ends[0]] * normed(torch.cat(heads))
        result.append(rows[i] + state["output.weight"] @ gated + state["output.bias"])
    return result


def hstu(
    items,
    times,
    request_time,
    state,
    *,
    n,
    n_layers,
    n_heads,
    qk_size,
    value_size,
    n_interests=0,
    recent=False,
):  # fmt: skip
    """One user's vector at the last item [1, D], or those at ``n_interests`` query tokens after it [K, D].

    Without a request time (None) the last item's own is repeated.
    """
    width = items[0].shape[0]
    rows = [math.sqrt(width) * item + state["positions"][t] for t, item in enumerate(items)]
    now = times[-1] if request_time is None else request_time
    for r in range(n_interests):
        begins_at = recent and r < len(items)
        rows.append(state["queries"][r] + (rows[len(items) - 1 - r] if begins_at else 0))
    next_times, times = [*times[1:], *[now] * (1 + n_interests)], [*times, *[now] * n_interests]
    for number in range(n_layers):
        prefix = f"blocks.{number}."
        own = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
        rows = layer(rows, next_times, times, own, n, n_heads, qk_size, value_size)
    return torch.stack(rows[-max(n_interests, 1) :])
