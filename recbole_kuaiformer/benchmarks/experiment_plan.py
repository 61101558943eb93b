"""What an experiment consists of: properties/experiments/<name>.yaml → runs of benchmarks.compare."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from recbole_kuaiformer import defaults
from recbole_kuaiformer.benchmarks.comparison_settings import (
    Case,
    Request,
    assignments,
    case,
    check_common,
)
from recbole_kuaiformer.config import SettingsError

_NEEDED = {"title", "question", "datasets", "runs"}
_KEYS = _NEEDED | {"seeds", "max_epochs", "params", "common", "curves", "metrics"}
# What a run holds beside settings of its model; all but the first stand in place of the experiment's.
_RUN_KEYS = ("model", "seeds", "max_epochs", "time_budget")
_CURVE_KEYS = {"x", "label", "runs", "paper"}


@dataclass(frozen=True)
class Curve:
    """One panel: runs that differ in one key, or in one cost.

    Attributes:
        x: a key of the configuration, or a number that every run's row holds, as ``train_seconds``.
        label: of the axis.
        runs: names; empty for all of them.
        paper: the paper's own values by x, drawn beside ours on an axis of their own; empty for none.
    """

    x: str
    label: str
    runs: tuple[str, ...] = ()
    paper: Mapping[float, float] | None = None


@dataclass(frozen=True)
class Experiment:
    """Runs of models, under names, on datasets; and how they are shown.

    Attributes:
        name: the file's.
        title: of its page.
        question: what it asks, in a few sentences.
        datasets: settings of each, over ``common``; ``run.key`` for one run.
        seeds: of every run.
        common: settings of every run whose model knows the key.
        runs: by name: ``model``, settings of its own and, where they differ from the experiment's, ``seeds``
            (also by dataset; those not named are left out), ``max_epochs`` and ``time_budget``, seconds.
        curves: panels of the plot.
        metrics: on the vertical axes, as recall@10.
        models: of all runs in the file, also where some are asked for alone: ``common`` is for any of them.
        max_epochs: bound on every training.
        params: folder of searched settings, <dataset>/<Model>.yaml; None for none.
        data_path: where the datasets lie, as in RecBole.
    """

    name: str
    title: str
    question: str
    datasets: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...]
    common: Mapping[str, Any]
    runs: Mapping[str, Mapping[str, Any]]
    curves: tuple[Curve, ...]
    metrics: tuple[str, ...]
    models: tuple[str, ...] = ()
    max_epochs: int | None = None
    params: Path | None = None
    data_path: str = ""

    def asked_for(self, args: argparse.Namespace) -> Experiment:
        """The same with what a command line sets in its place.

        Raises:
            SettingsError: a dataset or run is none of the experiment's, or a text is no key=value.
        """
        for option, asked, there in (
            ("--datasets", args.datasets, self.datasets),
            ("--runs", args.runs, self.runs),
        ):
            if unknown := [one for one in asked if one not in there]:
                raise SettingsError(
                    f"{option} {unknown[0]}: {self.name} has {', '.join(there)}; for others write a file of "
                    "your own like it"
                )
        common, own = assignments(args.set, models=self.runs)
        of_runs = {f"{run}.{key}": value for run, keys in own.items() for key, value in keys.items()}
        return replace(
            self,
            datasets={
                name: {**self.datasets[name], **common, **of_runs} for name in args.datasets or self.datasets
            },
            runs={name: _replaced(self.runs[name], args) for name in args.runs or self.runs},
            seeds=tuple(args.seeds) or self.seeds,
            max_epochs=args.max_epochs or self.max_epochs,
            params=Path(args.params) if args.params else self.params,
            data_path=str(Path(args.data_path).resolve()) if args.data_path else "",
        )

    def cases(self) -> list[Case]:
        """Every run, a dataset's after one another, and of these the first seed of all runs first.

        Raises:
            SettingsError: a model, key or value is wrong.
        """
        return [one for dataset in self.datasets for one in self._cases(dataset)]

    def _cases(self, dataset: str) -> list[Case]:
        seeds = {name: self._seeds(given, dataset) for name, given in self.runs.items()}
        models = {name: str(self.runs[name]["model"]) for name in seeds if seeds[name]}
        requests = {name: self._request(name, dataset) for name in models}
        for request in [*requests.values()][:1]:
            check_common(request, models=self.models, datasets=[dataset])
        return [
            case(model, dataset, seed=seed, request=requests[name], name=name)
            for seed in dict.fromkeys(seed for some in seeds.values() for seed in some)
            for name, model in models.items()
            if seed in seeds[name]
        ]

    def _seeds(self, given: Mapping[str, Any], dataset: str) -> tuple[int, ...]:
        """Of a run on a dataset; none where it does not run there."""
        seeds = given.get("seeds", self.seeds)
        return tuple(seeds.get(dataset, ()) if isinstance(seeds, Mapping) else seeds)

    def _request(self, name: str, dataset: str) -> Request:
        given, settings = self.runs[name], self.datasets[dataset]
        of_run = {key: value for key, value in settings.items() if key.startswith(f"{name}.")}
        own = {**_without(given, _RUN_KEYS), **{key[len(name) + 1 :]: of_run[key] for key in of_run}}
        return Request(
            common={**self.common, **{key: value for key, value in settings.items() if "." not in key}},
            own={name: own},
            data_path=self.data_path,
            params=self.params,
            max_epochs=given.get("max_epochs", self.max_epochs),
            time_budget=given.get("time_budget"),
        )


def _replaced(given: Mapping[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """A run with the command line's seeds and bound; where it does not run it still does not."""
    run = _without(given, ["max_epochs"] if args.max_epochs else [])
    if args.seeds and "seeds" in run:
        own = run["seeds"]
        run["seeds"] = dict.fromkeys(own, args.seeds) if isinstance(own, Mapping) else args.seeds
    return run


