"""Multi-head attention over a boolean visibility mask."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import dropout, linear, scaled_dot_product_attention

from recbole_kuaiformer.layers.rope import rotate


class Attention(nn.Module):
    """Multi-head attention with rotary positions, if any, and no biases (the attention of Eq. 6 and Eq. 7).

    Args:
        hidden_size: D, width of the tokens.
        n_heads: H; D / H must be even, for the rotary planes.
        dropout_prob: share of attention weights dropped in training.

    Raises:
        ValueError: hidden_size is not a multiple of 2 · n_heads.
    """

    def __init__(self, hidden_size: int, *, n_heads: int, dropout_prob: float) -> None:
        super().__init__()
        if hidden_size % (2 * n_heads):
            raise ValueError(
                f"hidden_size {hidden_size} does not divide into n_heads {n_heads} heads of even width"
            )
        self.n_heads = n_heads
        self.dropout_prob = dropout_prob
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(
        self,
        tokens: Float[Tensor, "B T D"],
        *,
        bias: Float[Tensor, "B 1 S T"],
        rotation: tuple[Float[Tensor, "#B 1 T half"], Float[Tensor, "#B 1 T half"]] | None,
    ) -> Float[Tensor, "B S D"]:
        """Mix of the tokens that each of the last S tokens sees; S = T is all of them.

        Args:
            tokens: in their order.
            bias: from ``attention_bias``: 0 where the i-th of the last S tokens sees token j. Every row must
                see at least one (itself, say): a row of the softmax without a column is NaN.
            rotation: from ``rotation_table``, for the positions of all tokens; None for tokens that hold
                their positions themselves.
        """
        query, key, value = self._rotated_heads(
            tokens, first=tokens.shape[1] - bias.shape[2], rotation=rotation
        )
        mixed = scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias.to(value.dtype),
            dropout_p=self.dropout_prob if self.training else 0.0,
        )
        return self.output(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def weights(
        self,
        tokens: Float[Tensor, "B T D"],
        *,
        bias: Float[Tensor, "B 1 S T"],
        rotation: tuple[Float[Tensor, "#B 1 T half"], Float[Tensor, "#B 1 T half"]] | None,
    ) -> Float[Tensor, "B H S T"]:
        """What ``forward`` mixes the values with, to look at: rows sum to one; arguments as there."""
        query, key, _ = self._rotated_heads(tokens, first=tokens.shape[1] - bias.shape[2], rotation=rotation)
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        return (scores + bias).softmax(-1)  # type: ignore[no-any-return]

    def pooled(
        self,
        tokens: Float[Tensor, "B T D"],
        *,
        weights: Float[Tensor, "B T"],
        bias: Float[Tensor, "B 1 T T"],
        rotation: tuple[Float[Tensor, "#B 1 T half"], Float[Tensor, "#B 1 T half"]],
    ) -> Float[Tensor, "B D"]:
        """Σ_i weight_i · forward(tokens)_i, for half the products: 2 D² a token instead of 4 D².

        Values and output are linear, so they are taken once, of the tokens mixed by the weighted sum of all
        tokens' attention. Other arguments as in ``forward``.
        """
        of_query_key, of_value = self.query_key_value.weight.tensor_split([2 * tokens.shape[-1]])
        query_key = linear(tokens, of_query_key).unflatten(-1, (2, self.n_heads, -1))
        query, key = (
            rotate(part, cos=rotation[0], sin=rotation[1]) for part in query_key.permute(2, 0, 3, 1, 4)
        )
        scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
        attention = scores.add_(bias).softmax(-1)
        attention = dropout(attention, self.dropout_prob, self.training)
        mixed = (weights[:, None, None, :] @ attention).squeeze(2) @ tokens  # [B, H, D], each head's own mix
        values = mixed.transpose(0, 1) @ of_value.unflatten(0, (self.n_heads, -1)).transpose(1, 2)
        return self.output(values.transpose(0, 1).flatten(1))  # type: ignore[no-any-return]

    def _rotated_heads(
        self, tokens: Tensor, *, first: int, rotation: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, ...]:
        """As ``_heads``, with queries and keys turned to their positions."""
        query, key, value = self._heads(tokens, first=first)
        if rotation is not None:
            cos, sin = rotation
            query = rotate(query, cos=cos[:, :, first:], sin=sin[:, :, first:])
            key = rotate(key, cos=cos, sin=sin)
        return query, key, value

    def _heads(self, tokens: Tensor, *, first: int) -> tuple[Tensor, ...]:
        """Queries [B, H, S, E] of the tokens from ``first`` on, keys and values [B, H, T, E] of all."""
        if first == 0:
            projected = self.query_key_value(tokens).unflatten(-1, (3, self.n_heads, -1))
            return projected.permute(2, 0, 3, 1, 4).unbind()  # type: ignore[no-any-return]
        of_query, of_key_value = self.query_key_value.weight.tensor_split([tokens.shape[-1]])
        query = linear(tokens[:, first:], of_query).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        key_value = linear(tokens, of_key_value).unflatten(-1, (2, self.n_heads, -1))
        return query, *key_value.permute(2, 0, 3, 1, 4).unbind()
