"""Training measured: python -m recbole_kuaiformer.benchmarks.training --out DIR [--quick] [--cases NAMES].

Epoch time beside RecBole's and RecTools' models, time and memory to a ready dataset, compression, exactness,
distance from the limit of the arithmetic, options, quality. Writes training.json, training.md, training.png,
compression.png and profile.png. An interrupted run goes on where it stopped: a case in training.json is not
measured again unless --again is given.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_kuaiformer.benchmarks import (
    measuring,
    options_cases,
    peers,
    running,
    training_plots,
    training_report,
    training_systems,
)

Case = dict[str, Any]

KINDS = ("epoch", "dataset", "compression", "exactness", "limit", "options", "quality")
SYSTEMS = (*training_systems.SYSTEMS, *peers.SYSTEMS)
LAYOUTS = (
    "plain 64", "plain 256", "compressed 256", "geometric 1024", "geometric 4096", "geometric 10000",
)  # fmt: skip
SOURCES = ("table", "log", "ours")
LARGE_LOG = {"n_rows": 10_000_000, "n_users": 200_000, "n_items": 100_000, "seed": 1}
QUICK_DATASET = "walks"
FIRST_USERS = {"ml-1m": 500}  # users in RecBole's table at length 200 and more, which for all of them is 5 GB


def plan(*, datasets: Sequence[str], data_path: str, peer_python: str) -> list[Case]:
    """The cases to measure, in order."""
    place, smallest, largest = {"data_path": data_path}, datasets[0], datasets[-1]
    timing = {"seconds": 4.0, "systems": SYSTEMS, "peer_python": peer_python, **place}
    encoder = {"layouts": LAYOUTS, "batch": 32, "long_batch": 4, "rounds": 9}
    steps = {"steps": 8, "rounds": 7, "repeats": 5, **place}
    options = {"options": [*options_cases.OPTIONS], "steps": 8, "rounds": 7, "warm_up": 20, **place}
    return [
        *(
            {
                "kind": "epoch",
                "dataset": dataset,
                "length": n,
                "first_users": _first_users(dataset, n),
                **timing,
                "rounds": 5 if n < 200 else 3,  # a step of RecBole's takes a minute at 200
            }
            for dataset in datasets
            for n in (50, 200)
        ),
        *(
            {"kind": "dataset", "dataset": largest, "source": source, "length": n, **place}
            for n in (50, 200, 1000)
            for source in SOURCES
        ),
        *(
            {"kind": "dataset", "generate": LARGE_LOG, "source": source, "length": n, "data_path": "."}
            for n in (50, 200)
            for source in SOURCES
        ),
        *({"kind": "compression", "n_layers": n_layers, **encoder} for n_layers in (2, 4, 5)),
        {"kind": "exactness", "windows": 200},
        *(
            {"kind": "limit", "system": system, "dataset": largest, "length": n, **steps}
            for n in (50, 200)
            for system in ("KuaiFormer", "SASRecPlus")
        ),
        *(
            {"kind": "options", "system": system, "dataset": largest, "length": 200, **options}
            for system in ("KuaiFormer", "SASRecPlus")
        ),
        *(
            {
                "kind": "quality",
                "system": system,
                "dataset": smallest,
                "length": 50,
                "seed": seed,
                "epochs": 2,
                **place,
            }
            for system in ("KuaiFormer", "SASRecPlus")
            for seed in (1, 2, 3)
        ),
    ]


def _first_users(dataset: str, length: int) -> int:
    """Users in RecBole's table; 0 is all of them."""
    return FIRST_USERS.get(dataset, 0) if length >= 200 else 0


def quick_plan(*, data_path: str, peer_python: str) -> list[Case]:
    """Every kind of case but the dataset's, in about a minute."""
    place = {"dataset": QUICK_DATASET, "data_path": data_path, "length": 12}
    given = {"train_batch_size": 128, "window_targets": 6, "eval_batch_size": 64}
    steps = {"steps": 2, "rounds": 2, "repeats": 2}
    timing = {"rounds": 2, "seconds": 0.1, "systems": SYSTEMS, "peer_python": peer_python}
    return [
        {"kind": "epoch", **place, "first_users": 20, "given": {"train_batch_size": 128}, **timing},
        {
            "kind": "compression", "n_layers": 2, "layouts": [*LAYOUTS[:3], "geometric 300"],
            "batch": 4, "long_batch": 1, "rounds": 3,
        },
        {"kind": "exactness", "windows": 3},
        {"kind": "limit", "system": "KuaiFormer", **place, **steps, "given": given},
        {
            "kind": "options", "system": "KuaiFormer", **place, "steps": 1, "rounds": 2, "warm_up": 1,
            "options": [name for name in options_cases.OPTIONS if "compile" not in name], "given": given,
        },
        {"kind": "quality", "system": "KuaiFormer", **place, "seed": 1, "epochs": 1, "given": given},
    ]  # fmt: skip


