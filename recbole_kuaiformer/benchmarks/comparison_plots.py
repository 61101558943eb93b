"""The hit rate over the cut-off, a line for each model, a panel for each reading of history."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_kuaiformer.benchmarks.comparison_summary import Line, Rows, Spread, lines
from recbole_kuaiformer.benchmarks.tables import COLOURS

MARKERS, DASHES = "os^DvP*Xh", ("-", "--", ":", "-.")  # told apart without colour, too


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

    figure = pyplot.figure(figsize=(9, 4.2), layout="constrained")
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


def _draw(found: list[Line], figure: Any) -> None:
    readings = list(dict.fromkeys(line.reading for line in found))
    models = list(dict.fromkeys(line.model for line in found))
    panels = figure.subplots(1, len(readings), sharey=True, squeeze=False)[0]
    for axis, reading in zip(panels, readings):
        for line in (line for line in found if line.reading == reading):
            _curve(axis, hit_rates(line), number=models.index(line.model), label=line.model)
        axis.set(xscale="log", xlabel="cut-off k", title=f"history {reading}")
        cuts = sorted({k for line in found for k in hit_rates(line)})
        axis.set_xticks(cuts, [str(k) for k in cuts])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    panels[0].set_ylabel("HR@k")
    handles = {
        text: handle
        for axis in panels
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
