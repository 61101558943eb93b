"""The pre-norm transformer block of GPT-2's time."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from recbole_kuaiformer.layers.attention import Attention
from recbole_kuaiformer.layers.dropout import Dropout


class PreNormBlock(nn.Module):
    """LayerNorm → attention → residual; LayerNorm → W2 ReLU(W1 x + b1) + b2 → residual.

    Args:
        hidden_size: D, width of the tokens.
        n_heads: H attention heads, without biases and without rotary positions.
        inner_size: width inside the feed-forward part.
        hidden_dropout_prob: dropout on what each part adds to the residual stream.
        attn_dropout_prob: dropout on attention weights.
    """

    def __init__(
        self,
        hidden_size: int,
        *,
        n_heads: int,
        inner_size: int,
        hidden_dropout_prob: float,
        attn_dropout_prob: float,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.attention = Attention(hidden_size, n_heads=n_heads, dropout_prob=attn_dropout_prob)
        self.dropout = Dropout(hidden_dropout_prob)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(hidden_size),
            nn.Linear(hidden_size, inner_size),
            nn.ReLU(),
            nn.Linear(inner_size, hidden_size),
        )

    def forward(
        self, tokens: Float[Tensor, "B T D"], *, bias: Float[Tensor, "B 1 S T"]
    ) -> Float[Tensor, "B S D"]:
        """The last S tokens after one block; ``bias`` as in ``Attention.forward``."""
        mixed = self.attention(self.attention_norm(tokens), bias=bias, rotation=None)
        tokens = tokens[:, -bias.shape[2] :] + self.dropout(mixed)
        return tokens + self.dropout(self.feed_forward(tokens))  # type: ignore[no-any-return]
