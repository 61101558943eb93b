"""The settings of a comparison that its page shows: where models differ, and what a search has chosen."""

from __future__ import annotations

import ast
import json
from typing import Any

from recbole_kuaiformer.benchmarks import tables
from recbole_kuaiformer.benchmarks.comparison_summary import NONE, Rows

# Settings that differ by nature, or that the table shows anyhow.
_NOT_SETTINGS = (
    "model",
    "MODEL_TYPE",
    "MODEL_INPUT_TYPE",
    "topk",
    "eval_batch_size",
    "sequences",
    "extra_keys",
)


def sections(rows: Rows) -> list[str]:
    """Settings that any two models have both, with other values; and what runs had of a search's."""
    by_model = {row["name"]: row for row in rows}
    held = {model: row["resolved"] for model, row in by_model.items()}
    keys = sorted({key for settings in held.values() for key in settings} - {*_NOT_SETTINGS})
    differing = []
    for key in keys:
        values = [json.dumps(settings[key]) for settings in held.values() if key in settings]
        if len(set(values)) > 1:
            differing.append(key)
    body = [
        [f"`{key}`", *(f"`{json.dumps(one[key])}`" if key in one else NONE for one in held.values())]
        for key in differing
    ]
    parts = ["## Settings that differ", tables.table(["key", *held], body)] if body else []
    searched = [[model, _searched(row)] for model, row in by_model.items() if row["params"]]
    if searched:
        parts += ["## Settings that a search has chosen", tables.table(["model", "settings"], searched)]
    return parts


def _searched(row: dict[str, Any]) -> str:
    """What the run had of the settings that a search chose, and what it was given in place of others."""
    resolved = row["resolved"]
    held = {key: value for key, value in row["params"].items() if key in resolved}
    other = {key: resolved[key] for key, value in held.items() if _as_read(value) != resolved[key]}
    kept = {key: resolved[key] for key in held if key not in other}
    return f"`{json.dumps(kept)}`" + (
        f"; given in place of the search's: `{json.dumps(other)}`" if other else ""
    )


def _as_read(value: Any) -> Any:
    """A value of a file as RecBole reads it, which makes a number of ``1e-3``."""
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        return value
