"""Models compared: python -m recbole_kuaiformer.benchmarks.compare --models … --datasets … --out DIR.

Trains and tests every model on every dataset with every seed, each in a process of its own, under one
protocol (properties/comparison.yaml). Writes for each dataset <dataset>.csv, .json, .md, .tex and .png, and
significance.md and .json over all of them. An interrupted comparison goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_kuaiformer.benchmarks import (
    comparison_grid,
    comparison_plots,
    comparison_tables,
    running,
    searched_settings,
    significance,
)
from recbole_kuaiformer.benchmarks.comparison_settings import (
    Case,
    Request,
    assignments,
    case,
    check_common,
    check_datasets,
    named,
)
from recbole_kuaiformer.benchmarks.comparison_summary import by_dataset
from recbole_kuaiformer.settings import SettingsError

Rows = list[dict[str, Any]]


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    options = argparse.ArgumentParser(prog="python -m recbole_kuaiformer.benchmarks.compare")
    options.add_argument(
        "--models",
        nargs="+",
        required=True,
        help="of RecBole or of this package; name=Model for several runs of one",
    )
    options.add_argument("--datasets", nargs="+", required=True)
    options.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    options.add_argument("--out", required=True, help="folder of the results")
    options.add_argument("--data_path", default="", help="where the datasets lie, as in RecBole")
    options.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="key=value for every model that knows the key, Model.key=value for one model",
    )  # fmt: skip
    options.add_argument("--params", default="", help="folder of settings that benchmarks.search has found")
    options.add_argument("--max_epochs", type=int, default=None, help="bound on every training")
    options.add_argument(
        "--time_budget", type=float, default=None, metavar="SECONDS",
        help="of training, for each run: no epoch begins after them, and the best one is tested",
    )  # fmt: skip
    options.add_argument(
        "--per_user", choices=("True", "False"), default="True", help="save every user's ranks"
    )
    add_published(options)
    return options


def add_published(options: argparse.ArgumentParser) -> None:
    """The option of both commands that takes runs from files."""
    options.add_argument(
        "--published", nargs="+", action="extend", default=[], metavar="FILE",
        help="<dataset>.json of earlier comparisons: their runs are taken where they are the same as runs "
        "asked for, and not run again",
    )  # fmt: skip


def plan(args: argparse.Namespace) -> list[Case]:
    """Every run, a dataset's after one another, and of these the first seed of all models first.

    Raises:
        SettingsError: a model, dataset, key or value is wrong.
    """
    models = named(args.models)
    common, own = assignments(args.set, models=models)
    request = Request(
        common=common,
        own=own,
        data_path=str(Path(args.data_path).resolve()) if args.data_path else "",
        params=Path(args.params) if args.params else None,
        max_epochs=args.max_epochs,
        time_budget=args.time_budget,
        per_user=args.per_user == "True",
    )
    check_common(request, models=models.values(), datasets=args.datasets)
    cases = [
        case(model, dataset, seed=seed, request=request, name=name)
        for dataset in args.datasets
        for seed in dict.fromkeys(args.seeds)
        for name, model in models.items()
    ]
    check_datasets(cases)
    return cases


def report(rows: Rows, *, out: Path, about: str) -> None:
    """Write the tables of every dataset in the rows."""
    for dataset, of_dataset in by_dataset(rows).items():
        texts = {
            "csv": comparison_tables.as_csv(of_dataset),
            "json": comparison_tables.as_json(of_dataset),
            "md": comparison_tables.as_markdown(of_dataset, dataset=dataset, about=about),
            "tex": comparison_tables.as_latex(of_dataset, dataset=dataset),
        }
        for ending, text in texts.items():
            running.write_text(out / f"{dataset}.{ending}", text)


def plot(rows: Rows, *, out: Path) -> list[Path]:
    """Write <dataset>.png of every dataset in the rows; returns those that were drawn."""
    drawn = []
    for dataset, of_dataset in by_dataset(rows).items():
        file = out / f"{dataset}.png"
        if comparison_plots.write(of_dataset, file=file, title=dataset):
            drawn.append(file)
        else:
            print(f"no plot of {dataset}: no matplotlib (pip install matplotlib), or no finished run")
    return drawn


def report_pairs(rows: Rows, *, runs: Path, out: Path) -> None:
    """Write significance.md and .json of all pairs of models, where ranks were saved.

    Args:
        rows: of all runs.
        runs: the folder under which these lie.
        out: where the two files go.
    """
    found = []
    for dataset, of_dataset in by_dataset(rows).items():
        ranks = significance.ranks_by_model(of_dataset, out=runs)
        found += significance.compared(ranks, dataset=dataset, metrics=_tested(of_dataset))
    found = significance.corrected(found)
    text = json.dumps(significance.as_rows(found), indent=1)
    running.write_text(out / "significance.json", text)
    running.write_text(out / "significance.md", significance.as_markdown(found))


def _tested(rows: Rows) -> tuple[str, ...]:
    """Of the metrics that are tested those of 10, and deeper ones where something as deep was measured.

    Ranks are exact at any depth, but every rank is within a cut-off beyond the catalogue.
    """
    held = [name for row in rows for metrics in row.get("readings", {}).values() for name in metrics]
    deepest = max([10, *(int(name.partition("@")[2]) for name in held if "@" in name)])
    return tuple(name for name in significance.METRICS if int(name.partition("@")[2]) <= deepest)


def about(arguments: Sequence[str]) -> str:
    """Command and protocol in a few lines."""
    return (
        f"`python -m recbole_kuaiformer.benchmarks.compare {' '.join(arguments)}`\n\n"
        "Leave-one-out in order of time, ranked over the whole catalogue; mean ± standard deviation over "
        "seeds. The two readings of history are not to be compared with each other. Seconds are of training "
        "alone, without validation; what made the runs, and when, stands below."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 1 if a run failed, 2 if a setting is wrong."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parser().parse_args(given)
    out = Path(args.out)
    try:
        cases = plan(args)
        known = comparison_grid.published(args.published, cases=cases, folders=[out])
        running.results_folder(out, within=comparison_grid.folders_of(cases, out=out))
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    searched_settings.say_unsearched(cases, folder=Path(args.params) if args.params else None)
    rows: Rows = []
    for row in comparison_grid.rows(cases, out=out, known=known):
        rows.append(row)
        report(rows, out=out, about=about(given))
    report_pairs(rows, runs=out, out=out)
    plot(rows, out=out)
    print(out)
    return int(running.failed(rows))


if __name__ == "__main__":
    sys.exit(main())
