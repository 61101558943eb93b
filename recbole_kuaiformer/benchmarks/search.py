"""Hyper-parameters: python -m recbole_kuaiformer.benchmarks.search --model … --dataset … --out DIR.

Searches properties/search/<Model>.yaml with Optuna on the validation split, under the protocol of
benchmarks.compare; the test split is not looked at. Every model gets the same number of trials and the same
time for each. Writes <dataset>/<Model>.yaml, which `compare --params DIR` and --config_files read, and
<Model>.json with all trials. An interrupted search goes on where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from recbole_kuaiformer.benchmarks import running
from recbole_kuaiformer.benchmarks.comparison_settings import (
    Request,
    assignments,
    case,
    check_common,
    check_datasets,
)
from recbole_kuaiformer.benchmarks.search_space import space
from recbole_kuaiformer.benchmarks.search_study import Search, optuna_library
from recbole_kuaiformer.settings import SettingsError


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    options = argparse.ArgumentParser(prog="python -m recbole_kuaiformer.benchmarks.search")
    options.add_argument("--model", nargs="+", required=True, help="one or more")
    options.add_argument("--dataset", nargs="+", required=True, help="one or more")
    options.add_argument("--trials", type=int, required=True, help="of each model on each dataset")
    options.add_argument("--out", required=True, help="folder of the results")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--data_path", default="", help="where the datasets lie, as in RecBole")
    options.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    options.add_argument(
        "--try",
        dest="tries",
        nargs="+",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a trial, after the first one, of the model's own settings with these in their place, where its "
        "space has them; may be given several times",
    )
    options.add_argument("--max_epochs", type=int, default=None, help="bound on every trial")
    options.add_argument(
        "--time_budget", type=float, default=None, metavar="SECONDS", help="of training, for each trial"
    )
    return options


def searches(args: argparse.Namespace) -> list[Search]:
    """What the command line asks for.

    Raises:
        SettingsError: a model has no space, no model knows a key, or a setting is wrong.
    """
    common, own = assignments(args.set, models=args.model)
    request = Request(
        common=common,
        own=own,
        data_path=str(Path(args.data_path).resolve()) if args.data_path else "",
        max_epochs=args.max_epochs,
        time_budget=args.time_budget,
    )
    if 0 < args.trials < 1 + len(args.tries):
        raise SettingsError(
            f"--trials {args.trials}: too few for the model's own settings and {len(args.tries)} of --try"
        )
    check_common(request, models=args.model, datasets=args.dataset)
    found = []
    tries = [_tried(given, models=args.model) for given in args.tries]
    for dataset in args.dataset:
        for model in args.model:
            space(model)
            check_datasets([case(model, dataset, seed=args.seed, request=request)])
            folder = Path(args.out).resolve() / dataset
            running.check_no_file(folder)
            found.append(
                Search(
                    model,
                    dataset,
                    request,
                    n_trials=args.trials,
                    seed=args.seed,
                    folder=folder,
                    tries=[one[model] for one in tries],
                )
            )
    return found


def _tried(given: Iterable[str], *, models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What a trial tries, by model: of keys for all models those that its space has."""
    common, own = assignments(given, models=models, option="--try")
    spaces = {model: space(model) for model in models}
    searched = sorted({key for one in spaces.values() for key in one})
    if unknown := sorted({*common} - {*searched}):
        raise SettingsError(f"--try {unknown[0]}: in no model's space; there are {', '.join(searched)}")
    found = {}
    for model, dimensions in spaces.items():
        shared = {key: value for key, value in common.items() if key in dimensions}
        found[model] = {key: _plain(value) for key, value in {**shared, **own.get(model, {})}.items()}
        for key, value in found[model].items():
            if key not in dimensions or not dimensions[key].holds(value):
                raise SettingsError(
                    f"--try {key}: {value!r} is outside of {model}'s space, {dimensions.get(key)}"
                )
    return found


def _plain(value: str | None) -> Any:
    """A value as YAML reads it, and numbers as 2e-3, which YAML takes for text."""
    held = None if value is None else yaml.safe_load(value)
    if isinstance(held, str):
        with contextlib.suppress(ValueError):
            return float(held)
    return held


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 1 if a model has no finished trial, 2 for a wrong setting."""
    args = parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        optuna_library()
        missing = 0
        for search in searches(args):
            search.run()
            file = search.folder / f"{search.model}.yaml"
            missing += not file.is_file()
            print(file if file.is_file() else f"{search.dataset} {search.model}: no trial was finished")
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return int(missing > 0)


if __name__ == "__main__":
    sys.exit(main())
