"""Multi-head attention over a boolean visibility mask."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from recbole_kuaiformer.layers.rope import rotate


class Attention(nn.Module):
    """Multi-head attention with rotary positions and no biases (the attention of Eq. 6 and Eq. 7).

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
        visible: Bool[Tensor, "B T T"],
        rotation: tuple[Float[Tensor, "#B 1 T half"], Float[Tensor, "#B 1 T half"]],
    ) -> Float[Tensor, "B T D"]:
        """Each token's mix of the tokens it sees; ``visible[b, i, j]`` is True where i sees j.

        Every token must see at least one (itself, say): a row of the softmax without a column is NaN.
        """
        cos, sin = rotation
        heads = self.query_key_value(tokens).unflatten(-1, (3, self.n_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(
            rotate(query, cos=cos, sin=sin),
            rotate(key, cos=cos, sin=sin),
            value,
            attn_mask=visible[:, None],
            dropout_p=self.dropout_prob if self.training else 0.0,
        )
        return self.output(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]
