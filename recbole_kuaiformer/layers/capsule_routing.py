"""Dynamic routing between capsules: behaviours vote for interests."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def squash(vectors: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    """|s|² / (1 + |s|²) · s / |s|: direction kept, length below 1; zero stays zero."""
    squared = (vectors * vectors).sum(-1, keepdim=True)
    return vectors * squared / (1 + squared) / (squared + 1e-9).sqrt()


def route(
    votes: Float[Tensor, "B L K D"],
    *,
    seen: Bool[Tensor, "B P L"],
    present: Bool[Tensor, "B P K"],
    logits: Float[Tensor, "#B #P L K"],
    n_rounds: int,
) -> Float[Tensor, "B P K D"]:
    """Interests v_k out of votes û_tk (ComiRec, arXiv 2005.09347; MIND, arXiv 1904.08030).

    Each round: c = softmax over the **interests** of b, zero where nothing is seen; s_k = Σ_t c_tk û_tk;
    v = squash(s); b += û · v. Gradient flows through the last round only.

    Args:
        votes: û, what behaviour t says of interest k.
        seen: True where behaviour t may speak for target p.
        present: True where target p has interest k; an absent one gets no share, and comes out as zero.
        logits: b before the first round.
        n_rounds: how many rounds, at least 1.
    """
    logits = logits.expand(seen.shape[0], seen.shape[1], -1, -1)
    fixed = votes.detach()
    for _ in range(n_rounds - 1):
        capsules = _capsules(fixed, shares(logits, seen=seen, present=present))
        logits = logits + torch.einsum("blkd,bpkd->bplk", fixed, capsules)
    return _capsules(votes, shares(logits, seen=seen, present=present))


def shares(
    logits: Float[Tensor, "B P L K"], *, seen: Bool[Tensor, "B P L"], present: Bool[Tensor, "B P K"]
) -> Float[Tensor, "B P L K"]:
    """c_tk: how each behaviour divides itself among the interests; they sum to one where it is seen."""
    share = logits.masked_fill(~present[:, :, None], -torch.inf).softmax(-1)
    return share * seen[..., None]


def _capsules(votes: Tensor, share: Tensor) -> Tensor:
    return squash(torch.einsum("bplk,blkd->bpkd", share, votes))
