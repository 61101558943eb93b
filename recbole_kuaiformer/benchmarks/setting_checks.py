"""What a benchmark refuses before it runs: values that leave nothing to train, and datasets without files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import recbole
import yaml
from recbole.config import Config

from recbole_kuaiformer import value_checks
from recbole_kuaiformer.settings import SettingsError, nearest

# Here every model is trained and judged.
_AT_LEAST = {**value_checks.AT_LEAST, "epochs": 1, "eval_step": 1, "stopping_step": 0}


# What a benchmark sets by itself, and how it is told.
_OURS = {
    "model": "a run names its model, `compare` takes --models",
    "dataset": "it is one of --datasets",
    "data_path": "it is --data_path",
    "seed": "seeds are --seeds, or `seeds` of an experiment or run",
    "resume_from": "a run goes on from its own checkpoint by itself",
    "checkpoint_dir": "a run keeps its checkpoint in its folder under --out",
    "show_progress": "runs say how far they are by themselves",
    **dict.fromkeys(
        ("config_file", "config_files"), "a folder of files is --params, or an experiment's `params`"
    ),
    **dict.fromkeys(
        ("nproc", "world_size", "local_rank", "ip", "port", "offset", "group_offset"), "a run is one process"
    ),
}


def check_settable(given: Iterable[str], *, where: str) -> None:
    """Refuse keys of a run that a benchmark sets by itself: another's checkpoint is not this run's.

    Args:
        given: keys of settings.
        where: they were found.

    Raises:
        SettingsError: names the key, and what to use in its place.
    """
    for key in given:
        if key in _OURS:
            raise SettingsError(f"{where}: {key} cannot be set there: {_OURS[key]}")


def check_values(given: Mapping[str, Any], *, base: Any) -> None:
    """Refuse values that a model cannot be trained or judged by, texts of a command line among them.

    Args:
        given: settings, by key.
        base: the Config that they will stand over.

    Raises:
        SettingsError: names key and value, and the nearest right one.
    """
    held = {key: _as_read(key, value) for key, value in given.items()}
    value_checks.check_values(held, defaults=base.final_config_dict, at_least=_AT_LEAST)
    if not held.get("learning_rate", 1) > 0:
        raise SettingsError(f"learning_rate: must be a number above 0, got {held['learning_rate']!r}")
    if "valid_metric" in held:
        value_checks.check_valid_metric(held["valid_metric"], metrics=held.get("metrics", base["metrics"]))


def _as_read(key: str, value: Any) -> Any:
    """The value that RecBole will read, which evaluates texts."""
    try:
        return Config._convert_config_dict(Config, {key: value})[key]
    except Exception as error:  # whatever the text does
        what = f"{type(error).__name__}: {error}"
        raise SettingsError(f"{key}: {value!r} cannot be read ({what})") from error


def check_files(config: Any) -> None:
    """Refuse a dataset without files, unless RecBole can download it.

    Raises:
        SettingsError: names the dataset, where it was looked for, and the nearest one there is.
    """
    name, folder = str(config["dataset"]), Path(config["data_path"])
    if config["dataset_save_path"]:
        return
    if not folder.exists():
        there = [one.name for one in folder.parent.glob("*") if one.is_dir()]
        known = _downloaded_by_recbole()
        if name not in known:
            near = nearest(name, there) or nearest(name, known)
            raise SettingsError(
                f"dataset {name}: {folder} is not there, and RecBole has none of the name to download{near}; "
                f"--data_path names the folder that holds {name}/"
            )
        return
    parts = config["benchmark_filename"]
    for file in [name] if parts is None else [f"{name}.{part}" for part in parts]:
        if not (folder / f"{file}.inter").is_file():
            raise SettingsError(f"dataset {name}: {folder / f'{file}.inter'} is not there")


def _downloaded_by_recbole() -> dict[str, str]:
    """Addresses by dataset."""
    file = Path(recbole.__file__).parent / "properties" / "dataset" / "url.yaml"
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")))
