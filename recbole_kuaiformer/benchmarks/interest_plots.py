"""Pictures of a model's interests: shares, distances, attention, and a map of the items for one user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_kuaiformer.benchmarks.comparison_plots import MARKERS
from recbole_kuaiformer.benchmarks.encoded_users import Users
from recbole_kuaiformer.benchmarks.interest_attention import AttentionByRecency
from recbole_kuaiformer.benchmarks.interest_facts import Facts
from recbole_kuaiformer.benchmarks.tables import COLOURS
from recbole_kuaiformer.index.choose import build_index
from recbole_kuaiformer.index.multi_interest import retrieve

LEAST_HISTORY = 10  # items of a user that is shown
SHOWN_TOKENS = 50  # of attention


def write(
    users: Users, *, found: Facts, attention: AttentionByRecency, name: str, folder: Path, k: int
) -> list[Path]:
    """<name>-interests.png and <name>-map.png; none without matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        return []
    mpl.use("Agg")
    from matplotlib import pyplot

    files = [folder / f"{name}-interests.png", folder / f"{name}-map.png"]
    shares = attention.shares
    figure = pyplot.figure(figsize=(4 * (2 if shares is None else 3), 3.4), layout="constrained")
    axes = figure.subplots(1, 2 if shares is None else 3)
    _bars(axes[0], found)
    _cosines(axes[1], found)
    if shares is not None:
        _attention(axes[2], shares)
    figure.savefig(files[0], dpi=130)
    pyplot.close(figure)
    figure = pyplot.figure(figsize=(6.4, 4.6), layout="constrained")
    _map(figure.subplots(), users, k=k)
    figure.savefig(files[1], dpi=130)
    pyplot.close(figure)
    return files


def typical_user(users: Users) -> int:
    """Row of the user whose interests are as near to one another as those of the median user.

    Of those with LEAST_HISTORY items, if there are any: a typical case and not the prettiest.
    """
    unit = torch.nn.functional.normalize(users.interests, dim=-1)
    cosine = torch.einsum("ukd,uld->u", unit, unit)
    enough = users.history.counts(len(unit)).to(cosine.device) >= LEAST_HISTORY
    rows = enough.nonzero().squeeze(1) if bool(enough.any()) else torch.arange(len(unit))
    order = rows[cosine[rows].argsort()]
    return int(order[len(order) // 2])


def _bars(axis: Any, found: Facts) -> None:
    places = np.arange(len(found.wins))
    axis.bar(places - 0.2, found.wins, width=0.4, color=COLOURS[0], label="nearest to the target")
    axis.bar(
        places + 0.2, found.found, width=0.4, color=COLOURS[1], hatch="//", label=f"found of top {found.k}"
    )
    axis.axhline(1 / len(places), color="#444444", linestyle=":", linewidth=1)
    axis.set(xlabel="interest", ylabel="share", xticks=places, title="who finds what")
    axis.legend(fontsize=7)


def _cosines(axis: Any, found: Facts) -> None:
    axis.imshow(found.cosines, cmap="cividis", vmin=-1, vmax=1)
    for i, row in enumerate(found.cosines):
        for j, value in enumerate(row):
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8,
                      color="black" if value > 0 else "white")  # fmt: skip
    places = np.arange(len(found.cosines))
    axis.set(xlabel="interest", ylabel="interest", xticks=places, yticks=places, title="cosine, same user")


def _attention(axis: Any, shares: Tensor) -> None:
    for number, row in enumerate(shares[:, :SHOWN_TOKENS].tolist()):
        axis.plot(range(1, len(row) + 1), row, color=COLOURS[number % len(COLOURS)],
                  marker=MARKERS[number % len(MARKERS)], markersize=3, label=f"query {number}")  # fmt: skip
    axis.set(xlabel="tokens back from the newest", ylabel="attention", xscale="log", title="last block")
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50) if tick <= shares.shape[1]]
    axis.set_xticks(ticks, map(str, ticks))
    axis.minorticks_off()
    axis.set_ylim(0, None)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)


def _map(axis: Any, users: Users, *, k: int) -> None:
    """Items and interests of one user in the plane of the items' first two principal components."""
    items = torch.nn.functional.normalize(users.items[1:].double(), dim=-1).cpu()
    middle = items.mean(0)
    plane = torch.linalg.svd(items - middle, full_matrices=False).Vh[:2].T

    def flat(vectors: Tensor) -> Any:
        unit = torch.nn.functional.normalize(vectors.double().cpu(), dim=-1)
        return ((unit - middle) @ plane).T.numpy()

    row = typical_user(users)
    index, _ = build_index("auto", users.items)
    one = torch.tensor([row], device=users.items.device)
    excluded = None if users.excluded is None else users.excluded.of_rows(one)
    lists = retrieve(index, users.interests[one], k=k, excluded=excluded)
    had = users.history.of_rows(one.to(users.history.rows.device)).item_ids
    axis.scatter(*flat(users.items[1:]), s=2, color="#cccccc", rasterized=True, label="items")
    for number, interest in enumerate(users.interests[row]):
        mine = lists.item_ids[0][lists.interests[0] == number]
        look = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        axis.scatter(*flat(users.items[mine]), s=16, label=f"found by interest {number}", **look)
        axis.scatter(*flat(interest[None]), s=130, edgecolor="black", **look)
    axis.scatter(*flat(users.items[had]), s=40, color="black", marker="x", label="history")
    axis.scatter(*flat(users.items[users.targets[[row]]]), s=120, facecolor="none", edgecolor="black",
                 marker="s", linewidth=1.5, label="target")  # fmt: skip
    axis.set(title=f"a user's interests (large) and the best {k} items", xlabel="first principal component",
             ylabel="second")  # fmt: skip
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
