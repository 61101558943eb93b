"""The items of an export: tokens, vectors, and whatever else is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


class RequestError(ValueError):
    """A request that cannot be answered; the message names the argument."""


@dataclass(frozen=True)
class Catalogue:
    """The items of an export, by id.

    Attributes:
        tokens: [N], the first one is padding.
        vectors: [N, D], row 0 is padding. Items beyond the model's own were added after training.
        columns: further fields of the items by name, one value for each id but padding; shorter where items
            were added.
        ids: id by token.
    """

    tokens: list[str]
    vectors: Tensor
    columns: dict[str, list[Any]]
    ids: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", {token: i for i, token in enumerate(self.tokens) if i})

    def check_column(self, column: str) -> None:
        """Refuse a column that is not there.

        Raises:
            RequestError: names the columns that are.
        """
        if column not in self.columns:
            raise RequestError(f"category: no column {column!r} in the export; there is {[*self.columns]}")

    def categories(self, column: str) -> Tensor:
        """A number for each item's value of the column, [N]; of a list its first one; 0 where unknown.

        Raises:
            RequestError: there is no such column.
        """
        self.check_column(column)
        numbers: dict[Any, int] = {}
        found = torch.zeros(len(self.tokens), dtype=torch.int64)
        for place, value in enumerate(self.columns[column], start=1):
            value = (value[0] if value else None) if isinstance(value, list) else value
            if value not in (None, ""):
                found[place] = numbers.setdefault(value, len(numbers) + 1)
        return found
