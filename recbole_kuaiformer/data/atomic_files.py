"""RecBole's atomic files, looked at before they are loaded: is there what the model reads?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from recbole.utils import FeatureType

from recbole_kuaiformer.config import TIME_KEYS, AttributeSettings, time_key

TIME_GAP = "time_gap"  # attribute made from timestamps: seconds since the user's interaction before
# Filters that RecBole does not apply to pre-split files, and the values that ask for none.
_FILTERS: dict[str, tuple[Any, ...]] = {
    "rm_dup_inter": (None,),
    "val_interval": (None, {}),
    "filter_inter_by_user_or_item": (None, True, False),
    "user_inter_num_interval": (None, "[0,inf)"),
    "item_inter_num_interval": (None, "[0,inf)"),
}


class DataError(ValueError):
    """A data file lacks something the model needs; the message names file and column."""


@dataclass(frozen=True)
class AtomicFiles:
    """The files of one dataset.

    Attributes:
        config: RecBole's. folder: of the files. token: their common name, the dataset's.
    """

    config: Any
    folder: Path
    token: str

    def check(self) -> bool:
        """Whether these are pre-split files that bring each row's history along (item_id_list).

        Raises:
            DataError: a file is missing, empty, or lacks a column the model reads.
        """
        names = self.config["benchmark_filename"]
        if names is None:
            fields = self._interactions(self.folder / f"{self.token}.inter")
            is_augmented = False
        else:
            fields = self._same_of_all(names)
            is_augmented = self._list_field in fields
            self._check_presplit(is_augmented)
        self._check_attributes(
            fields, self.columns(self.folder / f"{self.token}.item"), is_augmented=is_augmented
        )
        return is_augmented

    @property
    def _list_field(self) -> str:
        return str(self.config["ITEM_ID_FIELD"] + self.config["LIST_SUFFIX"])

    def columns(self, file: Path) -> dict[str, str]:
        """RecBole's type of each column that a file's header names; none where there is no file.

        Raises:
            DataError: a type is none of RecBole's.
        """
        if not file.is_file():
            return {}
        with file.open(encoding=self.config["encoding"]) as lines:
            head = lines.readline().rstrip("\r\n")
        columns = [column.partition(":") for column in head.split(self.config["field_separator"])]
        for name, _, kind in columns:
            if kind not in {known.value for known in FeatureType}:
                raise DataError(
                    f"{file}: the header names a column {name!r} of type {kind!r}; each column is name:type "
                    f"with type token, token_seq, float or float_seq, separated by "
                    f"{self.config['field_separator']!r} (field_separator)"
                )
        return {name: kind for name, _, kind in columns}

    def _interactions(self, file: Path) -> dict[str, str]:
        if not file.is_file():
            pattern = "<dataset>.inter" if self.config["benchmark_filename"] is None else file.name
            raise DataError(f"{file}: no such file; RecBole expects <data_path>/<dataset>/{pattern}")
        with file.open(encoding=self.config["encoding"]) as lines:
            head, first = lines.readline().strip(), lines.readline().strip()
        if not head or not first:
            raise DataError(f"{file}: the file is empty; it needs a header line and at least one interaction")
        fields = self.columns(file)
        if fields.get(self.config["TIME_FIELD"], "float") != "float":
            raise DataError(
                f"{file}: column {self.config['TIME_FIELD']!r} (TIME_FIELD) must be of type float, "
                f"not {fields[self.config['TIME_FIELD']]}"
            )
        needed = ["USER_ID_FIELD", "ITEM_ID_FIELD"]
        if fields.get(self._list_field) is None or self.config["benchmark_filename"] is None:
            needed.append("TIME_FIELD")
        for key in needed:
            if self.config[key] not in fields:
                raise DataError(
                    f"{file}: no column {self.config[key]!r} ({key}) among {sorted(fields)}; "
                    f"add it, or set {key} to the column that plays its part"
                )
            self._check_loaded(self.config[key], why=key)
        return fields

    def _check_loaded(self, field: str, *, why: str) -> None:
        loaded = (self.config["load_col"] or {}).get("inter")
        if loaded is not None and loaded != "*" and field not in loaded:
            raise DataError(f"load_col: inter must list {field!r} ({why}), got {loaded}")

    def _same_of_all(self, names: Any) -> dict[str, str]:
        if not isinstance(names, list | tuple) or len(names) != 3:
            raise DataError(f"benchmark_filename: three names are needed, of train, valid, test; got {names}")
        files = [self.folder / f"{self.token}.{name}.inter" for name in names]
        headers = [self._interactions(file) for file in files]
        for file, header in zip(files, headers):
            if header != headers[0]:
                raise DataError(
                    f"{file}: columns {sorted(header.items())} differ from {sorted(headers[0].items())} of "
                    f"{files[0].name}; pre-split files (benchmark_filename) need the same header"
                )
        return headers[0]

    def _check_presplit(self, is_augmented: bool) -> None:
        for key, harmless in _FILTERS.items():
            if self.config[key] not in harmless:
                raise DataError(
                    f"{key}: {self.config[key]!r} is not applied to pre-split files (benchmark_filename); "
                    "filter before the files are written"
                )
        if not is_augmented:
            return
        if asks := time_key(self.config):
            raise DataError(
                f"{asks}: a history given as {self._list_field!r} has no times; set {asks} to "
                f"{TIME_KEYS[asks]}, or give files of plain interactions"
            )
        if self.config["mask_history"]:
            raise DataError(
                f"mask_history: where each row has a list {self._list_field!r} a user's rows have no order; "
                "set mask_history to False, or give files of plain interactions"
            )
        self._check_loaded(self._list_field, why="the history of each row")
        if self._list_field not in (self.config["alias_of_item_id"] or ()):
            raise DataError(
                f"alias_of_item_id: must list {self._list_field!r}, so that its items get the numbers of "
                f"{self.config['ITEM_ID_FIELD']!r}; got {self.config['alias_of_item_id']}"
            )

    def _check_attributes(
        self, of_interactions: dict[str, str], of_items: dict[str, str], *, is_augmented: bool
    ) -> None:
        fields = of_interactions | of_items
        load_col = self.config["load_col"]
        for name in AttributeSettings.read(self.config).attributes:
            if is_augmented and name not in of_items:
                raise DataError(
                    f"attributes: {name!r} is of the interactions, but a history given as "
                    f"{self._list_field!r} tells the items alone; take it out, or give files without lists"
                )
            if name == TIME_GAP:
                continue
            if name == self.config["TIME_FIELD"]:
                raise DataError(
                    f"attributes: {name!r} is the time itself (TIME_FIELD), which only orders; use "
                    f"{TIME_GAP!r}, the seconds since the interaction before"
                )
            if name not in fields:
                raise DataError(
                    f"attributes: {name!r} is in neither {self.folder / self.token}.inter nor "
                    f"{self.folder / self.token}.item; there is {sorted(fields)}"
                )
            loaded = {column for columns in load_col.values() for column in columns} if load_col else fields
            if name not in loaded and not any(columns == "*" for columns in (load_col or {}).values()):
                raise DataError(f"attributes: {name!r} is not loaded; add it to load_col ({load_col})")


def padded_floats(lists: pd.Series[Any], *, width: int) -> npt.NDArray[np.float32]:
    """Lists of numbers as a table [R, S], NaN where a list is too short or missing.

    >>> padded_floats(pd.Series([[1.0, 2.0], np.nan, []]), width=2).tolist()
    [[1.0, 2.0], [nan, nan], [nan, nan]]
    """
    there = [() if isinstance(one, float) else one[:width] for one in lists]
    lengths = np.fromiter(map(len, there), dtype=np.int64, count=len(there))
    table = np.full((len(there), width), np.nan, dtype=np.float32)
    if lengths.any():
        table[np.arange(width) < lengths[:, None]] = np.concatenate([one for one in there if len(one)])
    return table
