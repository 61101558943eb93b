"""Who is found, by length of history: python -m recbole_kuaiformer.benchmarks.by_length --out DIR.

Takes the ranks that a comparison or an experiment saved for every test user (--runs: its --out), and writes
the metrics of each model over the users of some lengths of history: by_length.md and by_length.json.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from recbole.data.dataset import Dataset
from recbole.utils.argument_list import dataset_arguments

from recbole_kuaiformer.benchmarks import running, significance, tables
from recbole_kuaiformer.benchmarks.comparison_settings import configuration
from recbole_kuaiformer.benchmarks.comparison_tables import title
from recbole_kuaiformer.benchmarks.setting_checks import check_files
from recbole_kuaiformer.benchmarks.user_ranks import OF_A_USER, UserRanks
from recbole_kuaiformer.config import READINGS
from recbole_kuaiformer.settings import SettingsError

EDGES = (16, 64, 256)
METRICS = ("recall@10", "recall@50")


@dataclass(frozen=True)
class Bin:
    """Users whose history has so many items.

    Attributes:
        above: exclusive; upto: inclusive, None for no bound.
        users: how many there are of any model.
        fewer: how many a model has, where it has fewer.
        values: by model and metric, the mean over them and the seeds; None of nobody.
    """

    above: int
    upto: int | None
    users: int
    fewer: dict[str, int]
    values: dict[str, dict[str, float | None]]

    @property
    def name(self) -> str:
        """As the table has it."""
        return f"{self.above + 1} to {self.upto}" if self.upto is not None else f"{self.above + 1} and more"


def bins(
    runs: Mapping[str, Sequence[UserRanks]],
    *,
    lengths: Mapping[str, int],
    edges: Sequence[int] = EDGES,
    metrics: Sequence[str] = METRICS,
    history: str = "masked",
) -> list[Bin]:
    """Means over the users of each length, shortest first; models without that reading are left out.

    Args:
        runs: the seeds' ranks by model.
        lengths: of each test user's history, by the user's token.
        edges: ascending, upper ends of the bins but the last.
        metrics: per-user metrics and their cut-offs.
        history: reading.

    Raises:
        SettingsError: a test user has no length.
    """
    found = {
        metric: {
            name: values
            for name, seeds in runs.items()
            if (values := significance.user_values(seeds, reading=history, metric=metric))
        }
        for metric in metrics
    }
    tested = sorted({user for models in found.values() for values in models.values() for user, _ in values})
    if missing := [user for user in tested if user not in lengths]:
        raise SettingsError(
            f"--data_path: user {missing[0]!r} of the ranks is not among the filtered interactions"
        )
    result = []
    for above, upto in pairwise([-1, *edges, None]):
        assert above is not None
        inside = {
            user for user in tested if lengths[user] > above and (upto is None or lengths[user] <= upto)
        }
        means: dict[str, dict[str, float | None]] = {}
        fewer: dict[str, int] = {}
        for metric, models in found.items():
            for name, values in models.items():
                of_bin = [value for (user, _), value in values.items() if user in inside]
                means.setdefault(name, {})[metric] = float(np.mean(of_bin)) if of_bin else None
                if len(of_bin) < len(inside):
                    fewer[name] = len(of_bin)
        result.append(Bin(above, upto, len(inside), fewer, means))
    return result


def history_lengths(row: Mapping[str, Any], *, data_path: str) -> dict[str, int]:
    """Items before each user's last one, which is the target, by the user's token.

    Counted after the filters of the run, as it saw the data.

    Args:
        row: a run of the table.
        data_path: folder of the datasets.

    Raises:
        SettingsError: the dataset is not there, has no column of users, or another encoding than the run's
            settings have.
    """
    resolved = row["resolved"]
    keys = {*dataset_arguments, "encoding"} - {"sequences"}  # of which Pop, whose dataset this is, has none
    given = {key: resolved[key] for key in keys & resolved.keys()} | {"data_path": data_path}
    config = configuration("Pop", row["dataset"], given=given)
    check_files(config)
    place, user = config["data_path"], config["USER_ID_FIELD"]
    try:
        dataset = Dataset(config)
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{place}: not in the run's encoding {config['encoding'] or 'utf-8'!r} ({error})"
        ) from error
    except KeyError as error:
        if error.args != (user,):
            raise
        raise SettingsError(f"{place}: the interactions have no column {user!r} (USER_ID_FIELD)") from error
    users = dataset.id2token(dataset.uid_field, dataset.inter_feat[dataset.uid_field].to_numpy())
    return {str(name): n - 1 for name, n in Counter(users.tolist()).items()}


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    options = argparse.ArgumentParser(prog="python -m recbole_kuaiformer.benchmarks.by_length")
    options.add_argument("--results", required=True, help="<dataset>.json of a comparison or an experiment")
    options.add_argument("--runs", required=True, help="the --out of that comparison, where its runs are")
    options.add_argument("--data_path", required=True, help="folder of the datasets")
    options.add_argument("--out", required=True, help="folder of the results")
    options.add_argument(
        "--edges", type=int, nargs="+", default=list(EDGES), help="ascending, ends of the bins"
    )
    options.add_argument("--metrics", nargs="+", default=list(METRICS), metavar="METRIC@K")
    options.add_argument("--history", choices=READINGS, default="masked")
    return options


def look(args: argparse.Namespace) -> list[Bin]:
    """The bins of a parsed command line.

    Raises:
        FileNotFoundError: the file of results is not there.
        SettingsError: an option is wrong, the dataset is not there, or no run has saved ranks.
    """
    edges = args.edges
    if edges[0] < 0 or any(high <= low for low, high in pairwise(edges)):
        raise SettingsError(f"--edges: must ascend from 0 or more, got {edges}")
    for metric in args.metrics:
        name, _, k = metric.partition("@")
        if name not in OF_A_USER or not k.isdigit() or int(k) < 1:
            raise SettingsError(
                f"--metrics: {metric!r} is none of {', '.join(OF_A_USER)} with @ and a cut-off"
            )
    rows = _rows(Path(args.results))
    datasets = {row["dataset"] for row in rows}
    if len(datasets) != 1:
        raise SettingsError(
            f"--results: {args.results} must hold the runs of one dataset, has {sorted(datasets)}"
        )
    runs = _complete(rows, out=Path(args.runs))
    if not runs:
        raise SettingsError(f"--runs: {args.runs} has no ranks.npz of a run of {args.results}")
    left_out = sorted({row["name"] for row in rows} - runs.keys())
    if left_out:
        print(f"without saved ranks, and left out: {', '.join(left_out)}")
    first = next(row for row in rows if row["name"] in runs and "failed" not in row)
    lengths = history_lengths(first, data_path=args.data_path)
    return bins(runs, lengths=lengths, edges=edges, metrics=args.metrics, history=args.history)


def _complete(rows: list[dict[str, Any]], *, out: Path) -> dict[str, list[UserRanks]]:
    """The ranks of the models of which every finished run has saved them: a mean over all seeds, or none."""
    n_runs = Counter(name for name, _ in {(row["name"], row["seed"]) for row in rows if "failed" not in row})
    held = significance.ranks_by_model(rows, out=out)
    return {name: [*seeds.values()] for name, seeds in held.items() if len(seeds) == n_runs[name]}


def _rows(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    try:
        rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["runs"]
        for row in rows:
            missing = {"name", "dataset", "folder", "seed"} - row.keys()
            if missing and "failed" not in row:
                raise KeyError(*sorted(missing))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"--results: {file} is no table of a comparison ({error!r:.100})") from error
    return rows


def as_markdown(found: Sequence[Bin], *, command: str, history: str) -> str:
    """A table for each metric, a column for each length."""
    names = [*found[0].values]
    metrics = [*next(iter(found[0].values.values()))]
    head = ["", *(f"{one.name} ({one.users} users)" for one in found)]
    parts = [
        f"# By length of history\n\n`{command}`",
        f"Items of a user before the target; history {history}; means over users, each averaged over seeds.",
    ]
    fewer = [f"{name} has {n} of {one.name}" for one in found for name, n in one.fewer.items()]
    if fewer:
        parts.append(f"**Not the same users of every model**: {'; '.join(fewer)}.")
    for metric in metrics:
        body = [[name, *(_cell(one.values[name][metric]) for one in found)] for name in names]
        parts.append(f"## {title(metric)}\n\n{tables.table(head, body)}")
    return "\n\n".join(parts) + "\n"


def _cell(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a wrong option or file."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parser().parse_args(given)
    try:
        found = look(args)
        out = running.results_folder(Path(args.out))
    except (SettingsError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    command = f"python -m recbole_kuaiformer.benchmarks.by_length {shlex.join(given)}"
    text = as_markdown(found, command=command, history=args.history)
    (out / "by_length.md").write_text(text, encoding="utf-8")
    held = [{**asdict(one), "history": args.history} for one in found]
    (out / "by_length.json").write_text(json.dumps(held, indent=1), encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
