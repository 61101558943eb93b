"""Checkpoints of plain types: they load with torch's safe loader and run no code of the file's author."""

from __future__ import annotations

import hashlib
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config
from recbole.utils import EvaluatorType, FeatureType, InputType, ModelType, get_model

FORMAT = "recbole_kuaiformer/1"
_ENUMS = {enum.__name__: enum for enum in (EvaluatorType, FeatureType, InputType, ModelType)}


FINGERPRINT = "dataset_fingerprint"  # key of the configuration; written by training, never given


class CheckpointError(ValueError):
    """A file is no readable checkpoint of this package; the message names it."""


def save(state: dict[str, Any], *, path: Path) -> None:
    """Write ``state`` whole or not at all: beside the file first, then in its place."""
    beside = path.with_name(path.name + ".part")
    # Protocol 2 is what torch's safe loader reads; RecBole's protocol 4 is not.
    torch.save({**state, "format": FORMAT}, beside, pickle_protocol=2)
    beside.replace(path)


def load(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state written by ``save``, with torch's safe loader.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is cut off, corrupt, or no checkpoint of this package.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path}: not a readable checkpoint (cut off, corrupt, or written by another program); use the "
            f"run's other checkpoint, or train again"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of recbole_kuaiformer")
    return state


def last_beside(best: Path) -> Path:
    """Where the last completed epoch is kept beside the best one's checkpoint.

    >>> last_beside(Path("saved/KuaiFormer.pth")).name
    'KuaiFormer-last.pth'
    """
    return best.with_name(f"{best.stem}-last.pth")


def fingerprint(dataset: Any) -> str:
    """SHA-256 of the numbers a RecBole dataset gives its items and token fields (users excepted).

    RecBole numbers tokens as they first appear: weights fit a dataset only if the numbers are the same.
    """
    digest = hashlib.sha256()
    for field in sorted(dataset.field2id_token):
        if field != dataset.uid_field:
            digest.update("\x1f".join([field, *map(str, dataset.field2id_token[field])]).encode())
            digest.update(b"\x1e")
    return digest.hexdigest()


def plain_config(config: Config) -> dict[str, Any]:
    """A RecBole Config as nested dicts, lists, strings and numbers."""
    return {
        "final": {key: _plain(value) for key, value in config.final_config_dict.items()},
        "parameters": {name: list(keys) for name, keys in config.parameters.items()},
    }


def with_recbole_config(state: Any) -> Any:
    """A checkpoint of ours with its configuration as the Config that RecBole's functions expect."""
    if isinstance(state, dict) and state.get("format") == FORMAT and isinstance(state.get("config"), dict):
        state["config"] = _restored(state["config"])
    return state


def _restored(plain: dict[str, Any]) -> Config:
    config = Config.__new__(Config)
    config.compatibility_settings()
    config.parameters = plain["parameters"]
    config.yaml_loader = config._build_yaml_loader()
    config.final_config_dict = {key: _rich(value) for key, value in plain["final"].items()}
    config.model, config.dataset = config.final_config_dict["model"], config.final_config_dict["dataset"]
    config.model_class = get_model(config.model)
    config.final_config_dict["device"] = torch.device(
        "cuda" if torch.cuda.is_available() and config.final_config_dict["use_gpu"] else "cpu"
    )
    return config


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return {"__enum__": [type(value).__name__, value.name]}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)  # a device


def _rich(value: Any) -> Any:
    if isinstance(value, dict) and "__enum__" in value:
        name, member = value["__enum__"]
        return _ENUMS[name][member]
    if isinstance(value, dict):
        return {key: _rich(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rich(item) for item in value]
    return value