def write_walks(folder: Path, *, n_users: int = 80, n_items: int = 60, length: int = 22) -> None:
    """A dataset of random walks around a small catalogue, for --quick."""
    file = folder / QUICK_DATASET / f"{QUICK_DATASET}.inter"
    file.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    items = (
        rng.integers(n_items, size=(n_users, 1)) + rng.integers(1, 4, size=(n_users, length)).cumsum(1)
    ) % n_items
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    lines += [
        f"u{u}\ti{item}\t{1_700_000_000 + 60 * t}"
        for u, row in enumerate(items)
        for t, item in enumerate(row)
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def module_of(case: Case) -> str:
    """The module that measures a case."""
    return f"recbole_kuaiformer.benchmarks.{'dataset' if case['kind'] == 'dataset' else 'training'}_cases"


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    options = argparse.ArgumentParser(prog="python -m recbole_kuaiformer.benchmarks.training")
    options.add_argument("--out", required=True, help="folder of the results")
    options.add_argument(
        "--quick", action="store_true", help="about a minute: a generated dataset, few steps"
    )
    options.add_argument("--cases", default=",".join(KINDS), help=f"kinds of cases: {', '.join(KINDS)}")
    options.add_argument(
        "--datasets", default="ml-100k,ml-1m", help="quality on the first, limits on the last"
    )
    options.add_argument("--data_path", default="", help="where the datasets lie, as in RecBole")
    options.add_argument(
        "--peer-python", default="", help="a Python that has rectools[torch], if not this one"
    )
    options.add_argument("--again", action="store_true", help="measure what training.json already holds, too")
    return options


def chosen(args: argparse.Namespace, *, out: Path) -> list[Case]:
    """The cases that the command line asks for.

    Raises:
        ValueError: --cases names a kind that does not exist.
    """
    kinds = args.cases.split(",")
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"--cases: {', '.join(sorted(unknown))} is not known; known: {', '.join(KINDS)}")
    if args.quick:
        write_walks(out)
        cases = quick_plan(data_path=str(out.resolve()), peer_python=args.peer_python)
    else:
        data_path = str(Path(args.data_path).resolve()) if args.data_path else ""
        cases = plan(datasets=args.datasets.split(","), data_path=data_path, peer_python=args.peer_python)
    found = [case for case in cases if case["kind"] in kinds]
    if not found:
        raise ValueError(f"--cases: --quick has none of {args.cases}")
    return found


def kept(earlier: Iterable[running.Result], *, cases: list[Case]) -> dict[str, running.Result]:
    """Earlier results that stand: of kinds that are not measured now, and of the very cases that are."""
    kinds, keys = {case["kind"] for case in cases}, {running.key(case) for case in cases}
    by_key = {running.key(result["case"]): result for result in earlier}
    return {
        key: result for key, result in by_key.items() if key in keys or result["case"]["kind"] not in kinds
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 1 if a case failed."""
    args = parser().parse_args(arguments)
    try:
        out = running.results_folder(Path(args.out))
        cases = chosen(args, out=out)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    file = out / "training.json"
    before = running.read(file)
    earlier = before["results"] if before.get("quick") == args.quick else []
    results = kept(earlier, cases=cases)
    known = () if args.again else tuple(results.values())
    for stale in running.of_other_code(known):
        print(
            f"kept from commit {stale['commit']}, {stale['threads']} threads: {running.title(stale['case'])}"
        )
    result = {"machine": measuring.machine(), "quick": args.quick, "results": [*results.values()]}
    for finished in running.results(cases, module_of=module_of, earlier=known):
        results[running.key(finished["case"])] = finished
        result["results"] = [*results.values()]
        running.write(file, result)
    rows = [row for finished in result["results"] for row in finished["rows"]]
    (out / "training.md").write_text(training_report.markdown(result), encoding="utf-8")
    if not training_plots.write(rows, folder=out):
        print("matplotlib is not installed: no plots (pip install matplotlib)")
    print(out / "training.md")
    return int(running.failed(rows))


if __name__ == "__main__":
    sys.exit(main())
