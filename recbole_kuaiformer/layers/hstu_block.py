"""The block of HSTU (Zhai et al., arXiv 2402.17152), dense form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

N_TIME_BUCKETS = 129
BUCKET_WIDTH = 0.301  # of ln(seconds): a factor of 1.35
EPSILON = 1e-6


def time_buckets(seconds: Int64[Tensor, "*batch"]) -> Int64[Tensor, "*batch"]:
    """β(Δ) = clamp(int(ln(max(|Δ|, 1)) / .301), 0, 128).

    >>> time_buckets(torch.tensor([0, 1, -60, 3600, 86_400, 604_800])).tolist()
    [0, 0, 13, 27, 37, 44]
    """
    logs = seconds.abs().clamp(min=1).double().log()
    return (logs / BUCKET_WIDTH).long().clamp(max=N_TIME_BUCKETS - 1)


@dataclass(frozen=True)
class Relation:
    """How S rows stand to T tokens.

    Attributes:
        visible: [B, S, T] True where row i sees token j.
        distances: [#B, S, T] j − i in positions, above −n and below n.
        buckets: [B, S, T] β of the row's time minus the token's; None for a block without times.
    """

    visible: Tensor
    distances: Tensor
    buckets: Tensor | None


class HSTUBlock(nn.Module):
    """[U, V, Q, K] = split(SiLU(LN(X) W)); Y = X + W_o Dropout(U ⊙ LN(SiLU(Q Kᵀ + rab) / n · V)) + b_o.

    Attention weights are no softmax: SiLU divided by a constant, so how much of something a history holds
    comes through. Layer norms have no weights.

    Args:
        hidden_size: D.
        n_heads: heads; they share the bias rab.
        qk_size: width of a head's queries and keys.
        value_size: width of a head's values and gates.
        n: the constant that divides the attention; positions lie within it.
        use_times: whether rab has a part for time differences.
        dropout_prob: dropout on the gated output.
    """

    def __init__(
        self,
        hidden_size: int,
        *,
        n_heads: int,
        qk_size: int,
        value_size: int,
        n: int,
        use_times: bool,
        dropout_prob: float,
    ) -> None:
        super().__init__()
        self.n_heads, self.n = n_heads, n
        self.sizes = [n_heads * size for size in (value_size, value_size, qk_size, qk_size)]
        self.input = nn.Parameter(torch.randn(hidden_size, sum(self.sizes)) * 0.02)
        self.output = nn.Linear(n_heads * value_size, hidden_size)
        nn.init.xavier_uniform_(self.output.weight)
        self.dropout = nn.Dropout(dropout_prob)
        self.position_bias = nn.Parameter(torch.randn(2 * n - 1) * 0.02)
        self.time_bias = nn.Parameter(torch.randn(N_TIME_BUCKETS) * 0.02) if use_times else None

    def forward(self, tokens: Float[Tensor, "B T D"], *, relation: Relation) -> Float[Tensor, "B T D"]:
        """The tokens (X) after one block, each a row of the relation to all of them."""
        gate, value, query, key = self._projected(tokens)
        return self._added(tokens, gate, self._weights(query, key, relation) @ value)

    def with_ends(
        self,
        tokens: Float[Tensor, "B T D"],
        ends: Float[Tensor, "B P D"],
        *,
        relation: Relation | None,
        of_ends: Relation,
        group: int = 1,
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B P D"]]:
        """Tokens and ends after one block; no token sees an end.

        An end sees the tokens it is told to, the ends before it in its group, and itself. The same as a
        sequence of tokens and one group, for each group.

        Args:
            tokens: as in ``forward``.
            ends: rows of their own: groups of equal size, one after the other. A group's follow one another
                in position, at one time.
            relation: of the tokens to one another; None where they are not needed any more, as after the
                last block: they come back as they were.
            of_ends: of the ends to the tokens.
            group: ends of a group; divides P.
        """
        gate, value, query, key = self._projected(tokens)
        own_gate, *own = self._projected(ends)
        mixed = self._weights(own[1], key, of_ends) @ value + self._in_groups(*own, size=group)
        ends = self._added(ends, own_gate, mixed)
        if relation is None:
            return tokens, ends
        return self._added(tokens, gate, self._weights(query, key, relation) @ value), ends

    def _projected(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """U [B, T, h · d_v], and V, Q, K of each head [B, h, T, d]."""
        mapped = silu(layer_norm(tokens, (tokens.shape[-1],), eps=EPSILON) @ self.input)
        gate, *heads = mapped.split(self.sizes, dim=-1)
        value, query, key = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in heads)
        return gate, value, query, key

    def _weights(self, query: Tensor, key: Tensor, relation: Relation) -> Tensor:
        bias = self.position_bias[self.n - 1 + relation.distances]
        if self.time_bias is not None:
            bias = bias + self.time_bias[relation.buckets]
        # Masked after the SiLU: SiLU(−inf) is NaN.
        weights = self._attention(query @ key.transpose(-1, -2), bias[:, None])
        return weights * relation.visible[:, None]

    def _in_groups(self, value: Tensor, query: Tensor, key: Tensor, *, size: int) -> Tensor:
        """What ends take from those of their group up to themselves: [B, h, P, d_v]."""
        value, query, key = (part.unflatten(2, (-1, size)) for part in (value, query, key))
        steps = torch.arange(size, device=key.device)
        distances = steps - steps[:, None]
        bias = self.position_bias[self.n - 1 + distances]
        if self.time_bias is not None:
            bias = bias + self.time_bias[0]
        # Few rows: products of single vectors, not of matrices.
        products = (query[..., :, None, :] * key[..., None, :, :]).sum(-1)
        weights = self._attention(products, bias) * (distances <= 0)
        return (weights[..., None] * value[..., None, :, :]).sum(-2).flatten(2, 3)

    def _attention(self, products: Tensor, bias: Tensor) -> Tensor:
        return silu(products + bias) / self.n

    def _added(self, tokens: Tensor, gate: Tensor, mixed: Tensor) -> Tensor:
        mixed = mixed.transpose(1, 2).flatten(2)
        gated = gate * layer_norm(mixed, (mixed.shape[-1],), eps=EPSILON)
        return tokens + self.output(self.dropout(gated))  # type: ignore[no-any-return]
