"""Raw tokens and raw attribute values → the batch a model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_kuaiformer.index.base import NONE
from recbole_kuaiformer.models.base import RetrievalModel
from recbole_kuaiformer.serving.catalogue import Catalogue, RequestError

AttributeLists = Mapping[str, Sequence[Sequence[Any]]]


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
        """Raw values of an attribute: numbers or ids [B, width], or ids [B, width, S] of lists.

        What is not there or not known is what the model takes for missing.

        Raises:
            RequestError: a value of a continuous attribute is no number.
        """
        kind = self.model.tokens.embeddings[name].attribute.kind
        if kind == "continuous":
            return torch.tensor([_padded([_number(v, name) for v in row], width, torch.nan) for row in rows])
        known = self._vocabulary[name]
        if kind == "discrete":
            return torch.tensor([_padded([known.get(str(v), 0) for v in row], width, 0) for row in rows])
        most = max((len(value or ()) for row in rows for value in row), default=0) or 1
        lists = [
            [_padded([known.get(str(v), 0) for v in value or ()], most, 0) for value in row] for row in rows
        ]
        return torch.tensor([_padded(row, width, [0] * most) for row in lists])


def _chosen(values: Sequence[Any], history: History, name: str) -> list[Any]:
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
