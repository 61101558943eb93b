"""The pre-norm transformer block of Llama."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from recbole_kuaiformer.layers.attention import Attention
from recbole_kuaiformer.layers.dropout import Dropout
from recbole_kuaiformer.layers.feed_forward import FeedForward
from recbole_kuaiformer.layers.rms_norm import RMSNorm


class LlamaBlock(nn.Module):
    """RMSNorm → attention → residual; RMSNorm → SwiGLU → residual (Eq. 6 of KuaiFormer).

    Args:
        hidden_size: D, width of the tokens.
        n_heads: H attention heads.
        inner_size: width inside the feed-forward part; 0 leaves that part out.
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
        self.attention_norm = RMSNorm(hidden_size)
        self.attention = Attention(hidden_size, n_heads=n_heads, dropout_prob=attn_dropout_prob)
        self.dropout = Dropout(hidden_dropout_prob)
        self.feed_forward = (
            nn.Sequential(RMSNorm(hidden_size), FeedForward(hidden_size, inner_size=inner_size))
            if inner_size
            else None
        )

    def forward(
        self,
        tokens: Float[Tensor, "B T D"],
        *,
        bias: Float[Tensor, "B 1 S T"],
        rotation: tuple[Float[Tensor, "#B 1 T half"], Float[Tensor, "#B 1 T half"]],
    ) -> Float[Tensor, "B S D"]:
        """The last S tokens after one block; arguments as in ``Attention.forward``."""
        normed = self.attention_norm(tokens)
        mixed = self.attention(normed, bias=bias, rotation=rotation)
        tokens = tokens[:, -bias.shape[2] :] + self.dropout(mixed)
        if self.feed_forward is None:
            return tokens
        return tokens + self.dropout(self.feed_forward(tokens))  # type: ignore[no-any-return]

    def pooled(
        self,
        tokens: Float[Tensor, "B T D"],
        *,
        weights: Float[Tensor, "B T"],
        bias: Float[Tensor, "B 1 T T"],
        rotation: tuple[Float[Tensor, "#B 1 T half"], Float[Tensor, "#B 1 T half"]],
    ) -> Float[Tensor, "B D"]:
        """Σ_i weight_i · forward(tokens)_i; dropout acts on what is added to the sum.

        Without a feed-forward part at half the cost; other arguments as in ``Attention.forward``.
        """
        if self.feed_forward is not None:
            return (weights[:, None] @ self(tokens, bias=bias, rotation=rotation)).squeeze(1)  # type: ignore[no-any-return]
        mixed = self.attention.pooled(
            self.attention_norm(tokens), weights=weights, bias=bias, rotation=rotation
        )
        return (weights[:, None] @ tokens).squeeze(1) + self.dropout(mixed)  # type: ignore[no-any-return]
