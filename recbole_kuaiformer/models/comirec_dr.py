"""ComiRecDR as a RecBole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recbole_kuaiformer.encoders.comirec import ComiRecDREncoder
from recbole_kuaiformer.models.base import RetrievalModel
from recbole_kuaiformer.models.mind import MINDSettings


@dataclass(frozen=True, kw_only=True)
class ComiRecDRSettings(MINDSettings):
    """Shape of ComiRec's dynamic-routing encoder."""

    shared_transform: bool


class ComiRecDR(RetrievalModel):
    """Controllable Multi-Interest Framework for Recommendation, dynamic routing (arXiv 2005.09347).

    The interest nearest to the target is trained against every candidate; at serving the best one counts.
    Keys: ``properties/model/ComiRecDR.yaml``.

    Raises:
        SettingsError: a key is missing, of the wrong type or out of range.
    """

    settings = ComiRecDRSettings

    def build_encoder(self, config: Any) -> ComiRecDREncoder:
        """The encoder that the configuration asks for."""
        settings = ComiRecDRSettings.read(config)
        return ComiRecDREncoder(
            settings.hidden_size,
            n_interests=settings.n_interests,
            max_length=self.max_seq_length,
            n_rounds=settings.routing_rounds,
            shared_transform=settings.shared_transform,
        )
