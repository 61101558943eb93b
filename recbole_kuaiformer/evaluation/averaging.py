"""Exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AveragedWeights:
    """Averages beside a model's parameters; its buffers (counts, streaming frequencies) are left alone.

    torch's own formula, average ← decay · average + (1 − decay) · weights, from the first update's weights
    on. Unlike torch's AveragedModel, no second copy of the model with all its buffers is held.

    Args:
        model: whose parameters are followed. decay: in [0, 1); 0 follows them at once.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self._parameters = dict(model.named_parameters())
        self._average = get_ema_multi_avg_fn(decay)
        self.values: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        if self.values:
            self._average([*self.values.values()], [*self._parameters.values()], 0)
        else:
            self.values = {name: value.detach().clone() for name, value in self._parameters.items()}

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Go on from averages that were saved; none start anew."""
        self.values = {
            name: values[name].to(parameter.device, copy=True)
            for name, parameter in self._parameters.items()
            if name in values
        }

    @torch.no_grad()
    def into_model(self) -> None:
        """Overwrite the model's weights with the averages."""
        for name, value in self.values.items():
            self._parameters[name].copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model holds the averages, afterwards its own weights again."""
        own = {name: self._parameters[name].detach().clone() for name in self.values}
        self.into_model()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in own.items():
                    self._parameters[name].copy_(value)
