"""The table of a dataset as CSV, JSON, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from itertools import chain
from typing import Any

from recbole_kuaiformer.benchmarks import differing_settings, tables
from recbole_kuaiformer.benchmarks.comparison_summary import (
    NONE,
    Line,
    Rows,
    Spread,
    lines,
    shown_metrics,
    told_the_time,
    warnings,
)

TITLES = {"recall": "HR", "ndcg": "NDCG", "mrr": "MRR", "itemcoverage": "Coverage", "giniindex": "Gini"}
SMALLER_IS_BETTER = ("giniindex",)
COST_TITLES = {
    "train_seconds": "training, s", "epochs": "epochs", "peak_mib": "peak memory, MiB",
    "cuda_peak_mib": "peak GPU memory, MiB", "parameters": "parameters", "user_mflops": "MFLOP a user",
    "valid_score": "valid score",
}  # fmt: skip
# What LaTeX takes for a command, each as it is written to be printed.
_LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "_&%$#{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "[": "{[}",  # after \\ these two would be read as its options
        "*": "{*}",
    }
)


def as_csv(rows: Rows) -> str:
    """A line for each model and reading; of each metric and cost the mean and the deviation, unrounded."""
    found = lines(rows)
    metrics = list(dict.fromkeys(name for line in found for name in line.metrics))
    costs = list(dict.fromkeys(name for line in found for name in line.costs))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = [f"{name} {what}" for name in (*metrics, *costs) for what in ("mean", "std")]
    writer.writerow(["model", "history", "told request time", "seeds", *head])
    told = told_the_time(rows)
    for line in found:
        values = [_csv_cells(line.metrics.get(name)) for name in metrics]
        values += [_csv_cells(line.costs.get(name)) for name in costs]
        facts = [line.model, line.reading, line.model in told, line.n_seeds]
        writer.writerow([*facts, *chain.from_iterable(values)])
    return text.getvalue()


def _csv_cells(spread: Spread | None) -> list[str]:
    if spread is None:
        return ["", ""]
    return [repr(spread.mean), "" if spread.std is None else repr(spread.std)]


def as_json(rows: Rows) -> str:
    """The lines, and the runs that they come from."""
    summary = [
        {
            "model": line.model,
            "history": line.reading,
            "seeds": line.n_seeds,
            **{name: vars(spread) for name, spread in (line.metrics | line.costs).items()},
        }
        for line in lines(rows)
    ]
    return json.dumps({"models": summary, "runs": rows}, indent=1)


def as_markdown(rows: Rows, *, dataset: str, about: str) -> str:
    """Tables by reading, what training took, settings that differ, and what is not comparable."""
    found = lines(rows)
    parts = [f"# {dataset}", about, *(f"**{line}**" for line in warnings(rows))]
    for reading in dict.fromkeys(line.reading for line in found):
        of_reading = [line for line in found if line.reading == reading]
        names = shown_metrics(of_reading)
        body = [[line.model, *(_cell(line.metrics.get(name)) for name in names)] for line in of_reading]
        parts += [f"## History {reading}", tables.table(["model", *map(title, names)], body)]
        parts.append(f"Told the time of the request: {_told(rows, found=of_reading)}.")
    parts += [*_cost_parts(found), _made(rows), *differing_settings.sections(rows)]
    parts.append(tables.failures([_named(row) for row in rows], by="what"))
    return "\n\n".join(part for part in parts if part) + "\n"


def _told(rows: Rows, *, found: list[Line]) -> str:
    """Which of the lines' models know when a recommendation is asked for; every table says it."""
    told = told_the_time(rows)
    return "; ".join(line.model for line in found if line.model in told) or "none"


def _named(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "what": f"{row['name']} seed {row['seed']}"}


def _cost_parts(found: list[Line]) -> list[str]:
    of_models = list({line.model: line for line in found}.values())
    costs = [name for name in COST_TITLES if any(name in line.costs for line in of_models)]
    body = [
        [line.model, str(line.n_seeds), *(_cost(line.costs.get(name), name=name) for name in costs)]
        for line in of_models
    ]
    head = ["model", "seeds", *(COST_TITLES[name] for name in costs)]
    return ["## What training took", tables.table(head, body)] if body else []


def _made(rows: Rows) -> str:
    """With what and when the runs were made, as far as they say."""
    held: dict[tuple[str, ...], Counter[str]] = {}
    for row in rows:
        made = row.get("made") or {}
        where = [made.get(key) for key in ("commit", "date", "torch", "cuda", "threads")]
        where[3] = where[3] or made.get("cpu")
        cells = tuple("unknown" if one is None else str(one) for one in where)
        held.setdefault(cells, Counter())[row["name"]] += "failed" not in row
    body = [
        [*cells, ", ".join(f"{name} ({n})" for name, n in runs.items() if n)]
        for cells, runs in held.items()
        if runs.total()
    ]
    is_said = any("made" in row for row in rows)
    return tables.table(["commit", "date", "torch", "on", "threads", "runs"], body) if is_said else ""


def as_latex(rows: Rows, *, dataset: str) -> str:
    """A booktabs table for each reading; the best mean of each column in bold."""
    found = lines(rows)
    parts = []
    for reading in dict.fromkeys(line.reading for line in found):
        of_reading = [line for line in found if line.reading == reading and line.metrics]
        names = shown_metrics(of_reading)
        best = {name: _best(of_reading, name=name) for name in names}
        told = _escaped(f"told the time of the request: {_told(rows, found=of_reading)}")
        body = [
            " & ".join([_escaped(line.model), *(_latex(line, name, best=best[name]) for name in names)])
            for line in of_reading
        ]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}", r"\centering",
                    rf"\caption{{{_escaped(dataset)}, history {reading}; {told}}}",
                    rf"\begin{{tabular}}{{l{'r' * len(names)}}}", r"\toprule",
                    " & ".join(["Model", *map(title, names)]) + r" \\", r"\midrule",
                    *(line + r" \\" for line in body),
                    r"\bottomrule", r"\end{tabular}", r"\end{table}",
                ]
            )
        )  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _best(found: list[Line], *, name: str) -> float:
    choose = min if name.partition("@")[0] in SMALLER_IS_BETTER else max
    return choose((line.metrics[name].mean for line in found if name in line.metrics), default=float("nan"))


def _latex(line: Line, name: str, *, best: float) -> str:
    spread = line.metrics.get(name)
    if spread is None:
        return "--"
    mean = f"{spread.mean:.4f}"
    mean = rf"\mathbf{{{mean}}}" if spread.mean == best else mean
    return f"${mean}$" if spread.std is None else rf"${mean} \pm {spread.std:.4f}$"


def _escaped(text: str) -> str:
    return text.translate(_LATEX)


def title(metric: str) -> str:
    """A metric as tables name it.

    >>> title("recall@50")
    'HR@50'
    """
    name, _, k = metric.partition("@")
    return f"{TITLES.get(name, name)}@{k}" if k else TITLES.get(name, name)


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return NONE
    return f"{spread.mean:.4f}" if spread.std is None else f"{spread.mean:.4f} ± {spread.std:.4f}"


def _cost(spread: Spread | None, *, name: str) -> str:
    if spread is None:
        return NONE
    if name == "valid_score":
        return _cell(spread)
    digits = 1 if name in ("train_seconds", "epochs", "user_mflops") and spread.mean < 100 else 0
    mean = f"{spread.mean:.{digits}f}"
    return mean if not spread.std else f"{mean} ± {spread.std:.{digits}f}"
