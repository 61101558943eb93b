"""PinnerFormer as a RecBole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recbole_kuaiformer.encoders.pinnerformer import PinnerFormerEncoder
from recbole_kuaiformer.models.base import RetrievalModel
from recbole_kuaiformer.models.shapes import TransformerSettings


@dataclass(frozen=True, kw_only=True)
class PinnerFormerSettings(TransformerSettings):
    """Shape of PinnerFormer's encoder."""


class PinnerFormer(RetrievalModel):
    """PinnerFormer (Pancha et al., arXiv 2205.04507): every position predicts one of what follows it.

    Unlike the paper, whose items are given by PinSage vectors through an MLP, item vectors are the id table;
    times and actions are read where ``attributes`` name them; the temperature is not learned; the loss is the
    mean over positions, not over users.
    Keys: ``properties/model/PinnerFormer.yaml``; dense all-action training is ``target_horizon``.

    Raises:
        SettingsError: a key is missing, of the wrong type or out of range.
    """

    settings = PinnerFormerSettings

    def build_encoder(self, config: Any) -> PinnerFormerEncoder:
        """The encoder that the configuration asks for."""
        settings = PinnerFormerSettings.read(config)
        return PinnerFormerEncoder(
            settings.hidden_size,
            n_layers=settings.n_layers,
            n_heads=settings.n_heads,
            inner_size=settings.inner_size,
            max_length=self.max_seq_length,
            hidden_dropout_prob=settings.hidden_dropout_prob,
            attn_dropout_prob=settings.attn_dropout_prob,
        )
