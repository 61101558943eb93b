"""Float columns of the item file as they came: RecBole puts means for missing ones, and may normalise all."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from recbole.utils import FeatureType


def noting_floats(fill_nan: Callable[[Any], None]) -> Callable[[Any], None]:
    """RecBole's ``Dataset._fill_nan``; before it ``item_floats`` takes each column's values, by item id.

    They are arrays [N] of numbers or of lists, NaN where one is missing.
    """

    @wraps(fill_nan)
    def noted(self: Any) -> None:
        feat = self.item_feat
        self.item_floats = {
            field: feat[field].to_numpy(copy=True)
            for field in (feat if feat is not None else ())
            if self.field2type[field] in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ)
        }
        fill_nan(self)

    return noted
