"""The hit rate over the cut-off, a line for each model, a panel for each reading of history.

Below each panel the same in percent of the first model's that has every reading: curves that rise from .1 to
.9 hide what the models differ by.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_kuaiformer.benchmarks.comparison_summary import Line, Rows, Spread, lines
from recbole_kuaiformer.benchmarks.tables import COLOURS

MARKERS, DASHES = "os^DvP*Xh", ("-", "--", ":", "-.")  # told apart without colour, too
LETTERS = 45  # of a label that fit beside a panel
LOWEST_PERCENT = -15.0  # of the lower panels: a model that is farther behind leaves them


def write(rows: Rows, *, file: Path, title: str) -> bool:
    """A .png of what was measured; False where there is no matplotlib, or nothing to draw."""
    found = [line for line in lines(rows) if hit_rates(line)]
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    if not found:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(9, 7.2), layout="constrained")
    _draw(found, figure)
    figure.suptitle(title)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)
    return True


def hit_rates(line: Line) -> dict[int, Spread]:
    """The line's Recall (HitRate) by cut-off, ascending."""
    named = {name.partition("@"): value for name, value in line.metrics.items()}
    rates = {int(k): value for (name, _, k), value in named.items() if name == "recall"}
    return dict(sorted(rates.items()))


def beside(rates: Mapping[int, Spread], base: Mapping[int, Spread]) -> dict[int, Spread]:
    """Percent by which the rates are above others, at the cut-offs where those find any.

    >>> base = {10: Spread(0.25, None), 20: Spread(0.5, None), 50: Spread(0.0, None)}
    >>> beside({10: Spread(0.375, 0.125), 20: Spread(0.25, None), 50: Spread(0.5, None)}, base)
    {10: Spread(mean=50.0, std=50.0), 20: Spread(mean=-50.0, std=None)}
    """
    return {
        k: Spread(
            100 * (rate.mean / base[k].mean - 1),
            None if rate.std is None else 100 * rate.std / base[k].mean,
        )
        for k, rate in rates.items()
        if k in base and base[k].mean
    }


def _draw(found: list[Line], figure: Any) -> None:
    readings = list(dict.fromkeys(line.reading for line in found))
    models = list(dict.fromkeys(line.model for line in found))
    rates_of = {(line.model, line.reading): hit_rates(line) for line in found}
    base = next((one for one in models if all((one, reading) in rates_of for reading in readings)), models[0])
    cuts = sorted({k for rates in rates_of.values() for k in rates})
    panels = figure.subplots(2, len(readings), sharex=True, sharey="row", squeeze=False)
    for reading, upper, lower in zip(readings, *panels):
        of_base = rates_of.get((base, reading), {})
        for number, model in enumerate(models):
            if rates := rates_of.get((model, reading)):
                _curve(upper, rates, number=number, label=model)
                _curve(lower, beside(rates, of_base), number=number, label=model)
        upper.set(xscale="log", title=f"history {reading}")
        lower.set(xlabel="cut-off k")
        for axis in (upper, lower):
            axis.set_xticks(cuts, [str(k) for k in cuts])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
    upper, lower = panels[:, 0]
    upper.set_ylabel("HR@k")
    lower.set_ylabel(textwrap.fill(f"HR@k, % over that of {base}", LETTERS))
    if lower.get_ylim()[0] < LOWEST_PERCENT:
        lower.set_ylim(bottom=LOWEST_PERCENT)
    handles = {
        text: handle
        for axis in panels[0]
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend([handles[name] for name in models], models, loc="outside right upper", fontsize=8)


def _curve(axis: Any, rates: Mapping[int, Spread], *, number: int, label: str) -> None:
    axis.errorbar(
        list(rates),
        [rate.mean for rate in rates.values()],
        yerr=[rate.std or 0.0 for rate in rates.values()],
        color=COLOURS[number % len(COLOURS)],
        marker=MARKERS[number % len(MARKERS)],
        linestyle=DASHES[(number + number // len(COLOURS)) % len(DASHES)],  # the same of no two models
        markersize=4,
        capsize=2,
        label=label,
    )
