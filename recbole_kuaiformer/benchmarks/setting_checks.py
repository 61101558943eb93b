"""Values that would end a run, or make it another than asked for: one clear error before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import recbole
import yaml
from recbole.config import Config
from recbole.evaluator import metric_information, metrics_dict

from recbole_kuaiformer.settings import SettingsError, nearest

# Whole numbers that RecBole takes as they come, and the least of them that means something.
_AT_LEAST = {
    "epochs": 1, "train_batch_size": 1, "eval_batch_size": 1, "stopping_step": 0, "eval_step": 1,
    "MAX_ITEM_LIST_LENGTH": 1, "metric_decimal_place": 0,
}  # fmt: skip
_NUMBERS = (*_AT_LEAST, "learning_rate")  # never nothing
_OF_THE_MACHINE = ("gpu_id", "seed", "local_rank", "nproc", "worker")  # read in forms of their own
_LISTS = ("rec.items", "rec.topk")  # what metrics with a cut-off are computed from


def check_values(given: Mapping[str, Any], *, base: Any) -> None:
    """Refuse values that a model cannot be trained or judged by, texts of a command line among them.

    Args:
        given: settings, by key.
        base: the Config that they will stand over.

    Raises:
        SettingsError: names key and value, and the nearest right one.
    """
    held = {key: _as_read(key, value) for key, value in given.items()}
    for key, value in held.items():
        if key not in _OF_THE_MACHINE and (value is not None or key in _NUMBERS):
            _check_number(key, value, default=base.final_config_dict.get(key))
    for key in ("metrics", "topk"):
        if key in held and not _listed(held[key]):
            raise SettingsError(f"{key}: must name at least one, got {held[key]!r}")
    for name in _listed(held.get("metrics", [])):
        _check_metric(name, key="metrics")
    if "topk" in held and not all(is_whole(k) and k >= 1 for k in _listed(held["topk"])):
        raise SettingsError(f"topk: must be a list of whole numbers from 1, got {held['topk']!r}")
    if "valid_metric" in held:
        metrics = _listed(held.get("metrics", base["metrics"]))
        _check_valid_metric(held["valid_metric"], metrics=[str(name).lower() for name in metrics])


def _as_read(key: str, value: Any) -> Any:
    """The value that RecBole will read, which evaluates texts."""
    try:
        return Config._convert_config_dict(Config, {key: value})[key]
    except Exception as error:  # whatever the text does
        what = f"{type(error).__name__}: {error}"
        raise SettingsError(f"{key}: {value!r} cannot be read ({what})") from error


def _check_number(key: str, value: Any, *, default: Any) -> None:
    """Where RecBole or the model's yaml have a number, or True or False, there must be one."""
    if (least := _AT_LEAST.get(key)) is not None and not (is_whole(value) and value >= least):
        raise SettingsError(f"{key}: must be a whole number from {least}, got {value!r}")
    if isinstance(default, bool):
        if not isinstance(value, bool) and value not in (0, 1):
            raise SettingsError(f"{key}: must be True or False, got {value!r}")
    elif isinstance(default, int | float) and isinstance(value, str | bool):
        raise SettingsError(f"{key}: must be a number, got {value!r}")
    if key == "learning_rate" and not (isinstance(value, int | float) and value > 0):
        raise SettingsError(f"{key}: must be a number above 0, got {value!r}")


def _check_metric(name: Any, *, key: str) -> None:
    known = [kind.__name__ for kind in metrics_dict.values()]
    if not isinstance(name, str) or name.lower() not in metrics_dict:
        raise SettingsError(
            f"{key}: RecBole has no metric {name!r}{nearest(name, known)}; it has {', '.join(known)}"
        )


def _check_valid_metric(value: Any, *, metrics: Iterable[str]) -> None:
    """A metric with a cut-off where it has one; a metric without must be among those measured."""
    name, is_cut, k = str(value).partition("@")
    _check_metric(name, key="valid_metric")
    has_cut = any(need in _LISTS for need in metric_information[name.lower()])
    if has_cut and not (k.isdecimal() and int(k) >= 1):
        raise SettingsError(f"valid_metric: {value!r} needs a cut-off from 1, as {name}@10")
    if not has_cut and is_cut:
        raise SettingsError(f"valid_metric: {name} has no cut-off, got {value!r}; write {name}")
    if not has_cut and name.lower() not in metrics:
        raise SettingsError(f"valid_metric: {name} must be among metrics, which are {', '.join(metrics)}")


def check_measured(config: Any) -> None:
    """Refuse a valid_metric that RecBole's own training does not find among what it measures.

    Raises:
        SettingsError: its metric is not among ``metrics``, or its cut-off not in ``topk``.
    """
    name, is_cut, k = str(config["valid_metric"]).lower().partition("@")
    if name not in [one.lower() for one in config["metrics"]] or (is_cut and int(k) not in config["topk"]):
        measured = f"metrics {config['metrics']} at topk {config['topk']}"
        raise SettingsError(
            f"valid_metric: {config['valid_metric']} is not measured; measured are {measured}"
        )


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


def _listed(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list | tuple) else [value]


def is_whole(value: Any) -> bool:
    """Whether it is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)
