"""The paper's claims, measured: python -m recbole_kuaiformer.benchmarks.experiments --which … --out DIR.

Runs what properties/experiments/<name>.yaml describes, each run in a process of its own under the protocol of
benchmarks.compare, and writes <name>/ with a page (<name>.md), the tables of every dataset and a plot of
every curve. An interrupted experiment goes on where it stopped, and runs that two experiments share are run
once.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_kuaiformer.benchmarks import (
    compare,
    comparison_grid,
    experiment_page,
    experiment_plots,
    running,
    searched_settings,
)
from recbole_kuaiformer.benchmarks.comparison_settings import Case, check_datasets
from recbole_kuaiformer.benchmarks.experiment_plan import Experiment, known_experiments, read
from recbole_kuaiformer.settings import SettingsError

Rows = list[dict[str, Any]]


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    options = argparse.ArgumentParser(prog="python -m recbole_kuaiformer.benchmarks.experiments")
    options.add_argument(
        "--which", nargs="+", required=True, help=f"of {', '.join(known_experiments())}, or files of your own"
    )
    options.add_argument("--out", required=True, help="folder of the results")
    options.add_argument("--data_path", default="", help="where the datasets lie, as in RecBole")
    options.add_argument("--datasets", nargs="+", default=[], help="only these of the experiment's")
    options.add_argument("--runs", nargs="+", default=[], help="only these of the experiment's")
    options.add_argument("--seeds", nargs="+", type=int, default=[], help="in place of the experiment's")
    options.add_argument(
        "--params", default="", help="folder of searched settings, in place of the experiment's"
    )
    options.add_argument("--max_epochs", type=int, default=None, help="bound on every training")
    options.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="key=value for every run whose model knows the key, run.key=value for one",
    )  # fmt: skip
    compare.add_published(options)
    return options


def planned(args: argparse.Namespace) -> list[tuple[Experiment, list[Case]]]:
    """The experiments that the command line asks for and their runs, every setting checked.

    Raises:
        SettingsError: there is no such experiment, or something in it is wrong.
    """
    found = [read(name).asked_for(args) for name in args.which]
    names = [experiment.name for experiment in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise SettingsError(f"--which: {twice[0]} is there twice, and would write into one folder")
    planned = [(experiment, experiment.cases()) for experiment in found]
    check_datasets(case for _, cases in planned for case in cases)
    return planned


def run(
    experiment: Experiment,
    cases: Sequence[Case],
    *,
    out: Path,
    command: str,
    known: Mapping[str, dict[str, Any]] | None = None,
) -> Rows:
    """Run what has not been run yet; writes the tables after each run, plots and the page at the end.

    Args:
        experiment: what is asked.
        cases: its runs.
        out: folder of all results.
        command: that asked, for the page.
        known: runs from elsewhere, as ``comparison_grid.published`` gives them.
    """
    folder = out / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    searched_settings.say_unsearched(cases, folder=experiment.params)
    rows: Rows = []
    for row in comparison_grid.rows(cases, out=out, known=known):
        rows.append(row)
        compare.report(rows, out=folder, about=f"`{command}`")
    compare.report_pairs(rows, runs=out, out=folder)
    plots = compare.plot(rows, out=folder) + experiment_plots.write(
        rows, experiment=experiment, folder=folder
    )
    text = experiment_page.page(rows, experiment=experiment, command=command, plots=plots)
    running.write_text(folder / f"{experiment.name}.md", text)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 1 if a run failed, 2 if a setting is wrong."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parser().parse_args(given)
    try:
        experiments = planned(args)
        folders = [Path(args.out) / experiment.name for experiment, _ in experiments]
        every = [case for _, cases in experiments for case in cases]
        known = comparison_grid.published(args.published, cases=every, folders=folders)
        running.results_folder(
            Path(args.out), within=[*folders, *comparison_grid.folders_of(every, out=Path(args.out))]
        )
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed = False
    for experiment, cases in experiments:
        print(f"{experiment.name}: {experiment.title}", flush=True)
        command = f"python -m recbole_kuaiformer.benchmarks.experiments {shlex.join(given)}"
        failed |= running.failed(run(experiment, cases, out=Path(args.out), command=command, known=known))
        print(Path(args.out) / experiment.name / f"{experiment.name}.md")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
