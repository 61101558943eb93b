"""Results of benchmarks.retrieval as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from recbole_kuaiformer.benchmarks.tables import Rows, about, failures, of, table

# Okabe and Ito's colours, which colour-blind readers tell apart; markers for print.
_STYLE = {
    "recbole-4096": ("#000000", "s"), "recbole-256": ("#999999", "D"), "torch": ("#0072B2", "o"),
    "faiss_cpu": ("#D55E00", "^"), "hnsw": ("#009E73", "v"), "ivf": ("#CC79A7", "P"),
}  # fmt: skip


def markdown(result: dict[str, Any]) -> str:
    """All tables."""
    rows = result["rows"]
    parts = [about(result), _ratios(rows), _search(rows)]
    parts += [_request(rows), _stock(rows), failures(rows, by="backend")]
    return "\n\n".join(part for part in parts if part) + "\n"


def _ratios(rows: Rows) -> str:
    body = []
    for row in of(rows, "ratios"):
        time, memory = row["median"], row["peak_mib"]
        base = next((name for name in time if name.startswith("recbole")), None)
        for name in time:
            faster = "" if base is None else f"{time[base] / time[name]:.2f}"
            less = "" if base is None or not memory[name] else f"{memory[base] / memory[name]:.1f}"
            cells = [f"{row['n_items']:,}", str(row["n_interests"]), name, f"{time[name]:.3f}", faster]
            cells += [f"{time[name] / time['bare_product']:.2f}", f"{memory[name]:.0f}", less]
            body.append(cells)
    if not body:
        return ""
    head = ["items", "K", "way", "s", "x RecBole's speed", "time / bare product"]
    head += ["peak MiB", "x less memory"]
    k, users = (
        ", ".join(dict.fromkeys(str(row[key]) for row in of(rows, "ratios"))) for key in ("k", "n_users")
    )
    return (
        f"## In turn, in one process\n\nEvaluation of {users} users (per size), top {k}; median of the "
        "rounds. RecBole's speed is that of the first recbole row of the same size and K; the "
        "number is users at a time. Peak memory is beyond the vectors.\n\n" + table(head, body)
    )


def _search(rows: Rows) -> str:
    body = [_search_row(row) for row in of(rows, "search")]
    if not body:
        return ""
    head = ["items", "K", "k", "backend", "users/s", "recall", "build s", "index MiB", "peak MiB"]
    head += ["one p50 / p95 / p99 ms", "64 users p50 / p95 / p99 ms"]
    note = "Percentiles of few repetitions are the largest ones: see retrieval.json for how many there were. "
    note += "Index MiB is what building it took, peak MiB what the evaluation took on top."
    return f"## Each backend in a process of its own\n\n{note}\n\n" + table(head, body)


def _search_row(row: dict[str, Any]) -> list[str]:
    start = [f"{row['n_items']:,}", str(row["n_interests"]), str(row["k"]), row["backend"]]
    if "stopped" in row:
        return [*start, row["stopped"], "", "", "", "", "", ""]
    recall = f"{row['recall']:.4f}" if "recall" in row else "exact"
    cells = [
        f"{row['users_per_second']:,.0f}",
        recall,
        f"{row['build_seconds']:.1f}",
        f"{row['peak_mib']:.0f}",
    ]
    return [*start, *cells, _three(row["single_ms"]), _three(row["batch_ms"])]


def _three(percentiles: dict[str, float]) -> str:
    return " / ".join(f"{percentiles[name]:.1f}" for name in ("p50", "p95", "p99"))


def _request(rows: Rows) -> str:
    return "\n\n".join(
        f"## A single request, one core\n\nHistory of {row['length']} tokens in, {row['k']} of "
        f"{row['n_items']:,} items out, {row['index']}, {row['repeats']} requests: p50 / p95 / p99 "
        f"{_three(row['total_ms'])} ms, the encoder alone {_three(row['encoder_ms'])} ms."
        for row in of(rows, "request")
    )


def _stock(rows: Rows) -> str:
    return "\n\n".join(
        f"## RecBole's SASRec on {row['dataset']}\n\n{row['users']:,} users, {row['items']:,} items, "
        f"untrained; median seconds of an evaluation: RecBole's own {row['median']['recbole']:.2f}, by index "
        f"{row['median']['faiss']:.2f}, the encoder alone {row['median']['encoder']:.2f}; peak memory beyond "
        f"what is loaded {row['peak_mib']['recbole']:.0f} and {row['peak_mib']['faiss']:.0f} MiB; the "
        f"results are {'the same' if row['same_result'] else 'NOT THE SAME'}."
        for row in of(rows, "stock")
    )


def plot(result: dict[str, Any], file: Path) -> bool:
    """Speed and memory over the catalogue's size; False where there is no matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in of(result["rows"], "search") if row["k"] == 100 and "stopped" not in row]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    panels: tuple[tuple[Any, Callable[[dict[str, Any]], float], str], ...] = (
        (axes[0], lambda row: row["users_per_second"], "users / s"),
        (axes[1], lambda row: row["build_mib"] + row["peak_mib"], "MiB"),
    )
    for axis, value, label in panels:
        for n_interests, line in ((1, "-"), (4, "--")):
            for backend, (colour, marker) in _STYLE.items():
                points = [
                    (row["n_items"], value(row))
                    for row in rows
                    if row["backend"] == backend and row["n_interests"] == n_interests
                ]
                if points:
                    name = f"{backend}, K={n_interests}"
                    axis.plot(*zip(*sorted(points)), line, color=colour, marker=marker, label=name)
        axis.set(xscale="log", yscale="log", xlabel="items", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].set_title("Evaluation, top 100")
    axes[1].set_title("Memory of index and search")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
    return True
