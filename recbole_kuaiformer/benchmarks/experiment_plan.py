"""What an experiment consists of: properties/experiments/<name>.yaml → runs of benchmarks.compare."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recbole_kuaiformer import defaults
from recbole_kuaiformer.benchmarks import experiment_form
from recbole_kuaiformer.benchmarks.comparison_settings import (
    Case,
    Request,
    assignments,
    case,
    check_common,
    keys_of_any,
)
from recbole_kuaiformer.benchmarks.comparison_summary import COSTS
from recbole_kuaiformer.benchmarks.experiment_form import RUN_KEYS
from recbole_kuaiformer.settings import SettingsError


@dataclass(frozen=True)
class Curve:
    """One panel: runs that differ in one key, or in one cost.

    Attributes:
        x: a key that some model of the runs knows, or one of COSTS, as ``train_seconds``.
        label: of the axis.
        runs: names; empty for all of them.
        paper: the paper's own values by x, drawn beside ours, as shares of their best; empty for none.
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
        inherited: keys of ``common`` and ``datasets`` that are another experiment's: none of the models need
            know them.
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
    inherited: frozenset[str] = frozenset()
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
                name: {**_but(self.datasets[name], common), **common, **of_runs}
                for name in args.datasets or self.datasets
            },
            inherited=self.inherited - common.keys(),
            runs={name: _replaced(self.runs[name], args, common) for name in args.runs or self.runs},
            seeds=tuple(args.seeds) or self.seeds,
            max_epochs=self.max_epochs if args.max_epochs is None else args.max_epochs,
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
        if not any(seeds.values()):
            raise SettingsError(f"{self.name}: nothing runs on {dataset}; look at datasets and seeds")
        models = {name: str(self.runs[name]["model"]) for name in seeds if seeds[name]}
        requests = {name: self._request(name, dataset) for name in models}
        request = next(iter(requests.values()))
        own = {key: value for key, value in request.common.items() if key not in self.inherited}
        check_common(replace(request, common=own), models=self.models, datasets=[dataset])
        found = [
            self._case(name, dataset, seed=seed, request=requests[name])
            for seed in dict.fromkeys(seed for some in seeds.values() for seed in some)
            for name in models
            if seed in seeds[name]
        ]
        self._check_metrics(found[0]["resolved"])
        self._check_curves(dataset)
        return found

    def _case(self, name: str, dataset: str, *, seed: int, request: Request) -> Case:
        try:
            return case(str(self.runs[name]["model"]), dataset, seed=seed, request=request, name=name)
        except SettingsError as error:
            raise SettingsError(f"{self.name}: runs: {name}: {error}") from error

    def _check_metrics(self, resolved: Mapping[str, Any]) -> None:
        measured = [f"{name.lower()}@{k}" for name in resolved["metrics"] for k in resolved["topk"]]
        if unknown := [one for one in self.metrics if one not in measured]:
            raise SettingsError(
                f"{self.name}: metrics: {unknown[0]} is not measured; measured are {', '.join(measured)}"
            )

    def _check_curves(self, dataset: str) -> None:
        asked = [one.x for one in self.curves if one.x not in COSTS]
        known = keys_of_any(self.models, dataset, data_path=self.data_path) if asked else set()
        if unknown := [x for x in asked if x not in known]:
            raise SettingsError(
                f"{self.name}: curves: x {unknown[0]} is no key of {', '.join(self.models)} and no cost "
                f"({', '.join(COSTS)})"
            )

    def _seeds(self, given: Mapping[str, Any], dataset: str) -> tuple[int, ...]:
        """Of a run on a dataset; none where it does not run there."""
        seeds = given.get("seeds", self.seeds)
        return tuple(seeds.get(dataset, ()) if isinstance(seeds, Mapping) else seeds)

    def _request(self, name: str, dataset: str) -> Request:
        given, settings = self.runs[name], self.datasets[dataset]
        of_run = {key: value for key, value in settings.items() if key.startswith(f"{name}.")}
        own = {**_without(given, RUN_KEYS), **{key[len(name) + 1 :]: of_run[key] for key in of_run}}
        return Request(
            common={**self.common, **{key: value for key, value in settings.items() if "." not in key}},
            own={name: own},
            data_path=self.data_path,
            params=self.params,
            max_epochs=given.get("max_epochs", self.max_epochs),
            time_budget=given.get("time_budget"),
        )


def _replaced(
    given: Mapping[str, Any], args: argparse.Namespace, common: Mapping[str, Any]
) -> dict[str, Any]:
    """A run with the command line's seeds, bound and keys; where it does not run it still does not."""
    run = _without(given, [*common, *([] if args.max_epochs is None else ["max_epochs"])])
    if args.seeds and "seeds" in run:
        own = run["seeds"]
        run["seeds"] = dict.fromkeys(own, args.seeds) if isinstance(own, Mapping) else args.seeds
    return run


def _but(settings: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset's settings without ``run.key`` where the command line sets the key for all runs."""
    return {key: value for key, value in settings.items() if key.partition(".")[2] not in common}


def _without(given: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key not in keys}


def known_experiments() -> list[str]:
    """Names of the experiments in properties/experiments/."""
    return sorted(file.stem for file in experiment_form.folder().glob("*.yaml"))


def read(name: str) -> Experiment:
    """An experiment of properties/experiments/, or of a YAML file of one's own.

    Raises:
        SettingsError: there is none, or it has not the form of one.
    """
    file = Path(name) if name.endswith(".yaml") else experiment_form.folder() / f"{name}.yaml"
    if not file.is_file():
        raise SettingsError(f"--which {name}: no such experiment; there are {', '.join(known_experiments())}")
    held = experiment_form.load(file)
    return Experiment(
        name=file.stem,
        title=held["title"],
        question=" ".join(held["question"].split()),
        datasets={dataset: settings or {} for dataset, settings in held["datasets"].items()},
        seeds=tuple(held.get("seeds", [1])),
        common=held.get("common", {}),
        runs={str(run): given for run, given in held["runs"].items()},
        curves=tuple(
            Curve(one["x"], one.get("label", one["x"]), tuple(one.get("runs", ())), one.get("paper"))
            for one in held.get("curves", ())
        ),
        metrics=tuple(held.get("metrics", ("recall@10", "recall@50"))),
        models=tuple(dict.fromkeys(str(given["model"]) for given in held["runs"].values())),
        inherited=held["inherited"],
        max_epochs=held.get("max_epochs"),
        params=defaults.properties_folder() / held["params"] if held.get("params") else None,
    )
