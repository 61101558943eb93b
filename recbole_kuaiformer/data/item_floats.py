"""Float columns of the item file as they came: RecBole puts means for missing ones, and may normalise all."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from recbole.utils import FeatureType


def noting_floats(fill_nan: Callable[[Any], None]) -> Callable[[Any], None]:
    """RecBole's ``Dataset._fill_nan``; before it ``item_floats`` takes each column's values, by item id.

    They are numbers, or lists of numbers, and None where one is missing: what a person may be shown.
    """

    @wraps(fill_nan)
    def noted(self: Any) -> None:
        feat = self.item_feat
        self.item_floats = {
            field: [_as_it_came(value) for value in feat[field]]
            for field in (feat if feat is not None else ())
            if self.field2type[field] in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ)
        }
        fill_nan(self)

    return noted


def _as_it_came(value: Any) -> Any:
    """A number, a list or None.

    >>> _as_it_came(2.5), _as_it_came([1.0, 2.0]), _as_it_came(float("nan"))
    (2.5, [1.0, 2.0], None)
    """
    if hasattr(value, "__len__"):
        return [float(one) for one in value] or None
    return float(value) if value == value else None  # NaN alone does not equal itself
