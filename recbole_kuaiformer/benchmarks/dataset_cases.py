"""Seconds and memory to a ready dataset: RecBole's table, the same models on the log, and ours.

python -m recbole_kuaiformer.benchmarks.dataset_cases '{"dataset": "ml-1m", "data_path": "data",
"source": "log", "length": 200}' prints one line of JSON; ``generated_rows`` in the case writes the
dataset first.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_kuaiformer.benchmarks import measuring

MODELS = {"table": "SASRec", "log": "SASRec", "ours": "KuaiFormer"}
LOAD = {"inter": ["user_id", "item_id", "timestamp"]}
BYTES_PER_ENTRY = 8 + 4  # of the table: an item id and a time for each place of each list


def generated_log(folder: Path, *, n_rows: int, n_users: int, n_items: int, seed: int) -> str:
    """Write ``<folder>/<name>/<name>.inter``, rows in order of time, users and items Zipf-like; the name.

    About the i-th item is drawn proportionally to 1 / (i + 10); users' activity likewise, flatter.
    """
    rng = np.random.default_rng(seed)
    name = f"generated-{n_rows}"
    columns = {
        "user_id:token": _drawn(rng, n_rows=n_rows, n_values=n_users, flatness=n_users / 20),
        "item_id:token": _drawn(rng, n_rows=n_rows, n_values=n_items, flatness=10),
        "timestamp:float": 1_600_000_000 + np.sort(rng.integers(0, 100_000_000, n_rows)),
    }
    (folder / name).mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_csv(folder / name / f"{name}.inter", sep="\t", index=False)
    return name


def _drawn(rng: np.random.Generator, *, n_rows: int, n_values: int, flatness: float) -> Any:
    """Values 1 … n with probability about 1 / (value + flatness): the inverse of its distribution."""
    low, high = np.log(1 + flatness), np.log(n_values + 1 + flatness)
    return rng.permutation(n_values)[(np.exp(rng.uniform(low, high, n_rows)) - 1 - flatness).astype(int)] + 1
