"""MIND's encoder: behaviour-to-interest routing with a shared transform (Li et al., arXiv 1904.08030)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from recbole_kuaiformer.encoders.alignment import left_aligned
from recbole_kuaiformer.layers.capsule_routing import route


class MINDEncoder(nn.Module):
    """û_t = S e_t, routed to K'_u = max(1, min(K, log2 |history|)) interests.

    Unlike the paper, b is drawn once and kept: drawn anew, an evaluation would not repeat itself. A user
    with fewer than K interests repeats real ones.

    Args:
        hidden_size: D.
        n_interests: K.
        max_length: L.
        n_rounds: rounds of routing.
    """

    initial_logits: Tensor

    def __init__(self, hidden_size: int, *, n_interests: int, max_length: int, n_rounds: int) -> None:
        super().__init__()
        self.transform = nn.Linear(hidden_size, hidden_size, bias=False)
        self.register_buffer("initial_logits", torch.randn(max_length, n_interests))
        self.n_rounds = n_rounds

    def forward(
        self, tokens: Float[Tensor, "B L D"], *, valid: Bool[Tensor, "B L"], n_unseen: Int[Tensor, "B P"]
    ) -> Float[Tensor, "B P K D"]:
        """K interests for each target, of which K'_u differ; zero for a target that sees nothing."""
        tokens, seen = left_aligned(tokens, valid=valid, n_unseen=n_unseen)
        n_interests = self.initial_logits.shape[1]
        votes = self.transform(tokens)[:, :, None].expand(-1, -1, n_interests, -1)
        of_user = interest_counts(seen.sum(-1), n_interests=n_interests)
        numbers = torch.arange(n_interests, device=tokens.device)
        capsules = route(
            votes,
            seen=seen,
            present=numbers < of_user[..., None],
            logits=self.initial_logits[None, None, : tokens.shape[1]],
            n_rounds=self.n_rounds,
        )
        real = numbers % of_user[..., None]
        return capsules.gather(2, real[..., None].expand_as(capsules))


def interest_counts(lengths: Int[Tensor, "*B"], *, n_interests: int) -> Int[Tensor, "*B"]:
    """K'_u = max(1, min(K, log2 |history|)), rounded down.

    >>> interest_counts(torch.tensor([0, 1, 2, 3, 4, 7, 8, 500]), n_interests=4).tolist()
    [1, 1, 1, 1, 2, 2, 3, 4]
    """
    exponent = torch.frexp(lengths.clamp(min=1).double()).exponent.to(lengths.dtype) - 1
    return exponent.clamp(min=1, max=n_interests)
