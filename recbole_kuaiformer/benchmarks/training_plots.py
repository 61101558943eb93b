"""Pictures of benchmarks.training: speed of systems, growth with the history, where the time goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_kuaiformer.benchmarks.limit_cases import CATEGORIES, GAP
from recbole_kuaiformer.benchmarks.measuring import median
from recbole_kuaiformer.benchmarks.tables import COLOURS, Rows, of

_HATCHES = ("", "//", "", "..", "", "xx", "", "--", "", "++")  # neighbours differ in print, too


def write(rows: Rows, *, folder: Path) -> bool:
    """training.png, compression.png, profile.png of what was measured; False without matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot

    pictures = {
        "training": ("epoch", _speed),
        "compression": ("compression", _growth),
        "profile": ("limit", _profile),
    }
    for name, (kind, draw) in pictures.items():
        if measured := of(rows, kind):
            figure = pyplot.figure(figsize=(9, 4.2), layout="constrained")
            draw(measured, figure)
            figure.savefig(folder / f"{name}.png", dpi=100)
            pyplot.close(figure)
    return True


def _speed(rows: Rows, figure: Any) -> None:
    """Targets a second of each system, a panel for each dataset and length."""
    rows = [row for row in rows if "targets_per_second" in row]
    places = list(dict.fromkeys((row["dataset"], row["length"]) for row in rows))
    names = list(dict.fromkeys(row["system"] for row in rows))
    panels = figure.subplots(1, max(len(places), 1), sharey=True, squeeze=False)[0]
    for axis, place in zip(panels, places):
        for row in (row for row in rows if (row["dataset"], row["length"]) == place):
            number, speeds = names.index(row["system"]), row["targets_per_second"]
            middle = median(speeds)
            spread = [[middle - min(speeds)], [max(speeds) - middle]]
            axis.barh(number, middle, color=COLOURS[number], xerr=spread, ecolor="black", capsize=2)
        axis.set(xscale="log", xlabel="targets / s", title=f"{place[0]}\nlength {place[1]}")
        axis.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(names)), names, fontsize=8)
    panels[0].invert_yaxis()


def _growth(rows: Rows, figure: Any) -> None:
    """Operations and time of an inference over the length of the history, at most layers measured."""
    deepest = 4 if any(row["n_layers"] == 4 for row in rows) else max(row["n_layers"] for row in rows)
    rows = [row for row in rows if row["n_layers"] == deepest]
    panels = figure.subplots(1, 2)
    for number, kind in enumerate(dict.fromkeys(row["layout"].split()[0] for row in rows)):
        of_kind = [row for row in rows if row["layout"].split()[0] == kind]
        lengths = [row["length"] for row in of_kind]
        style = {"color": COLOURS[number], "marker": "os^D"[number % 4], "label": kind}
        panels[0].plot(lengths, [row["inference_flops"] / 1e6 for row in of_kind], **style)
        panels[1].plot(lengths, [median(row["inference_seconds"]) * 1e3 for row in of_kind], **style)
    for axis, what in zip(panels, ("MFLOP", "ms")):
        axis.set(xscale="log", yscale="log", xlabel="items of history", ylabel=f"{what} a sequence")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(f"KuaiFormer's encoder, one inference, {deepest} layers")


def _profile(rows: Rows, figure: Any) -> None:
    """Where the time of a training step goes, in shares."""
    axis = figure.subplots()
    names = [f"{row['system']}\n{row['dataset']}, length {row['length']}" for row in rows]
    left = [0.0] * len(rows)
    for number, category in enumerate((*CATEGORIES, GAP)):
        shares = [100 * row["profile"][category] / sum(row["profile"].values()) for row in rows]
        colour, hatch = COLOURS[number % len(COLOURS)], _HATCHES[number % len(_HATCHES)]
        axis.barh(names, shares, left=left, color=colour, hatch=hatch, edgecolor="white", label=category)
        left = [start + share for start, share in zip(left, shares)]
    axis.set(xlabel="% of the training loop's time, by torch's profiler", xlim=(0, 100))
    axis.invert_yaxis()
    figure.legend(loc="outside right upper", fontsize=8)
