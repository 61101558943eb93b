"""Settings that a search has found: the folder of --params, <dataset>/<Model>.yaml."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from recbole_kuaiformer.settings import SettingsError, nearest


def chosen(model: str, dataset: str, *, folder: Path | None) -> dict[str, Any]:
    """What a search has found best for the model; empty where nothing was searched.

    Raises:
        SettingsError: there is no such folder, or the model's file in it does not hold settings.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise SettingsError(f"--params {folder}: no such folder; benchmarks.search --out makes one")
    file = _file(model, dataset, folder=folder)
    if not file.is_file():
        return {}
    try:
        held = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"--params: {file}: no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(held, dict):
        raise SettingsError(
            f"--params: {file}: must hold settings, one `key: value` a line, got {held!r:.60}"
        )
    return held


def check_keys(
    held: Mapping[str, Any], model: str, dataset: str, *, folder: Path | None, known: set[str]
) -> None:
    """Refuse settings of the model's file that mean nothing to it: RecBole's models would pass over them.

    Args:
        held: what the file holds.
        model: whose.
        dataset: on which.
        folder: of --params.
        known: keys that have a meaning for the model.

    Raises:
        SettingsError: names the file, the key, and the nearest known one.
    """
    for key in held:
        if key not in known and folder is not None:
            file = _file(model, dataset, folder=folder)
            raise SettingsError(f"--params: {file}: {key} is unknown to {model}{nearest(key, sorted(known))}")


def say_unsearched(cases: Iterable[Mapping[str, Any]], *, folder: Path | None) -> None:
    """Print in one line which models the folder has no file for, by dataset; nothing where there are none."""
    missing: dict[str, dict[str, None]] = {}
    for case in cases:
        model, dataset = case["model"], case["dataset"]
        if folder is not None and not _file(model, dataset, folder=folder).is_file():
            missing.setdefault(dataset, {})[model] = None
    if missing:
        listed = "; ".join(f"{', '.join(models)} on {dataset}" for dataset, models in missing.items())
        print(f"--params {folder} has no file for {listed}: their own yaml's values stand", flush=True)


def _file(model: str, dataset: str, *, folder: Path) -> Path:
    return folder / dataset / f"{model}.yaml"
