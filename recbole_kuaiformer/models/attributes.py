"""RecBole fields → the attributes of a token."""

from __future__ import annotations

from typing import Any

import torch
from recbole.utils import FeatureSource, FeatureType
from torch import Tensor

from recbole_kuaiformer.bucket_options import BUCKET_KEYS
from recbole_kuaiformer.config import AttributeSettings
from recbole_kuaiformer.data.dataset import TIME_GAP, RetrievalDataset
from recbole_kuaiformer.encoders.features import Attribute
from recbole_kuaiformer.settings import SettingsError

_KINDS = {
    FeatureType.TOKEN: "discrete",
    FeatureType.TOKEN_SEQ: "multi_valued",
    FeatureType.FLOAT: "continuous",
    FeatureType.FLOAT_SEQ: "vector",
}


def attributes_of(dataset: RetrievalDataset, *, settings: AttributeSettings) -> tuple[Attribute, ...]:
    """The configured attributes with kind and source as the data has them.

    Raises:
        SettingsError: an attribute is not in the data, lacks its buckets, or is given options it has none of.
    """
    return tuple(
        _attribute(name, dataset=dataset, options=options or {})
        for name, options in settings.attributes.items()
    )


def item_values(dataset: RetrievalDataset, *, attributes: tuple[Attribute, ...]) -> dict[str, Tensor]:
    """For each attribute of the items its column by item id: ids [N] or [N, S], raw floats [N] or [N, S]."""
    features = dataset.get_item_feature()
    return {
        a.name: torch.from_numpy(dataset.raw_floats(a.name)).float()
        if a.kind in ("continuous", "vector")
        else features[a.name]
        for a in attributes
        if a.source == "item"
    }


def _attribute(name: str, *, dataset: RetrievalDataset, options: dict[str, Any]) -> Attribute:
    where = f"attributes: {name}"
    if name == TIME_GAP:
        return continuous(name, source="interaction", options=options)
    if name not in dataset.field2type:
        raise SettingsError(
            f"{where}: no such field in {dataset.dataset_name}; there is {[*dataset.field2type]}"
        )
    kind = _KINDS.get(dataset.field2type[name])
    if kind is None or name in (dataset.uid_field, dataset.iid_field):
        raise SettingsError(
            f"{where}: must be of type token, token_seq, float or float_seq, and neither user nor item id"
        )
    source = {FeatureSource.INTERACTION: "interaction", FeatureSource.ITEM: "item"}.get(
        dataset.field2source[name]
    )
    if source is None:
        raise SettingsError(f"{where}: must be a column of the .inter or the .item file")
    if kind == "continuous":
        return continuous(name, source=source, options=options)
    if options:
        raise SettingsError(f"{where}: a {kind} attribute takes no options, got {options}")
    n_values = dataset.field2seqlen[name] if kind == "vector" else dataset.num(name)
    if n_values < 1:
        raise SettingsError(f"{where}: no row of {dataset.dataset_name} has a value")
    return Attribute(name=name, kind=kind, source=source, n_values=n_values)  # type: ignore[arg-type]


def continuous(name: str, *, source: str, options: dict[str, Any]) -> Attribute:
    """An attribute of numbers in buckets.

    Raises:
        SettingsError: an option is missing.
    """
    for key in BUCKET_KEYS:
        if key not in options:
            raise SettingsError(f"attributes: {name}: a continuous attribute needs {key}")
    return Attribute(
        name=name,
        kind="continuous",
        source=source,  # type: ignore[arg-type]
        n_values=int(options["n_buckets"]),
        maximum=float(options["maximum"]),
        scale=options["scale"],
        missing_value=options.get("missing_value"),
    )
