"""HSTU as a RecBole model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_kuaiformer.encoders.hstu import HSTUEncoder
from recbole_kuaiformer.models.base import RetrievalModel
from recbole_kuaiformer.models.shapes import QuerySettings
from recbole_kuaiformer.models.times import times_of
from recbole_kuaiformer.settings import SettingsError


@dataclass(frozen=True, kw_only=True)
class HSTUSettings(QuerySettings):
    """Shape of HSTU's encoder."""

    hidden_size: int
    n_layers: int
    n_heads: int
    qk_size: int
    value_size: int
    hidden_dropout_prob: float
    use_times: bool
    use_request_time: bool
    n_interests: int | None

    def __post_init__(self) -> None:
        for key in ("hidden_size", "n_layers", "n_heads", "qk_size", "value_size"):
            self._require(key, that=getattr(self, key) >= 1, what="at least 1")
        self._require("hidden_dropout_prob", that=0 <= self.hidden_dropout_prob < 1, what="in [0, 1)")
        if self.use_request_time and not self.use_times:
            raise SettingsError("use_request_time: True needs use_times: True; set both, or neither")
        # Positions lie within MAX_ITEM_LIST_LENGTH + 11.
        fits = self.n_interests is None or 1 <= self.n_interests <= 11
        self._require("n_interests", that=fits, what="from 1 to 11, or ~ for the output at the last item")
        self._check_queries()


class HSTU(RetrievalModel):
    """Hierarchical Sequential Transduction Unit (Zhai et al., arXiv 2402.17152), dense form.

    The strongest published single-vector encoder. Unlike the published runs, which draw 128 negatives for
    each position, the positions of a step share them. Stochastic Length is ``stochastic_length_alpha``.
    Keys: ``properties/model/HSTU.yaml``.

    Raises:
        SettingsError: a key is missing, of the wrong type or out of range.
    """

    settings = HSTUSettings
    encoder: HSTUEncoder

    def build_encoder(self, config: Any) -> HSTUEncoder:
        """The encoder that the configuration asks for."""
        settings = HSTUSettings.read(config)
        return HSTUEncoder(
            settings.hidden_size,
            n_layers=settings.n_layers,
            n_heads=settings.n_heads,
            qk_size=settings.qk_size,
            value_size=settings.value_size,
            max_length=self.max_seq_length,
            use_times=settings.use_times,
            use_request_time=settings.use_request_time,
            dropout_prob=settings.hidden_dropout_prob,
            n_interests=settings.n_interests,
            query_init=settings.query_init,  # type: ignore[arg-type]
            query_std=settings.query_initializer_range,
        )

    def encoder_inputs(self, interaction: Interaction, *, columns: Tensor) -> dict[str, Tensor]:
        """The times of items and request, where the model reads them.

        Raises:
            ValueError: the interaction has no times.
        """
        if not self.encoder.use_times:
            return {}
        return times_of(interaction, columns=columns, key="use_times")
