"""Options of a continuous value that is put into buckets."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from recbole_kuaiformer.settings import SettingsError, nearest

BUCKET_KEYS = ("n_buckets", "maximum", "scale")


def check_buckets(options: Any, *, where: str, known: Iterable[str]) -> None:
    """Refuse options that are no mapping of known keys to what a table can be made of.

    Args:
        options: as the yaml has them.
        where: the key that holds them, for the error.
        known: options that there may be.

    Raises:
        SettingsError: names key and option.
    """
    if not isinstance(options, dict):
        raise SettingsError(f"{where}: must be a mapping of {', '.join(known)}, got {options!r}")
    for key in options:
        if key not in known:
            raise SettingsError(
                f"{where}: {key!r} is not known{nearest(key, known)}; known: {', '.join(known)}"
            )
    if options.get("scale", "uniform") not in ("uniform", "log"):
        raise SettingsError(f"{where}: scale must be uniform or log, got {options['scale']!r}")
    for key in ("n_buckets", "maximum"):
        _check_positive(options.get(key, 1), where=f"{where}: {key}")
    if not float(options.get("n_buckets", 1)).is_integer():
        raise SettingsError(f"{where}: n_buckets must be a whole number, got {options['n_buckets']!r}")
    if (missing := options.get("missing_value")) is not None and not _is_number(missing):
        raise SettingsError(f"{where}: missing_value must be a number, or ~ for none, got {missing!r}")


def _check_positive(value: Any, *, where: str) -> None:
    if not _is_number(value):
        raise SettingsError(f"{where} must be a number, got {value!r}")
    if not 0 < value < math.inf:
        raise SettingsError(f"{where} must be positive and finite, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
