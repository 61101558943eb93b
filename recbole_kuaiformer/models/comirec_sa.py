"""ComiRecSA as a RecBole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recbole_kuaiformer.encoders.comirec import ComiRecSAEncoder
from recbole_kuaiformer.models.base import RetrievalModel
from recbole_kuaiformer.settings import Settings


@dataclass(frozen=True, kw_only=True)
class ComiRecSASettings(Settings):
    """Shape of ComiRec's self-attentive encoder."""

    hidden_size: int
    n_interests: int

    def __post_init__(self) -> None:
        for key in ("hidden_size", "n_interests"):
            self._require(key, that=getattr(self, key) >= 1, what="at least 1")


class ComiRecSA(RetrievalModel):
    """Controllable Multi-Interest Framework for Recommendation, self-attentive (arXiv 2005.09347).

    The interest nearest to the target is trained against every candidate; at serving the best one counts.
    Keys: ``properties/model/ComiRecSA.yaml``.

    Raises:
        SettingsError: a key is missing, of the wrong type or out of range.
    """

    settings = ComiRecSASettings

    def build_encoder(self, config: Any) -> ComiRecSAEncoder:
        """The encoder that the configuration asks for."""
        settings = ComiRecSASettings.read(config)
        return ComiRecSAEncoder(
            settings.hidden_size,
            n_interests=settings.n_interests,
            max_length=self.max_seq_length,
        )
