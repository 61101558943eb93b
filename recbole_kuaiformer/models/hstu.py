"""HSTU as a RecBole model."""

from __future__ import annotations

from typing import Any

from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_kuaiformer.config import HSTUSettings
from recbole_kuaiformer.encoders.hstu import HSTUEncoder
from recbole_kuaiformer.models.base import RetrievalModel
from recbole_kuaiformer.models.times import times_of


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
