"""What category an item is of, for what looks at lists by category."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recbole_kuaiformer import compat
from recbole_kuaiformer.data.atomic_files import AtomicFiles
from recbole_kuaiformer.settings import SettingsError

VALUES = ("first", "last", "most_common")  # of an item's several values


def categories_of(dataset: Any, field: str, *, value: str = "first") -> Tensor:
    """A number for each item's category [N]; 0 where it is unknown.

    Args:
        dataset: RecBole's. A field that it has not loaded is read from its .item file.
        field: a token or token_seq field of the items.
        value: which of an item's several values counts: the first, the last, or the most common one in the
            catalogue.

    Raises:
        SettingsError: there is no such field, or it is no token.
        DataError: the .item file's header is not RecBole's.
    """
    feat = dataset.item_feat
    values: Tensor = feat[field] if feat is not None and field in feat else _from_file(dataset, field)
    if values.is_floating_point():
        raise SettingsError(f"--category: {field!r} holds numbers, not categories")
    values = values.long()
    return values if values.ndim == 1 else _one_of(values, which=value)


def _one_of(values: Tensor, *, which: str) -> Tensor:
    there = values > 0
    if which == "most_common":
        counts = torch.bincount(values[there], minlength=int(values.max()) + 1)
        place = (counts[values] * there).argmax(1)
    elif which == "last":
        place = (torch.arange(values.shape[1]) * there).argmax(1)
    else:
        place = there.int().argmax(1)
    return values.gather(1, place[:, None]).squeeze(1)


def _from_file(dataset: Any, field: str) -> Tensor:
    """Numbers of a field's values [N, most values of an item], 0 where there is none."""
    config, items = dataset.config, dataset.iid_field
    folder = Path(dataset.dataset_path)
    file = folder / f"{dataset.dataset_name}.item"
    kinds = AtomicFiles(config, folder, dataset.dataset_name).columns(file)
    for needed in (items, field):
        if needed not in kinds:
            there = f"there are {sorted(kinds)}" if kinds else "there is no such file"
            raise SettingsError(f"--category: {file} has no field {needed!r}; {there}")
    if kinds[field] not in ("token", "token_seq"):
        raise SettingsError(f"--category: {field!r} holds numbers, not categories")
    headed = {f"{name}:{kinds[name]}": name for name in (items, field)}
    try:
        table = compat.read_csv(
            file,
            delimiter=config["field_separator"],
            engine="python",
            encoding=config["encoding"],
            usecols=[*headed],
            dtype=str,
        )
    except ValueError as error:  # of pandas' parser, or of the encoding
        raise SettingsError(f"--category: {file} cannot be read: {error}") from error
    table = (
        table.rename(columns=headed).fillna("").drop_duplicates(items)
    )  # RecBole keeps an item's first row
    table = table[table[items].isin(dataset.field2token_id[items].keys())]
    split = config["seq_separator"] if kinds[field] == "token_seq" else None
    several = [[text for text in (one.split(split) if split else [one]) if text] for one in table[field]]
    numbers = {text: n for n, text in enumerate(sorted({text for one in several for text in one}), start=1)}
    found = torch.zeros(dataset.item_num, max(map(len, several), default=0) or 1, dtype=torch.int64)
    for item_id, texts in zip(dataset.token2id(items, table[items].to_numpy()), several):
        found[item_id, : len(texts)] = torch.tensor([numbers[text] for text in texts], dtype=torch.int64)
    return found
