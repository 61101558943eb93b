"""What λ costs: python -m recbole_kuaiformer.benchmarks.diversity --checkpoint FILE --category … --out DIR.

Accuracy against the diversity of categories, over the λ of the controllable aggregation of ComiRec, on the
test split of a trained checkpoint. Writes diversity.csv and diversity.png.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from recbole_kuaiformer.benchmarks import running
from recbole_kuaiformer.benchmarks.encoded_users import Users, users_of
from recbole_kuaiformer.benchmarks.item_categories import VALUES, categories_of
from recbole_kuaiformer.benchmarks.tables import COLOURS
from recbole_kuaiformer.checkpoint import CheckpointError
from recbole_kuaiformer.config import READINGS
from recbole_kuaiformer.index.choose import build_index
from recbole_kuaiformer.index.diversity import choose_diverse
from recbole_kuaiformer.index.multi_interest import Retrieved, retrieve
from recbole_kuaiformer.settings import SettingsError

WEIGHTS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
COLUMNS = ("weight", "lambda", "hit", "ndcg", "diversity")
USERS_AT_ONCE = 1024


def pair_diversity(categories: Tensor) -> Tensor:
    """Share of a list's pairs whose categories differ, [U] (Diversity@N of ComiRec, KDD 2020).

    An unknown category, 0, differs from every other one.

    >>> pair_diversity(torch.tensor([[1, 1, 2, 2, 2], [3, 3, 3, 3, 3], [0, 0, 1, 0, 0]])).tolist()
    [0.6000000238418579, 0.0, 1.0]
    """
    n = categories.shape[1]
    same = (categories[:, :, None] == categories[:, None, :]) & (categories > 0)[:, :, None]
    same &= ~torch.eye(n, dtype=torch.bool, device=categories.device)
    return 1 - same.sum((1, 2)) / max(1, n * (n - 1))


def curve(
    users: Users, *, categories: Tensor, k: int, pool: int, weights: Sequence[float]
) -> list[dict[str, float]]:
    """HR@k, NDCG@k and the diversity of the list of k, for each weight.

    Args:
        users: of the test split.
        categories: of each item id, [N].
        k: length of the lists.
        pool: items that a list is chosen from, the best by score.
        weights: λ in units of the mean distance between the first and the last score of a pool.
    """
    index, _ = build_index("auto", users.items)
    found = retrieve(index, users.interests, k=min(pool, len(users.items) - 1), excluded=users.excluded)
    scores = found.scores.masked_fill(found.scores.isinf(), torch.nan)
    spread = float((scores[:, 0] - scores.nan_to_num(nan=torch.inf).amin(1)).mean())
    rows = []
    for weight in weights:
        hits, ndcg, diversity = [], [], []
        for block in torch.arange(len(users.targets)).split(USERS_AT_ONCE):
            part = Retrieved(found.item_ids[block], found.scores[block], found.interests[block])
            ids = choose_diverse(part, k=k, categories=categories, weight=weight * spread).item_ids
            is_target = ids == users.targets[block, None]
            hits.append(is_target.any(1).double())
            ndcg.append((is_target / torch.log2(torch.arange(ids.shape[1], device=ids.device) + 2.0)).sum(1))
            diversity.append(pair_diversity(categories.to(ids.device)[ids]).double())
        means = (float(torch.cat(part).mean()) for part in (hits, ndcg, diversity))
        rows.append(
            dict(zip(("weight", "lambda", "hit", "ndcg", "diversity"), (weight, weight * spread, *means)))
        )
    return rows


def write(rows: list[dict[str, float]], *, out: Path, k: int) -> bool:
    """diversity.csv, and diversity.png if there is matplotlib."""
    with (out / "diversity.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=[*rows[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(5, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot([row["diversity"] for row in rows], [row["hit"] for row in rows], "o-", color=COLOURS[0])
    for number, row in enumerate(rows):  # in turn above and below: neighbours do not run into each other
        axis.annotate(f"{row['weight']:g}", (row["diversity"], row["hit"]), fontsize=8, ha="center",
                      xytext=((8, 5), (-8, -13))[number % 2], textcoords="offset points")  # fmt: skip
    axis.margins(0.08)
    axis.set(xlabel=f"diversity of categories@{k}", ylabel=f"HR@{k}", title="at each point λ, in spreads")
    axis.grid(alpha=0.3)
    figure.savefig(out / "diversity.png", dpi=150)
    pyplot.close(figure)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m recbole_kuaiformer.benchmarks.diversity")
    parser.add_argument("--checkpoint", required=True, help="of this package, or of RecBole")
    parser.add_argument("--category", required=True, help="field of the .item file, token or token_seq")
    parser.add_argument("--value", choices=VALUES, default="first", help="which of several values counts")
    parser.add_argument("--out", required=True, help="folder of the results")
    parser.add_argument("-k", type=int, default=50, help="length of the lists")
    parser.add_argument("--pool", type=int, default=200, help="best items that a list is chosen from")
    parser.add_argument("--weights", type=float, nargs="+", default=list(WEIGHTS), help="λ, in spreads")
    parser.add_argument("--history", choices=READINGS, default="masked")
    args = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        running.check_no_file(Path(args.out))
        users = users_of(Path(args.checkpoint), history=args.history)
        categories = categories_of(users.dataset, args.category, value=args.value)
        rows = curve(users, categories=categories, k=args.k, pool=args.pool, weights=args.weights)
    except (SettingsError, CheckpointError, FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    out = running.results_folder(Path(args.out))
    if not write(rows, out=out, k=args.k):
        print("matplotlib is not installed: no plot (pip install matplotlib)")
    for row in rows:
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
