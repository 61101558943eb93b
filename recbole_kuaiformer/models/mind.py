"""MIND as a RecBole model."""

from __future__ import annotations

from typing import Any

from recbole_kuaiformer.config import MINDSettings
from recbole_kuaiformer.encoders.mind import MINDEncoder
from recbole_kuaiformer.models.base import RetrievalModel


class MIND(RetrievalModel):
    """Multi-Interest Network with Dynamic Routing (Li et al., arXiv 1904.08030).

    Label-aware attention with p → ∞: the interest nearest to the target is trained.
    Keys: ``properties/model/MIND.yaml``.

    Raises:
        SettingsError: a key is missing, of the wrong type or out of range.
    """

    settings = MINDSettings

    def build_encoder(self, config: Any) -> MINDEncoder:
        """The encoder that the configuration asks for."""
        settings = MINDSettings.read(config)
        return MINDEncoder(
            settings.hidden_size,
            n_interests=settings.n_interests,
            max_length=self.max_seq_length,
            n_rounds=settings.routing_rounds,
        )
