"""MIND as a RecBole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recbole_kuaiformer.encoders.mind import MINDEncoder
from recbole_kuaiformer.models.base import RetrievalModel
from recbole_kuaiformer.models.comirec_sa import ComiRecSASettings


@dataclass(frozen=True, kw_only=True)
class MINDSettings(ComiRecSASettings):
    """Shape of MIND's encoder."""

    routing_rounds: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("routing_rounds", that=self.routing_rounds >= 1, what="at least 1")


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
