"""RecBole's own sequential models on the log (``sequences: log``): its table's batches, when asked for."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import recbole.data.dataset
import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import ModelType

from recbole_kuaiformer.data.atomic_files import DataError
from recbole_kuaiformer.data.log import IntArray
from recbole_kuaiformer.data.logged import LoggedDataset
from recbole_kuaiformer.settings import SettingsError

# Models that look rows up in the prefix table itself.
_READ_THE_TABLE = ("FEARec",)


class LoggedSequences(LoggedDataset):
    """RecBole's SequentialDataset, field for field and bit for bit, without its prefix table.

    Every field but the user's has its list, MAX_ITEM_LIST_LENGTH wide, of the dtype the table would have.
    """

    def _times(self) -> npt.NDArray[np.float64]:
        if self.time_field not in self.inter_feat:
            raise DataError(
                f"{self.dataset_name}: no column {self.time_field!r} (TIME_FIELD) is loaded; "
                "sequences need an order"
            )
        times: npt.NDArray[np.float64] = self.inter_feat[self.time_field].to_numpy(np.float64)
        return times

    def _log_columns(self, order: IntArray) -> dict[str, npt.NDArray[Any]]:  # noqa: ARG002
        feat = self.inter_feat
        return {
            field: _widened(feat[field].numpy(), self.field2seqlen[f"{field}{self.config['LIST_SUFFIX']}"])
            for field in feat
            if field != self.uid_field
        }

    def _histories(self, ends: IntArray) -> Interaction:
        length = self.max_item_list_len
        rows, lengths = self.log.histories(ends, max_length=length, width=length)
        lists = self._lists(dict(self.log.columns), rows)
        return Interaction({self.item_list_length_field: torch.from_numpy(lengths), **lists})

    def save(self) -> None:
        """Save under the name that RecBole looks for: it asked for a SequentialDataset."""
        folder = Path(self.config["checkpoint_dir"])
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{self.config['dataset']}-{SequentialDataset.__name__}.pth"
        self.logger.info(f"Saving filtered dataset into [{file}]")
        with file.open("wb") as out:
            pickle.dump(self, out)


def _widened(column: npt.NDArray[Any], length: Any) -> npt.NDArray[Any]:
    """A column of lists [R, S] filled up to the length that the field is declared with."""
    if not isinstance(length, tuple) or column.shape[1] >= length[1]:
        return column
    widths = [(0, 0), (0, length[1] - column.shape[1]), *[(0, 0)] * (column.ndim - 2)]
    return np.pad(column, widths)


def choose_class(cls: type[Any], config: Any = None, *_: Any, **__: Any) -> Any:
    """``SequentialDataset.__new__``: the class itself, or, where the configuration asks for it, ours.

    RecBole looks the class up by name in several places; what it makes there is decided here, so that
    every place sees it. Subclasses, and unpickled datasets (which bring no configuration), stay what they
    are.
    """
    on_log = cls is SequentialDataset and config is not None and config["sequences"] == "log"
    return object.__new__(LoggedSequences if on_log else cls)


def check_model(config: Any) -> None:
    """Refuse ``sequences: log`` for a model that makes its own table, or reads it.

    Raises:
        SettingsError: names model and key.
    """
    model = config["model"]
    own = getattr(recbole.data.dataset, f"{model}Dataset", None)
    if config["MODEL_TYPE"] != ModelType.SEQUENTIAL:
        why = "is no sequential model"
    elif own is not None:
        why = f"has a dataset of its own ({own.__name__}), with a table of its own"
    elif model in _READ_THE_TABLE:
        why = "looks rows up in the table itself"
    elif config["benchmark_filename"] is not None:
        why = "is given pre-split files (benchmark_filename), which hold the table already"
    else:
        return
    raise SettingsError(f"sequences: log is not possible, since {model} {why}; set sequences: table")
