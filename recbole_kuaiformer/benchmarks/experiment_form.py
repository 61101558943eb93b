"""The form of an experiment's file: every key there, known and of the right kind, or one clear error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from recbole_kuaiformer import defaults
from recbole_kuaiformer.settings import SettingsError
from recbole_kuaiformer.value_checks import is_whole

NEEDED = ("title", "question", "datasets", "runs")
KEYS = (*NEEDED, "base", "seeds", "max_epochs", "params", "common", "curves", "metrics")
# Of the experiment that a file is based on, under its own; the first two setting by setting.
INHERITED = ("common", "datasets", "seeds", "max_epochs", "params", "metrics")
# What a run holds beside settings of its model; all but the first stand in place of the experiment's.
RUN_KEYS = ("model", "seeds", "max_epochs", "time_budget")
CURVE_KEYS = ("x", "label", "runs", "paper")
_NOT_IN_NAMES = ".=|/\\\n"


def folder() -> Path:
    """Where the package's own experiments are."""
    return defaults.properties_folder() / "experiments"


def load(file: Path, *, based_on_it: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What the file holds, over what the experiment that it is based on holds (``base``, of INHERITED).

    ``inherited`` of the result are the keys, of ``common`` and the datasets, that the file does not name.

    Args:
        file: YAML.
        based_on_it: files whose ``base`` this one is, by way of the last of them.

    Raises:
        SettingsError: it is no YAML, or not of the form of an experiment; names file, key and value.
    """
    try:
        held = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file.name}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(held, dict):
        raise SettingsError(f"{file.name}: must hold {', '.join(NEEDED)}, got {held!r:.60}")
    own = {*_keys_of_all(held)}
    if "base" in held:
        base = _base(file, held["base"], based_on_it=(*based_on_it, file.resolve()))
        held = _over(base, held)
    _Form(file.name, held).check()
    return {**held, "inherited": frozenset(_keys_of_all(held)) - own}


def _keys_of_all(held: Mapping[str, Any]) -> Iterator[str]:
    """Settings for every model that knows them, in ``common`` or of a dataset."""
    datasets = held.get("datasets")
    given = [held.get("common"), *(datasets.values() if isinstance(datasets, dict) else ())]
    return (str(key) for settings in given if isinstance(settings, dict) for key in settings)


def _base(file: Path, name: Any, *, based_on_it: tuple[Path, ...]) -> dict[str, Any]:
    is_file = isinstance(name, str) and name.endswith(".yaml")
    there = file.parent / name if is_file else folder() / f"{name}.yaml"
    if not isinstance(name, str) or not there.is_file():
        raise SettingsError(
            f"{file.name}: base {name!r} is no experiment of properties/, nor a file beside it"
        )
    if there.resolve() in based_on_it:
        raise SettingsError(f"{file.name}: base {name!r} is based on this file itself")
    return load(there, based_on_it=based_on_it)


def _over(base: Mapping[str, Any], held: Mapping[str, Any]) -> dict[str, Any]:
    """The file over its base: of datasets those that it names, or all; no settings of single runs.

    What the file says for all datasets stands over what its base says for one.
    """
    merged = {key: base[key] for key in INHERITED if key in base} | dict(held)
    own = held.get("common", {})
    named = held.get("datasets", dict.fromkeys(base["datasets"]))
    if isinstance(own, dict) and isinstance(named, dict):  # the form says what is wrong otherwise
        merged["common"] = {**base.get("common", {}), **own}
        merged["datasets"] = {
            name: _settings_over(base["datasets"].get(name), given, hidden=own)
            for name, given in named.items()
        }
    return merged


def _settings_over(base: Mapping[str, Any] | None, given: Any, *, hidden: Iterable[str]) -> Any:
    if not (given is None or isinstance(given, dict)):
        return given  # which the form refuses
    of_all_runs = {
        key: value for key, value in (base or {}).items() if "." not in str(key) and key not in hidden
    }
    return {**of_all_runs, **(given or {})}


class _Loader(yaml.SafeLoader):
    """YAML in which a key that is there twice is an error, and not the last of the two."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(problem=f"{key.value} is there twice", problem_mark=key.start_mark)
            if name is not None:
                seen.add(name)
        return node


class _Form:
    """Checks of one file; each raises SettingsError."""

    def __init__(self, file: str, held: dict[str, Any]) -> None:
        self.file, self.held = file, held

    def check(self) -> None:
        for key in NEEDED:
            self._need(key in self.held, key, "is not there")
        for key in self.held:
            self._need(key in KEYS, str(key), f"is none of {', '.join(sorted(KEYS))}")
        for key in ("title", "question"):
            self._need(isinstance(self.held[key], str), key, f"must be a text, got {self.held[key]!r}")
        self._mappings()
        self._runs()
        self._numbers(self.held, where="")
        if "seeds" in self.held:
            self._seeds(self.held["seeds"], where="seeds")
        self._curves()
        metrics = self.held.get("metrics", ["recall@10"])
        is_list = isinstance(metrics, list) and metrics and all(isinstance(one, str) for one in metrics)
        self._need(is_list, "metrics", f"must be a list as [recall@10, recall@50], got {metrics!r}")
        params = self.held.get("params") or "search"
        there = isinstance(params, str) and (defaults.properties_folder() / params).is_dir()
        self._need(there, "params", f"must be a folder in properties/, got {params!r}")

    def _need(self, holds: object, where: str, what: str) -> None:
        if not holds:
            raise SettingsError(f"{self.file}: {where} {what}")

    def _mappings(self) -> None:
        for key in ("datasets", "runs"):
            held = self.held[key]
            is_some = isinstance(held, dict) and held and all(isinstance(name, str) for name in held)
            self._need(is_some, key, f"must hold settings by name (a text), got {held!r:.60}")
        common = self.held.get("common", {})
        self._need(isinstance(common, dict), "common", f"must hold settings, got {common!r:.60}")
        for name, settings in self.held["datasets"].items():
            is_fine = settings is None or isinstance(settings, dict)
            self._need(is_fine, f"datasets: {name}", f"must hold settings, or nothing, got {settings!r:.60}")
            for key in settings or {}:
                run, is_of_run, _ = str(key).partition(".")
                known = not is_of_run or run in self.held["runs"]
                self._need(known, f"datasets: {key}", "is for none of the runs")

    def _runs(self) -> None:
        for name, given in self.held["runs"].items():
            where = f"runs: {name}"
            wrong = [letter for letter in _NOT_IN_NAMES if letter in name]
            self._need(name.strip(), where, "has no name")
            self._need(not wrong, where, f"has {wrong[:1]!r} in its name, which cannot be")
            names_model = isinstance(given, dict) and isinstance(given.get("model"), str)
            self._need(names_model, where, "names no model")
            self._numbers(given, where=f"{where}: ")
            if isinstance(seeds := given.get("seeds"), dict):
                for dataset, some in seeds.items():
                    known = dataset in self.held["datasets"]
                    self._need(known, f"{where}: seeds: {dataset}", "is none of the datasets")
                    self._seeds(some, where=f"{where}: seeds: {dataset}")
            elif "seeds" in given:
                self._seeds(seeds, where=f"{where}: seeds")

    def _seeds(self, seeds: Any, *, where: str) -> None:
        is_list = isinstance(seeds, list) and seeds and all(is_whole(seed) for seed in seeds)
        self._need(is_list, where, f"must be a list of whole numbers, got {seeds!r}")

    def _numbers(self, given: Mapping[str, Any], *, where: str) -> None:
        epochs = given.get("max_epochs", 1)
        is_fine = epochs is None or (is_whole(epochs) and epochs >= 1)
        self._need(is_fine, f"{where}max_epochs", f"must be a whole number from 1, got {epochs!r}")
        budget = given.get("time_budget", 1)
        is_fine = isinstance(budget, int | float) and not isinstance(budget, bool) and budget > 0
        self._need(is_fine, f"{where}time_budget", f"must be seconds above 0, got {budget!r}")

    def _curves(self) -> None:
        curves = self.held.get("curves", [])
        self._need(isinstance(curves, list), "curves", f"must be a list, got {curves!r:.60}")
        for curve in curves:
            has_x = isinstance(curve, dict) and isinstance(curve.get("x"), str)
            self._need(has_x, "curves", f"must each have an x, a key or a cost: {curve!r:.60}")
            for key in curve:
                self._need(key in CURVE_KEYS, f"curves: {key}", f"is none of {', '.join(sorted(CURVE_KEYS))}")
            runs, paper = curve.get("runs", []), curve.get("paper", {})
            self._need(isinstance(runs, list), "curves: runs", f"must be a list, got {runs!r:.60}")
            for run in runs:
                self._need(run in self.held["runs"], f"curves: {run}", "is none of the runs")
            is_fine = isinstance(paper, dict) and all(
                isinstance(number, int | float) for pair in paper.items() for number in pair
            )
            self._need(is_fine, "curves: paper", f"must hold a number for each x, got {paper!r:.60}")
