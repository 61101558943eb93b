"""Settings that the shapes of several encoders share."""

from __future__ import annotations

from dataclasses import dataclass

from recbole_kuaiformer.settings import Settings


@dataclass(frozen=True, kw_only=True)
class TransformerSettings(Settings):
    """Shape of a stack of transformer blocks."""

    hidden_size: int
    n_layers: int
    n_heads: int
    inner_size: int | None
    hidden_dropout_prob: float
    attn_dropout_prob: float

    def __post_init__(self) -> None:
        for key in ("hidden_size", "n_layers", "n_heads"):
            self._require(key, that=getattr(self, key) >= 1, what="at least 1")
        self._require(
            "n_heads",
            that=self.hidden_size % (2 * self.n_heads) == 0,
            what=f"a divisor of hidden_size ({self.hidden_size}) that leaves each head an even width",
        )
        self._require(
            "inner_size", that=self.inner_size is None or self.inner_size >= 1, what="at least 1, or ~"
        )
        for key in ("hidden_dropout_prob", "attn_dropout_prob"):
            self._require(key, that=0 <= getattr(self, key) < 1, what="in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class QuerySettings(Settings):
    """How query tokens begin."""

    query_init: str
    query_initializer_range: float | None

    def _check_queries(self) -> None:
        self._one_of("query_init", ("learned", "recent"))
        std = self.query_initializer_range
        self._require("query_initializer_range", that=std is None or std > 0, what="positive, or ~")
