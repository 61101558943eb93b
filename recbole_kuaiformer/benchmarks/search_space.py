"""What a search may choose for a model: properties/search/<Model>.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recbole_kuaiformer import defaults
from recbole_kuaiformer.settings import SettingsError

_RANGE, _CHOICES = {"low", "high", "log"}, {"choices"}


@dataclass(frozen=True)
class Dimension:
    """One key: a list of choices, or a range with both ends in it.

    Attributes:
        choices: plain values; empty for a range.
        low: of whole numbers, if both ends are.
        high: likewise.
        log: whether the range is even in the logarithm.
    """

    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    def suggested(self, trial: Any, key: str) -> Any:
        """A value, out of an Optuna trial."""
        if self.choices:
            return trial.suggest_categorical(key, self.choices)
        suggest = trial.suggest_int if isinstance(self.low, int) else trial.suggest_float
        return suggest(key, self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        """Whether the search could come upon the value."""
        if self.choices:
            return value in self.choices
        kinds = int if isinstance(self.low, int) else int | float
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high


def space(model: str, *, folder: Path | None = None) -> dict[str, Dimension]:
    """The dimensions of a model's space, by key.

    Args:
        model: its name.
        folder: of spaces; properties/search unless another is named.

    Raises:
        SettingsError: there is no space for the model, or a dimension in it is no such thing.
    """
    folder = folder or defaults.properties_folder() / "search"
    file = folder / f"{model}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(one.stem for one in folder.glob("*.yaml")))
        raise SettingsError(f"{model}: no space to search, {file} is not there; there are {known}")
    held = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {key: _dimension(given, where=f"{file.name}: {key}") for key, given in held.items()}


def _dimension(given: Any, *, where: str) -> Dimension:
    keys = set(given) if isinstance(given, dict) else set()
    if keys == _CHOICES and isinstance(given["choices"], list) and given["choices"]:
        return Dimension(choices=tuple(given["choices"]))
    if {"low", "high"} <= keys <= _RANGE:
        low, high = given["low"], given["high"]
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
        if numbers and low < high and (low > 0 or not given.get("log")):
            if isinstance(low, int) != isinstance(high, int):
                low, high = float(low), float(high)
            return Dimension(low=low, high=high, log=bool(given.get("log")))
    raise SettingsError(f"{where}: must be {{low, high}} with low < high, or {{choices}}, got {given!r}")
