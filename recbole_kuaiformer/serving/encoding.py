"""Raw tokens and raw attribute values → the batch a model reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_kuaiformer.index.base import NONE
from recbole_kuaiformer.models.base import RetrievalModel
from recbole_kuaiformer.serving.catalogue import Catalogue, RequestError

AttributeLists = Mapping[str, Sequence[Sequence[Any]]]


def checked_histories(histories: Any) -> list[list[str]]:
    """Lists of tokens as strings; whole numbers, tuples, arrays and tensors are taken too.

    Raises:
        RequestError: a string or a single token stands where a list belongs, or a token is no token.
    """
    if isinstance(histories, str) or not hasattr(histories, "__iter__"):
        raise RequestError(f"histories: a list of lists of tokens is needed, got {histories!r}")
    return [_tokens(history, row=row) for row, history in enumerate(histories)]


def _tokens(history: Any, *, row: int) -> list[str]:
    if isinstance(history, str) or not hasattr(history, "__iter__"):
        raise RequestError(f"histories: a list of lists of tokens is needed, got {history!r} as number {row}")
    values = history.tolist() if hasattr(history, "tolist") else [*history]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int | np.integer):
            raise RequestError(
                f"histories: number {row} holds {value!r}; tokens are strings or whole numbers"
            )
    return [str(value) for value in values]


@dataclass(frozen=True)
class History:
    """One user's history as the model reads it.

    Attributes:
        row: number of the user in the request.
        ids: item ids the model knows, the newest it can read.
        places: where in the history given each of them stands.
        unknown: tokens the model cannot read.
    """

    row: int
    ids: list[int]
    places: list[int]
    unknown: list[str]


class HistoryReader:
    """Reads histories of raw tokens for one model.

    Args:
        model: built and loaded.
        catalogue: its items.
        vocabulary: id by token of each attribute.
    """

    def __init__(
        self, model: Any, *, catalogue: Catalogue, vocabulary: Mapping[str, Mapping[str, int]]
    ) -> None:
        self.model, self.catalogue, self._vocabulary = model, catalogue, vocabulary

    @property
    def attributes(self) -> tuple[str, ...]:
        """Interaction attributes that the model reads beside the items."""
        return self.model.interaction_attributes if isinstance(self.model, RetrievalModel) else ()

    def read(self, tokens: Sequence[str], *, row: int) -> History:
        """The newest items of a history that the model knows and can hold."""
        n_known = self.model.n_items  # items added after training have vectors, but no row to be read from
        ids, places, unknown = [], [], []
        for place, token in enumerate(tokens):
            number = self.catalogue.ids.get(str(token), NONE)
            if NONE < number < n_known:
                ids.append(number)
                places.append(place)
            else:
                unknown.append(str(token))
        limit = int(self.model.max_seq_length)
        return History(row, ids[-limit:], places[-limit:], unknown)

    def check(self, attributes: AttributeLists, *, n_histories: int) -> None:
        """Refuse attributes that are not the model's, or not one list for each history.

        Raises:
            RequestError: names the attribute.
        """
        for name, lists in attributes.items():
            if name not in self.attributes:
                raise RequestError(
                    f"attributes: {name!r} is not read by the model; it reads {[*self.attributes]}"
                )
            if len(lists) != n_histories:
                raise RequestError(
                    f"attributes: {name!r} has lists for {len(lists)} histories, but there are {n_histories}"
                )

    def check_items(self, values: Mapping[str, Sequence[Any]], *, names: Sequence[str]) -> int:
        """How many new items the attribute values are of.

        Raises:
            RequestError: an attribute is missing, is not the model's, or has another number of values.
        """
        for name in sorted({*names} ^ {*values}):
            why = "is missing" if name in names else "is not read by the model"
            raise RequestError(f"values: {name!r} {why}; the model reads {[*names]}")
        for name, given in values.items():
            if isinstance(given, str):
                raise RequestError(f"values: {name!r} needs one value for each new item, got {given!r}")
        n_new = {name: len(given) for name, given in values.items()}
        if len({*n_new.values()}) != 1:
            raise RequestError(f"values: as many values of each attribute are needed, got {n_new}")
        return n_new[names[0]]

    def batch(self, histories: Sequence[History], attributes: AttributeLists) -> Interaction:
        """The histories as RecBole's models read them, padded on the right; attributes not given are missing.

        Raises:
            RequestError: a list of attribute values is shorter than its history.
        """
        model = self.model
        # RecBole's own models read a fixed width (LightSANs has a parameter of that size).
        is_ours = isinstance(model, RetrievalModel)
        width = max(len(one.ids) for one in histories) if is_ours else int(model.max_seq_length)
        ids = torch.zeros(len(histories), width, dtype=torch.int64)
        for row, one in enumerate(histories):
            ids[row, : len(one.ids)] = torch.tensor(one.ids)
        lengths = torch.tensor([len(one.ids) for one in histories])
        columns = {model.ITEM_SEQ: ids, model.ITEM_SEQ_LEN: lengths}
        for name in self.attributes:
            rows = [
                _chosen(attributes[name][one.row], one, name) if name in attributes else []
                for one in histories
            ]
            columns[name + model.list_suffix] = self.values(name, rows, width=width)
        return Interaction(columns).to(self.catalogue.vectors.device)

    def values(self, name: str, rows: Sequence[Sequence[Any]], *, width: int) -> Tensor:
        """Raw values of an attribute: numbers or ids [B, width], or [B, width, S] of lists.

        What is not there or not known is what the model takes for missing.

        Raises:
            RequestError: a value of a continuous attribute is no number, or a vector is too long.
        """
        attribute = self.model.tokens.embedding(name).attribute
        kind = attribute.kind
        if kind == "vector":
            vectors = [[_vector(value, attribute.n_values, name) for value in row] for row in rows]
            return torch.tensor([_padded(row, width, [torch.nan] * attribute.n_values) for row in vectors])
        if kind == "continuous":
            return torch.tensor([_padded([_number(v, name) for v in row], width, torch.nan) for row in rows])
        known = self._vocabulary[name]
        if kind == "discrete":
            return torch.tensor(
                [_padded([_number_of(v, known, name) for v in row], width, 0) for row in rows]
            )
        lists = [[[_number_of(v, known, name) for v in _list(value, name)] for value in row] for row in rows]
        most = max((len(numbers) for row in lists for numbers in row), default=0) or 1
        padded = [[_padded(numbers, most, 0) for numbers in row] for row in lists]
        return torch.tensor([_padded(row, width, [0] * most) for row in padded])


def _vector(value: Any, size: int, name: str) -> list[float]:
    """Numbers of a vector, NaN where there are fewer; None is a vector that is not known."""
    numbers = [] if value is None else [_number(one, name) for one in _list(value, name, of="numbers")]
    if any(map(math.isinf, numbers)):
        raise RequestError(f"attributes: {name!r} takes finite numbers (None where unknown), got {value!r}")
    if len(numbers) > size:
        raise RequestError(f"attributes: {name!r} is a vector of {size} numbers, got {len(numbers)}")
    return _padded(numbers, size, torch.nan)


def _list(value: Any, name: str, *, of: str = "tokens") -> Any:
    """A value that is a list; None where it is unknown."""
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        raise RequestError(f"attributes: a value of {name!r} is a list of {of} (or None), got {value!r}")
    return value


def _number_of(value: Any, known: Mapping[str, int], name: str) -> int:
    """Id of a token; 0 where it is None or unknown to the model."""
    if isinstance(value, float) and value.is_integer():  # what pandas makes of whole numbers beside NaN
        value = int(value)
    if value is not None and not isinstance(value, str | int | float | np.integer):
        raise RequestError(f"attributes: a value of {name!r} is a token (or None), got {value!r}")
    return known.get(str(value), 0)


def _chosen(values: Sequence[Any], history: History, name: str) -> list[Any]:
    if isinstance(values, str):
        where = f"attributes: {name!r} needs one value for each item of history {history.row}"
        raise RequestError(f"{where}, got the string {values!r}")
    if history.places and history.places[-1] >= len(values):
        raise RequestError(
            f"attributes: {name!r} needs one value for each item of history {history.row}, got {len(values)}"
        )
    return [values[place] for place in history.places]


def _number(value: Any, name: str) -> float:
    try:
        return torch.nan if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"attributes: {name!r} takes numbers (None where unknown), got {value!r}"
        ) from error


def _padded(values: list[Any], width: int, filling: Any) -> list[Any]:
    return values + [filling] * (width - len(values))