def _without(given: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key not in keys}


def known_experiments() -> list[str]:
    """Names of the experiments in properties/experiments/."""
    return sorted(file.stem for file in _folder().glob("*.yaml"))


def read(name: str) -> Experiment:
    """An experiment of properties/experiments/, or of a YAML file of one's own.

    Raises:
        SettingsError: there is none, or it has not the form of one.
    """
    file = Path(name) if name.endswith(".yaml") else _folder() / f"{name}.yaml"
    if not file.is_file():
        raise SettingsError(f"--which {name}: no such experiment; there are {', '.join(known_experiments())}")
    held = yaml.safe_load(file.read_text(encoding="utf-8"))
    _check_form(held, file=file)
    return Experiment(
        name=file.stem,
        title=held["title"],
        question=" ".join(held["question"].split()),
        datasets={dataset: settings or {} for dataset, settings in held["datasets"].items()},
        seeds=tuple(held.get("seeds", [1])),
        common=held.get("common", {}),
        runs={str(run): given for run, given in held["runs"].items()},
        curves=tuple(_curve(one, file=file, runs=held["runs"]) for one in held.get("curves", ())),
        metrics=tuple(held.get("metrics", ("recall@10", "recall@50"))),
        models=tuple(dict.fromkeys(str(given["model"]) for given in held["runs"].values())),
        max_epochs=held.get("max_epochs"),
        params=defaults.properties_folder() / held["params"] if "params" in held else None,
    )


def _check_form(held: Any, *, file: Path) -> None:
    keys = set(held) if isinstance(held, dict) else set()
    if wrong := sorted(_NEEDED - keys or keys - _KEYS):
        what = "is not there" if _NEEDED - keys else f"is none of {', '.join(sorted(_KEYS))}"
        raise SettingsError(f"{file.name}: {wrong[0]} {what}")
    for run, given in held["runs"].items():
        if not isinstance(given, dict) or "model" not in given:
            raise SettingsError(f"{file.name}: runs: {run} names no model")
        if "." in str(run):
            raise SettingsError(f"{file.name}: runs: {run} has a dot, which parts a run from its key")
    of_runs = [key for settings in held["datasets"].values() for key in settings or {} if "." in key]
    if unknown := [key for key in of_runs if key.partition(".")[0] not in held["runs"]]:
        raise SettingsError(f"{file.name}: datasets: {unknown[0]} is for none of the runs")


def _curve(given: Mapping[str, Any], *, file: Path, runs: Sequence[str]) -> Curve:
    if unknown := sorted({*given} - _CURVE_KEYS):
        raise SettingsError(f"{file.name}: curves: {unknown[0]} is none of {', '.join(sorted(_CURVE_KEYS))}")
    named = tuple(given.get("runs", ()))
    if missing := [run for run in named if run not in runs]:
        raise SettingsError(f"{file.name}: curves: {missing[0]} is none of the runs")
    return Curve(given["x"], given.get("label", given["x"]), named, given.get("paper"))


def _folder() -> Path:
    return defaults.properties_folder() / "experiments"
