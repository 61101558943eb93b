"""The block of HSTU (Zhai et al., arXiv 2402.17152), dense form."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
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

    def forward(
        self,
        tokens: Float[Tensor, "B T D"],
        *,
        visible: Bool[Tensor, "B T T"],
        distances: Int64[Tensor, "#B T T"],
        buckets: Int64[Tensor, "B T T"] | None,
    ) -> Float[Tensor, "B T D"]:
        """The tokens after one block.

        Args:
            tokens: X.
            visible: True where row i sees column j.
            distances: j − i in positions, above −n and below n.
            buckets: β of the row's time minus the column's; needed with ``use_times``.
        """
        width = tokens.shape[-1]
        mapped = silu(layer_norm(tokens, (width,), eps=EPSILON) @ self.input)
        gate, *heads = mapped.split(self.sizes, dim=-1)
        value, query, key = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in heads)
        bias = self.position_bias[self.n - 1 + distances]
        if self.time_bias is not None:
            bias = bias + self.time_bias[buckets]
        # Masked after the SiLU: SiLU(−inf) is NaN.
        weights = silu(query @ key.transpose(-1, -2) + bias[:, None]) / self.n * visible[:, None]
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        gated = gate * layer_norm(mixed, (mixed.shape[-1],), eps=EPSILON)
        return tokens + self.output(self.dropout(gated))  # type: ignore[no-any-return]
