"""SASRecPlus as a RecBole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recbole_kuaiformer.encoders.causal import CausalEncoder
from recbole_kuaiformer.models.base import RetrievalModel
from recbole_kuaiformer.models.shapes import TransformerSettings


@dataclass(frozen=True, kw_only=True)
class SASRecPlusSettings(TransformerSettings):
    """Shape of the single-vector causal encoder."""


class SASRecPlus(RetrievalModel):
    """SASRec's training on KuaiFormer's blocks, windows and losses: one vector, all positions in one pass.

    Unlike SASRec (Kang & McAuley, 2018): RMSNorm before each part, rotary positions, SwiGLU, and by
    default the softmax over the whole catalogue.
    Keys: ``properties/model/SASRecPlus.yaml``.

    Raises:
        SettingsError: a key is missing, of the wrong type or out of range.
    """

    settings = SASRecPlusSettings

    def build_encoder(self, config: Any) -> CausalEncoder:
        """The encoder that the configuration asks for."""
        settings = SASRecPlusSettings.read(config)
        return CausalEncoder(
            settings.hidden_size,
            n_layers=settings.n_layers,
            n_heads=settings.n_heads,
            inner_size=settings.inner_size,
            hidden_dropout_prob=settings.hidden_dropout_prob,
            attn_dropout_prob=settings.attn_dropout_prob,
        )
