"""Curves of an experiment: metrics over a setting or a cost, a panel each, the paper's own values beside."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_kuaiformer.benchmarks.comparison_plots import DASHES, MARKERS
from recbole_kuaiformer.benchmarks.comparison_summary import (
    COSTS,
    OF_A_DEVICE,
    Rows,
    Spread,
    by_dataset,
    device_of_each,
)
from recbole_kuaiformer.benchmarks.comparison_tables import title
from recbole_kuaiformer.benchmarks.experiment_plan import Curve, Experiment
from recbole_kuaiformer.benchmarks.tables import COLOURS

Row = Mapping[str, Any]

READING = "masked"  # that of most published figures
PANEL, HEIGHT = 4.2, 3.6  # inches
LETTERS = 55  # of the heading that fit above a panel
_NOT_THERE = object()
SPAN_OF_LOG = 8  # an axis whose last value is so many times its first is logarithmic


def write(rows: Rows, *, experiment: Experiment, folder: Path) -> list[Path]:
    """<dataset>-curves.png for each dataset; the files, none without matplotlib or without curves."""
    try:
        import matplotlib as mpl
    except ImportError:
        return []
    mpl.use("Agg")
    from matplotlib import pyplot

    files = []
    for dataset, of_dataset in by_dataset(rows).items():
        finished = [row for row in of_dataset if "failed" not in row]
        (folder / f"{dataset}-curves.png").unlink(missing_ok=True)  # it may be of other runs
        curves = [one for one in experiment.curves if _is_drawn(finished, one, metric=experiment.metrics[0])]
        if not curves:
            continue
        n_panels = len(curves)
        figure = pyplot.figure(figsize=(PANEL * n_panels, HEIGHT), layout="constrained")
        for axis, curve in zip(figure.subplots(1, n_panels, squeeze=False)[0], curves):
            _panel(axis, finished, curve=curve, metrics=experiment.metrics)
        heading = f"{experiment.title}: {dataset}, history {READING}"
        figure.suptitle(textwrap.fill(heading, LETTERS * n_panels), fontsize=10)
        if any(one.x in COSTS for one in curves):
            key = "   ".join(f"{n}: {name}" for name, n in _numbers(finished).items())
            figure.supxlabel(textwrap.fill(key, 75 * n_panels), fontsize=8)
        files.append(folder / f"{dataset}-curves.png")
        figure.savefig(files[-1], dpi=130)
        pyplot.close(figure)
    return files


def _is_drawn(rows: Sequence[Row], curve: Curve, *, metric: str) -> bool:
    """Not over seconds or memory of runs that several devices made."""
    made_on = {device for row, device in zip(rows, device_of_each(rows)) if _is_on(curve, row["name"])}
    if curve.x in OF_A_DEVICE and len(made_on) > 1:
        return False
    return bool(points(rows, curve=curve, metric=metric))


def _is_on(curve: Curve, name: str) -> bool:
    return not curve.runs or name in curve.runs


def points(rows: Sequence[Row], *, curve: Curve, metric: str) -> list[tuple[Any, Spread, str]]:
    """x, mean and deviation over the seeds, and the run's name; ascending in x where x is a number.

    Runs without such a key, or without such a cost, are left out.
    """
    found = []
    for name in dict.fromkeys(row["name"] for row in rows):
        of_run = [row for row in rows if row["name"] == name]
        values = [row["readings"][READING].get(metric) for row in of_run if READING in row["readings"]]
        if not _is_on(curve, name) or not values or None in values:
            continue
        at = [row[curve.x] if curve.x in row else row["resolved"].get(curve.x, _NOT_THERE) for row in of_run]
        if _NOT_THERE in at or (curve.x in COSTS and None in at):
            continue
        is_number = all(isinstance(x, int | float) and not isinstance(x, bool) for x in at)
        x = sum(at) / len(at) if is_number else str(at[0])
        found.append((x, Spread.of(values), name))
    if _are_numbers(found):
        return sorted(found, key=lambda one: one[0])
    return [(_category(x), spread, name) for x, spread, name in found]


def _category(x: Any) -> str:
    return str(int(x)) if isinstance(x, float) and x.is_integer() else str(x)


def _are_numbers(found: Sequence[tuple[Any, Spread, str]]) -> bool:
    return all(not isinstance(x, str) for x, _, _ in found)


def of_best(values: Sequence[float]) -> list[float]:
    """Each value as a share of the largest, so that curves of different height can be laid on one another.

    >>> of_best([0.2, 0.4])
    [0.5, 1.0]
    """
    return [value / (max(values) or 1.0) for value in values]


def front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Places of the Pareto front: those that find more than everything that costs no more; cheapest first.

    >>> front([3.0, 1.0, 2.0], [0.5, 0.3, 0.2])
    [1, 0]
    """
    by_cost = sorted(range(len(costs)), key=lambda place: (costs[place], -values[place]))
    kept: list[int] = []
    for place in by_cost:
        if not kept or values[place] > values[kept[-1]]:
            kept.append(place)
    return kept


def _panel(axis: Any, rows: Sequence[Row], *, curve: Curve, metrics: Sequence[str]) -> None:
    is_cost = curve.x in COSTS
    for number, metric in enumerate(metrics):
        found = points(rows, curve=curve, metric=metric)
        if not found:  # a cut-off beyond the catalogue
            continue
        best = max(spread.mean for _, spread, _ in found) or 1.0
        shares = of_best([spread.mean for _, spread, _ in found])
        xs = [x for x, _, _ in found]
        look = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        dash = DASHES[(number + number // len(COLOURS)) % len(DASHES)]
        axis.errorbar(
            xs,
            shares,
            yerr=[(spread.std or 0.0) / best for _, spread, _ in found],
            linestyle="none" if is_cost else dash,
            capsize=2,
            label=f"{title(metric)}, best {best:.4f}",
            **look,
        )
        if is_cost and _are_numbers(found):
            kept = front(xs, shares)
            axis.plot([xs[i] for i in kept], [shares[i] for i in kept], color=look["color"], linestyle=dash)
    found = points(rows, curve=curve, metric=metrics[0])
    has_front = is_cost and _are_numbers(found)
    label = f"{curve.label} (lines: Pareto front)" if has_front else curve.label
    axis.set(xlabel=label, ylabel=f"share of the best ({READING})")
    axis.grid(alpha=0.3)
    if is_cost:
        numbers = _numbers(rows)
        for (x, _, name), y in zip(found, of_best([spread.mean for _, spread, _ in found])):
            axis.annotate(f"{numbers[name]}", (x, y), fontsize=8, xytext=(4, 4), textcoords="offset points")
    elif _are_numbers(found):
        _ticks(axis, sorted({*(x for x, _, _ in found), *(curve.paper or {})}))
    if curve.paper:
        shares = of_best([*curve.paper.values()])
        label = f"paper's training accuracy, best {max(curve.paper.values()):.3f}"
        axis.plot([*curve.paper], shares, color="#777777", marker="x", linestyle=":", label=label)
    axis.legend(loc="best", fontsize=7)


def _numbers(rows: Sequence[Row]) -> dict[str, int]:
    """A number for each run's name, which stands at its points where names would not fit."""
    return {name: n for n, name in enumerate(dict.fromkeys(row["name"] for row in rows), start=1)}


def _ticks(axis: Any, values: Sequence[float]) -> None:
    if values[0] > 0 and values[-1] / values[0] >= SPAN_OF_LOG:
        axis.set_xscale("log")
    if len(values) <= 10:
        axis.set_xticks(values, [f"{value:g}" for value in values], rotation=45 if len(values) > 6 else 0)
        axis.minorticks_off()
