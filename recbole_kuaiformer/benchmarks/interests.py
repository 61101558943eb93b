"""What interests learn: python -m recbole_kuaiformer.benchmarks.interests --checkpoints … --out DIR.

Looks at the test users of trained checkpoints: which interest is nearest to the target, how far apart the
interests of a user are, how pure in categories each one's list is beside the merged list (and beside another
model's, as one of a single vector), and who is found: targets of the category that the user has had most, of
another one, of a new one, popular ones and others. Writes interests.md and interests.json, and two pictures
of each checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recbole_kuaiformer.benchmarks import interest_plots, running
from recbole_kuaiformer.benchmarks.encoded_users import named_checkpoints, users_of
from recbole_kuaiformer.benchmarks.interest_attention import AttentionByRecency
from recbole_kuaiformer.benchmarks.interest_facts import HEAD, KINDS, POPULARITY, Facts, as_row, facts
from recbole_kuaiformer.benchmarks.item_categories import VALUES, categories_of
from recbole_kuaiformer.checkpoint import CheckpointError
from recbole_kuaiformer.config import READINGS
from recbole_kuaiformer.data.atomic_files import DataError
from recbole_kuaiformer.settings import SettingsError


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    options = argparse.ArgumentParser(prog="python -m recbole_kuaiformer.benchmarks.interests")
    options.add_argument("--checkpoints", nargs="+", required=True, metavar="NAME=FILE")
    options.add_argument("--category", required=True, help="field of the .item file, token or token_seq")
    options.add_argument("--value", choices=VALUES, default="first", help="which of several values counts")
    options.add_argument("--out", required=True, help="folder of the results")
    options.add_argument("-k", type=int, default=50, help="length of the lists")
    options.add_argument("--history", choices=READINGS, default="masked")
    return options


def look(args: argparse.Namespace) -> dict[str, Facts]:
    """The facts of every checkpoint, by its name; draws its pictures.

    Raises:
        SettingsError: a text is no NAME=FILE, or the items have no such category.
        FileNotFoundError: there is no such file.
        CheckpointError: a file is no checkpoint.
    """
    found = {}
    for name, file in named_checkpoints(args.checkpoints).items():
        attention = AttentionByRecency()
        users = users_of(file, history=args.history, watch=attention.watch)
        if not 1 < args.k < len(users.items):
            raise SettingsError(f"-k {args.k}: must be between 2 and the {len(users.items) - 1} items")
        categories = categories_of(users.dataset, args.category, value=args.value)
        if not bool((categories > 0).any()):
            raise SettingsError(f"--category: no item has a value in {args.category!r}")
        found[name] = facts(users, categories=categories, k=args.k)
        out = running.results_folder(Path(args.out))
        interest_plots.write(users, found=found[name], attention=attention, name=name, folder=out, k=args.k)
    return found


def as_markdown(found: Mapping[str, Facts], *, command: str, history: str, category: str) -> str:
    """A column for each checkpoint."""
    rows = {name: as_row(one) for name, one in found.items()}
    lines = ["# What the interests learn", f"`{command}`"]
    lines.append(
        f"Test users, history {history}; means over users. Categories are of the field `{category}`. "
        "Purity: share of a list's pairs that are of one category. Targets: main, of the category that "
        "the user has had most items of; minor, of another one that the user has had; new, of one that the "
        f"user has not had; head, one of the most popular {HEAD:.0%} of the items; tail, another."
    )
    table = [f"| | {' | '.join(rows)} |", "| --- |" + " --- |" * len(rows)]
    names = [*dict.fromkeys(name for row in rows.values() for name in row)]
    table += [f"| {name} | {' | '.join(_cell(row.get(name)) for row in rows.values())} |" for name in names]
    for kind in (*KINDS, *POPULARITY):
        counts = " | ".join(str(one.targets[kind]) for one in found.values())
        table.append(f"| targets, {kind} | {counts} |")
    lines.append("\n".join(table))
    lines += [f"![{name}]({name}-interests.png)\n![{name}]({name}-map.png)" for name in found]
    return "\n\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a wrong setting or file."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parser().parse_args(given)
    try:
        found = look(args)
    except (SettingsError, CheckpointError, DataError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    out = Path(args.out)
    command = f"python -m recbole_kuaiformer.benchmarks.interests {shlex.join(given)}"
    text = as_markdown(found, command=command, history=args.history, category=args.category)
    (out / "interests.md").write_text(text, encoding="utf-8")
    held = {name: {**asdict(one), **as_row(one)} for name, one in found.items()}
    (out / "interests.json").write_text(json.dumps(_without_nan(held), indent=1), encoding="utf-8")
    print(text)
    return 0


def _without_nan(held: Any) -> Any:
    """The same with None for NaN, which JSON does not have."""
    if isinstance(held, dict):
        return {key: _without_nan(value) for key, value in held.items()}
    if isinstance(held, list):
        return [_without_nan(value) for value in held]
    return None if isinstance(held, float) and math.isnan(held) else held


def _cell(value: float | None) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{value:.4f}"


if __name__ == "__main__":
    sys.exit(main())
