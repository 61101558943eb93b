"""Who may look at whom: the boolean masks of attention, True where visible, and how attention takes them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def causal_visibility(valid: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T T"]:
    """Token i sees the valid tokens up to i, and always itself (a softmax over nothing is NaN).

    >>> causal_visibility(torch.tensor([[False, True, True]]))[0].int()
    tensor([[1, 0, 0],
            [0, 1, 0],
            [0, 1, 1]], dtype=torch.int32)
    """
    n_tokens = valid.shape[1]
    lower = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=valid.device).tril()
    return (lower & valid[:, None, :]) | _itself(n_tokens, device=valid.device)


def group_visibility(valid: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T T"]:
    """Token i sees every valid token of its group, before and after it, and always itself."""
    n_tokens = valid.shape[1]
    return valid[:, None, :].expand(-1, n_tokens, -1) | _itself(n_tokens, device=valid.device)


def query_visibility(
    valid: Bool[Tensor, "B T"], *, n_seen: Int[Tensor, "B P"], n_queries: int
) -> Bool[Tensor, "B S S"]:
    """Visibility of [T history tokens | K queries of target 1 | … | K queries of target P].

    A history token sees the history up to itself. Query r of target p sees the valid ones among the
    first ``n_seen[b, p]`` history tokens, and the queries of its own target up to itself. Nothing else
    sees a query (Eq. 8 of KuaiFormer, for several targets at once).

    Args:
        valid: True where the history token is real.
        n_seen: number of leading history tokens (columns, valid or not) that a target may see.
        n_queries: K.
    """
    (n_rows, n_tokens), n_targets = valid.shape, n_seen.shape[1]
    columns = torch.arange(n_tokens, device=valid.device)
    seen = (columns < n_seen[:, :, None]) & valid[:, None, :]
    query_to_history = seen.repeat_interleave(n_queries, dim=1)
    own = torch.ones(n_queries, n_queries, dtype=torch.bool, device=valid.device).tril()
    query_to_query = torch.block_diag(*[own] * n_targets).expand(n_rows, -1, -1)
    history_to_query = valid.new_zeros(n_rows, n_tokens, n_targets * n_queries)
    return torch.cat(
        [
            torch.cat([causal_visibility(valid), history_to_query], dim=2),
            torch.cat([query_to_history, query_to_query], dim=2),
        ],
        dim=1,
    )


def attention_bias(visible: Bool[Tensor, "B S T"]) -> Float[Tensor, "B 1 S T"]:
    """What attention adds to its logits: 0 where visible, −∞ elsewhere.

    Attention makes it of a boolean mask in every layer; made once it serves all of them.

    >>> attention_bias(torch.tensor([[[True, False]]]))
    tensor([[[[0., -inf]]]])
    """
    return 1 - visible[:, None].to(torch.float32).reciprocal_()


def _itself(n_tokens: int, *, device: torch.device) -> Bool[Tensor, "T T"]:
    return torch.eye(n_tokens, dtype=torch.bool, device=device)
