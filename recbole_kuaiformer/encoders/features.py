"""Ids and attributes → tokens (Eq. 3–5 of KuaiFormer)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from recbole_kuaiformer.encoders.buckets import Scale, bucketize


@dataclass(frozen=True)
class Attribute:
    """One attribute of an interaction or of an item, and how it is looked up.

    Attributes:
        name: the field's name in the data.
        kind: ``discrete`` (one id), ``multi_valued`` (a padded list of ids), ``continuous`` (a number),
            ``vector`` (a list of numbers, as a vector that was trained elsewhere).
        source: where it comes from: the ``interaction``, or the ``item`` through its id.
        n_values: rows an id table needs, padding or missing value included; buckets of a continuous one;
            numbers of a vector.
        maximum: f_max of a continuous attribute, in its own unit.
        scale: ``uniform`` or ``log`` buckets of a continuous attribute.
        missing_value: what a continuous attribute holds where it is unknown, beside NaN.
    """

    name: str
    kind: Literal["discrete", "multi_valued", "continuous", "vector"]
    source: Literal["interaction", "item"]
    n_values: int
    maximum: float = 1.0
    scale: Scale = "uniform"
    missing_value: float | None = None


class AttributeEmbedding(nn.Module):
    """A table for one attribute; a missing value has its own row, number 0.

    Args:
        attribute: what to look up. size: width of the vectors.
    """

    def __init__(self, attribute: Attribute, *, size: int) -> None:
        super().__init__()
        self.attribute = attribute
        rows = attribute.n_values + (attribute.kind == "continuous")
        self.table = nn.Embedding(rows, size)
        nn.init.normal_(self.table.weight, std=size**-0.5)

    def forward(self, values: Tensor) -> Tensor:
        """Vectors [..., size] of values [...], or [..., S] for a multi-valued attribute.

        Multi-valued: the mean over the values that are there (ids > 0); row 0 where there is none.
        Continuous: the row of the value's bucket, Eq. 4; row 0 for NaN.
        """
        attribute = self.attribute
        if attribute.kind == "continuous":
            if attribute.missing_value is not None:
                values = values.masked_fill(values == attribute.missing_value, torch.nan)
            values = bucketize(
                values, n_buckets=attribute.n_values, maximum=attribute.maximum, scale=attribute.scale
            )
        if attribute.kind != "multi_valued":
            return self.table(values)  # type: ignore[no-any-return]
        there = values > 0
        there = there | ~there.any(-1, keepdim=True)  # nothing there: every slot is row 0, so is the mean
        vectors = self.table(values) * there[..., None]
        return vectors.sum(-2) / there.sum(-1, keepdim=True)  # type: ignore[no-any-return]


class VectorProjection(nn.Module):
    """A linear layer for an attribute that is a vector; a missing one has a learned vector of its own.

    Args:
        attribute: of kind ``vector``. size: width of what comes out.
    """

    def __init__(self, attribute: Attribute, *, size: int) -> None:
        super().__init__()
        self.attribute = attribute
        self.linear = nn.Linear(attribute.n_values, size)
        self.missing = nn.Parameter(torch.empty(size))
        nn.init.normal_(self.missing, std=size**-0.5)

    def forward(self, values: Float[Tensor, "*B S"]) -> Float[Tensor, "*B size"]:
        """Vectors of ``values``: all NaN is missing, a NaN beside numbers (a short list) counts as 0."""
        unknown = values.isnan()
        vectors = self.linear(values.masked_fill(unknown, 0.0))
        return torch.where(unknown.all(-1, keepdim=True), self.missing, vectors)


def _embedding(attribute: Attribute, *, size: int) -> nn.Module:
    return (VectorProjection if attribute.kind == "vector" else AttributeEmbedding)(attribute, size=size)


_TAKEN = frozenset(dir(nn.ModuleDict()))  # names that a module of that kind has itself


def module_name(attribute: str) -> str:
    """The name an attribute's module has: its own, unless torch forbids that, or has it itself.

    >>> module_name("watch_time"), module_name("cat.main"), module_name("type")
    ('watch_time', '%cat%2Emain', '%type')
    """
    if "." in attribute or attribute.startswith("%") or attribute in _TAKEN:
        return "%" + attribute.replace("%", "%25").replace(".", "%2E")
    return attribute


class ItemTokens(nn.Module):
    """t_i = MLP([x_i, f_i]), D wide (Eq. 3 and 5); without attributes t_i = x_i and no MLP is built.

    Also the target side of the score: the same id table X (tied), plus, with ``target_attributes``,
    the item's own attributes passed through a second MLP.

    ``residual``, which the paper does not have: t_i = x_i + MLP([x_i, f_i]), and the last layers of both MLPs
    start at zero, so that training begins as it does with ids alone, on both sides.

    Args:
        n_items: N, padding id 0 included. hidden_size: D.
        attributes: what a token carries beside the id.
        item_values: for each attribute of source ``item`` its column over all ids: [N], or [N, S].
        attribute_size: width of each attribute's vectors.
        target_attributes: whether the target side reads the item's attributes too.
        residual: whether a token is its id plus what the MLP makes of id and attributes, zero at first.
        item_std: standard deviation of X at the start; None is D^-1/2, vectors about 1 long.
    """

    def __init__(
        self,
        n_items: int,
        *,
        hidden_size: int,
        attributes: tuple[Attribute, ...],
        item_values: Mapping[str, Tensor],
        attribute_size: int,
        target_attributes: bool,
        residual: bool = False,
        item_std: float | None = None,
    ) -> None:
        super().__init__()
        self.ids = nn.Embedding(n_items, hidden_size, padding_idx=0)
        nn.init.normal_(self.ids.weight, std=item_std or hidden_size**-0.5)
        with torch.no_grad():
            self.ids.weight[0].zero_()
        self.names = tuple(a.name for a in attributes)
        self.embeddings = nn.ModuleDict(
            {module_name(a.name): _embedding(a, size=attribute_size) for a in attributes}
        )
        self.of_item = tuple(a.name for a in attributes if a.source == "item")
        for name in self.of_item:
            self.register_buffer(f"item_{module_name(name)}", item_values[name])
        width = attribute_size * len(attributes)
        self.mlp = _mlp(hidden_size + width, hidden_size, from_zero=residual) if attributes else None
        self.target_mlp = (
            _mlp(attribute_size * len(self.of_item), hidden_size, from_zero=residual)
            if target_attributes and self.of_item
            else None
        )
        self.residual = residual

    def forward(
        self, item_ids: Int64[Tensor, "B L"], *, values: Mapping[str, Tensor]
    ) -> Float[Tensor, "B L D"]:
        """Tokens of a history; ``values`` holds its interaction attributes by name: [B, L] or [B, L, S]."""
        vectors = self.ids(item_ids)
        if self.mlp is None:
            return vectors  # type: ignore[no-any-return]
        parts = [
            self.embedding(name)(self._of_item(name, item_ids) if name in self.of_item else values[name])
            for name in self.names
        ]
        mixed: Tensor = self.mlp(torch.cat([vectors, *parts], dim=-1))
        return vectors + mixed if self.residual else mixed

    def items(self, item_ids: Int[Tensor, " M"]) -> Float[Tensor, "M D"]:
        """Target vectors of the given ids: rows of X, plus their attributes where that is asked for."""
        vectors: Tensor = self.ids(item_ids)
        if self.target_mlp is None:
            return vectors
        return vectors + self.items_of_attributes(
            {name: self._of_item(name, item_ids) for name in self.of_item}
        )

    def items_of_attributes(self, values: Mapping[str, Tensor]) -> Float[Tensor, "M D"]:
        """What the attributes alone add to a target vector: all there is of an item never seen in training.

        Raises:
            ValueError: the target side reads no attributes.
        """
        if self.target_mlp is None:
            raise ValueError("target_attributes: the target side was built without attributes")
        parts = [self.embedding(name)(values[name]) for name in self.of_item]
        return self.target_mlp(torch.cat(parts, dim=-1))  # type: ignore[no-any-return]

    def embedding(self, name: str) -> nn.Module:
        """What makes vectors of an attribute's values."""
        return self.embeddings[module_name(name)]

    def _of_item(self, name: str, item_ids: Tensor) -> Tensor:
        return self.get_buffer(f"item_{module_name(name)}")[item_ids]


def _mlp(size: int, hidden_size: int, *, from_zero: bool) -> nn.Module:
    first, last = nn.Linear(size, hidden_size), nn.Linear(hidden_size, hidden_size)
    if from_zero:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(first, nn.SiLU(), last)
