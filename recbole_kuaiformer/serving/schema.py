"""What a model needs of its dataset to be built again, without the dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from recbole.utils import FeatureSource, FeatureType
from torch import Tensor

# Where files lie on the machine that trained, and what only training reads.
_NOT_EXPORTED = {
    "data_path", "checkpoint_dir", "config_files", "config_file", "dataset_save_path",
    "dataloaders_save_path",
    "gpu_id", "device", "resume_from", "extra_keys", "wandb_project", "log_wandb", "ip", "port", "nproc",
    "world_size", "local_rank", "offset", "group_offset",
}  # fmt: skip


class ServingConfig(dict[str, Any]):
    """A RecBole configuration as plain values; like RecBole's, an unknown key is None.

    >>> ServingConfig(hidden_size=64)["no_such_key"] is None
    True
    """

    def __missing__(self, key: str) -> None:
        return None


def exported_config(plain: dict[str, Any]) -> dict[str, Any]:
    """The plain configuration of a run (``checkpoint.plain_config``) without what is its machine's."""
    return {key: value for key, value in plain.items() if key not in _NOT_EXPORTED}


def schema_of(dataset: Any) -> dict[str, Any]:
    """Fields of a RecBole dataset: type, source, number of values, length of lists; as plain values."""
    return {
        "name": dataset.dataset_name,
        "uid_field": dataset.uid_field,
        "iid_field": dataset.iid_field,
        "fields": {
            field: {
                "type": kind.value,
                "source": dataset.field2source[field].value,
                "n_values": len(dataset.field2id_token.get(field, ())),
                "length": _plain_length(dataset.field2seqlen.get(field, 1)),
            }
            for field, kind in dataset.field2type.items()
        },
    }


def _plain_length(length: Any) -> Any:
    return [int(part) for part in length] if isinstance(length, tuple) else int(length)


class ExportedDataset:
    """Stands in for the dataset while a model is built from an export; its values come with the weights.

    Args:
        schema: as written by ``schema_of``.
        state: the model's weights by name.
    """

    def __init__(self, schema: dict[str, Any], *, state: dict[str, Tensor]) -> None:
        fields = schema["fields"]
        self.dataset_name = schema["name"]
        self.field2type = {name: FeatureType(one["type"]) for name, one in fields.items()}
        self.field2source = {name: FeatureSource(one["source"]) for name, one in fields.items()}
        self.field2seqlen = {
            name: tuple(one["length"]) if isinstance(one["length"], list) else one["length"]
            for name, one in fields.items()
        }
        self._n_values = {name: one["n_values"] for name, one in fields.items()}
        self._state = state
        self.uid_field, self.iid_field = schema["uid_field"], schema["iid_field"]
        self.user_num, self.item_num = self._n_values[self.uid_field], self._n_values[self.iid_field]

    def target_counts(self) -> Tensor:
        """Any counts: the frequencies of an export come with its weights."""
        return torch.ones(self.item_num, dtype=torch.int64)

    def num(self, field: str) -> int:
        """Number of values of a token field, padding included."""
        return int(self._n_values[field])

    def get_item_feature(self) -> dict[str, Tensor]:
        """Columns of the items that the model keeps among its weights."""
        prefix = "tokens.item_"
        return {name[len(prefix) :]: v for name, v in self._state.items() if name.startswith(prefix)}

    def raw_floats(self, field: str) -> npt.NDArray[np.float64]:
        """A float column of the items."""
        return self.get_item_feature()[field].double().numpy()
