"""Retrieval measured: python -m recbole_kuaiformer.benchmarks.retrieval --out DIR [--quick].

RecBole's full sort, torch, FAISS flat, HNSW and IVF over generated catalogues; a single request through a
KuaiFormer; the evaluation of RecBole's SASRec on a real dataset. Writes retrieval.json, retrieval.md and
retrieval.png.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_kuaiformer.benchmarks import measuring, retrieval_report, running
from recbole_kuaiformer.settings import SettingsError

CASES = "recbole_kuaiformer.benchmarks.retrieval_cases"
BACKENDS = ("recbole-4096", "recbole-256", "torch", "faiss_cpu", "hnsw", "ivf")


def plan(*, quick: bool, dataset: str, data_path: str) -> list[dict[str, Any]]:
    """The cases to measure, in order."""
    if quick:
        search = {"n_interests": [1, 4], "k": [10, 100], "n_users": 256, "repeats": 1}
        search |= {"single_repeats": 5, "batch_repeats": 3}
        cases: list[dict[str, Any]] = [
            {"kind": "search", "backend": backend, "n_items": 2_000, **search} for backend in BACKENDS[1:]
        ]
        ratios = {"n_users": 256, "n_interests": [1, 4], "k": 100, "recbole_batches": [4096], "rounds": 2}
        cases.append({"kind": "ratios", "n_items": 2_000, **ratios})
        cases.append({"kind": "request", "n_items": 2_000, "length": 64, "k": 100, "repeats": 5})
        return cases
    cases = []
    for n_items, n_users, singles in ((10_000, 4096, 200), (100_000, 4096, 200), (1_000_000, 512, 100)):
        search = {"n_interests": [1, 4], "k": [10, 100, 500], "n_users": n_users, "repeats": 1}
        search |= {"single_repeats": singles, "batch_repeats": singles // 10}
        cases += [
            {"kind": "search", "backend": backend, "n_items": n_items, **search} for backend in BACKENDS
        ]
        ratios = {"n_users": n_users, "n_interests": [1, 4], "k": 100, "recbole_batches": [4096, 256]}
        cases.append({"kind": "ratios", "n_items": n_items, "rounds": 5, **ratios})
    cases.append({"kind": "request", "n_items": 100_000, "length": 256, "k": 500, "repeats": 200})
    if dataset:
        cases.append({"kind": "stock", "dataset": dataset, "data_path": data_path, "rounds": 5})
    return cases


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 1 if a case failed."""
    parser = argparse.ArgumentParser(prog="python -m recbole_kuaiformer.benchmarks.retrieval")
    parser.add_argument("--out", required=True, help="folder of the results")
    parser.add_argument("--quick", action="store_true", help="under a minute: small catalogues, few repeats")
    parser.add_argument("--backends", default="", help="measure the searches of these alone: hnsw,ivf")
    parser.add_argument("--dataset", default="", help="also evaluate RecBole's SASRec on this dataset")
    parser.add_argument("--data_path", default="", help="where the dataset lies, as in RecBole")
    args = parser.parse_args(arguments)
    try:
        out = running.results_folder(Path(args.out))
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    data_path = str(Path(args.data_path).resolve()) if args.data_path else ""
    cases = plan(quick=args.quick, dataset=args.dataset, data_path=data_path)
    if args.backends:
        cases = [case for case in cases if case.get("backend") in args.backends.split(",")]
    result: dict[str, Any] = {"machine": measuring.machine(), "quick": args.quick, "rows": []}
    for finished in running.results(cases, module_of=lambda _: CASES, earlier=()):
        result["rows"] += finished["rows"]
        running.write(out / "retrieval.json", result)
    (out / "retrieval.md").write_text(retrieval_report.markdown(result), encoding="utf-8")
    if not retrieval_report.plot(result, out / "retrieval.png"):
        print("matplotlib is not installed: no plot (pip install matplotlib)")
    print(out / "retrieval.md")
    return int(running.failed(result["rows"]))


if __name__ == "__main__":
    sys.exit(main())
