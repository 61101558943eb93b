"""Recommendations for one history: python -m recbole_kuaiformer.recommend --export DIR --history "a,b"."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from recbole_kuaiformer.export import run_command
from recbole_kuaiformer.serving.catalogue import Catalogue
from recbole_kuaiformer.serving.retriever import Recommendations, Retriever

WIDEST = 40  # characters of a column


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m recbole_kuaiformer.recommend", description=__doc__)
    parser.add_argument("--export", required=True, help="folder written by recbole_kuaiformer.export")
    parser.add_argument("--history", required=True, help="item tokens, oldest first, separated by commas")
    parser.add_argument("-k", type=int, default=10, help="how many items")
    parser.add_argument("--keep_history", action="store_true", help="items of the history may come again")
    parser.add_argument("--diversity", type=float, default=0.0, help="weight of other categories, >= 0")
    parser.add_argument("--category", default=None, help="column of the items that --diversity looks at")
    args = parser.parse_args(arguments)
    return run_command(lambda: _recommend(args))


def _recommend(args: argparse.Namespace) -> None:
    retriever = Retriever.load(args.export)
    history = [token.strip() for token in args.history.split(",") if token.strip()]
    result = retriever.recommend(
        [history],
        k=args.k,
        exclude_history=not args.keep_history,
        diversity=args.diversity,
        category=args.category,
    )
    unknown = result.unknown[0]
    if result.tokens[0]:
        print(table(result, retriever.catalogue))
    elif len(unknown) == len(history):
        print("nothing of the history is known, so there is nothing to recommend from")
    else:
        print("every item is in the history already (--keep_history lets them come again)")
    if unknown:
        print(f"not known to the model and left out: {', '.join(unknown)}")


def table(result: Recommendations, catalogue: Catalogue) -> str:
    """The first user's items, with whatever columns the export has of them."""
    columns = [*catalogue.columns]
    rows = [["rank", "item", "score", "interest", *columns]]
    for rank, (token, score, interest) in enumerate(
        zip(result.tokens[0], result.scores[0], result.interests[0]), start=1
    ):
        place = catalogue.ids[token] - 1
        more = [_text(catalogue.columns[name][place]) for name in columns]
        rows.append([str(rank), _text(token), f"{score:.4f}", str(interest + 1), *more])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )


def _text(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


if __name__ == "__main__":
    sys.exit(main())
