"""ComiRec's two encoders: self-attentive and dynamic-routing interests (Cen et al., arXiv 2005.09347)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from recbole_kuaiformer.encoders.alignment import left_aligned
from recbole_kuaiformer.layers.capsule_routing import route


class ComiRecSAEncoder(nn.Module):
    """A = softmax over t of W2 tanh(W1 (E + P)); interests = A · E, without the positions P.

    Args:
        hidden_size: D; W1 is D → 4 D, W2 is 4 D → K, both with bias.
        n_interests: K.
        max_length: L, learned positions counted from the oldest item.
    """

    def __init__(self, hidden_size: int, *, n_interests: int, max_length: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(max_length, hidden_size) * hidden_size**-0.5)
        self.inner = nn.Linear(hidden_size, 4 * hidden_size)
        self.attention = nn.Linear(4 * hidden_size, n_interests)

    def forward(
        self, tokens: Float[Tensor, "B L D"], *, valid: Bool[Tensor, "B L"], n_unseen: Int[Tensor, "B P"]
    ) -> Float[Tensor, "B P K D"]:
        """K interests for each target; zero for a target that sees nothing."""
        tokens, seen = left_aligned(tokens, valid=valid, n_unseen=n_unseen)
        logits = self.attention(torch.tanh(self.inner(tokens + self.positions[: tokens.shape[1]])))
        of_targets = logits[:, None].masked_fill(~seen[..., None], -torch.inf)
        weights = of_targets.softmax(2).nan_to_num(0.0)  # a target that sees nothing has no softmax
        return torch.einsum("bplk,bld->bpkd", weights, tokens)


class ComiRecDREncoder(nn.Module):
    """û_tk = W_tk e_t, routed to K interests in three rounds from b = 0.

    Args:
        hidden_size: D.
        n_interests: K.
        max_length: L.
        n_rounds: rounds of routing.
        shared_transform: one W_k for all positions instead of a W_tk for each.
    """

    def __init__(
        self, hidden_size: int, *, n_interests: int, max_length: int, n_rounds: int, shared_transform: bool
    ) -> None:
        super().__init__()
        n_positions = 1 if shared_transform else max_length
        self.transform = nn.Parameter(
            torch.randn(n_positions, n_interests, hidden_size, hidden_size) * hidden_size**-0.5
        )
        self.n_rounds = n_rounds

    def forward(
        self, tokens: Float[Tensor, "B L D"], *, valid: Bool[Tensor, "B L"], n_unseen: Int[Tensor, "B P"]
    ) -> Float[Tensor, "B P K D"]:
        """K interests for each target; zero for a target that sees nothing."""
        tokens, seen = left_aligned(tokens, valid=valid, n_unseen=n_unseen)
        n_columns = tokens.shape[1]
        transform = self.transform[:n_columns].expand(n_columns, -1, -1, -1)
        votes = torch.einsum("lkde,ble->blkd", transform, tokens)
        present = seen.new_ones(*seen.shape[:2], votes.shape[2])
        logits = votes.new_zeros(1, 1, n_columns, votes.shape[2])
        return route(votes, seen=seen, present=present, logits=logits, n_rounds=self.n_rounds)
