"""``properties/``: the defaults of every key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def properties_folder() -> Path:
    """``properties/``: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "properties"
    return inside if inside.is_dir() else package.parent / "properties"


def read(*parts: str) -> dict[str, Any]:
    """The keys of a file of properties/, named without its ending; none where there is no such file."""
    file = properties_folder().joinpath(*parts).with_suffix(".yaml")
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8") as text:
        return yaml.safe_load(text) or {}


def of_every_model() -> dict[str, Any]:
    """Keys of ours that are read for any model, RecBole's own included."""
    return read("data") | read("evaluation")


def of_model(model: str) -> dict[str, Any]:
    """All keys of ours that a model reads, with their defaults; a dataset's file may set others."""
    own = read("model", model)
    return of_every_model() | (read("overall") | own if own else {})


def completed(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved configuration; keys that came after it was written as they were before there was a choice."""
    keys = of_model(saved["model"])
    if "compression_block" in keys:  # groups were whole
        keys["compression_block"] = max([keys["compression_block"], *(saved.get("compression_groups") or ())])
    if "initializer_range" in keys:  # embeddings began as RecBole's do
        keys["initializer_range"] = None
    return keys | dict(saved)
