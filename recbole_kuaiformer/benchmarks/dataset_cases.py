"""Seconds and memory to a ready dataset: RecBole's table, the same models on the log, and ours.

python -m recbole_kuaiformer.benchmarks.dataset_cases '{"dataset": "ml-1m", "data_path": "data",
"source": "log", "length": 200}' prints one line of JSON. With "generate": {"n_rows": …, "n_users": …,
"n_items": …, "seed": …} instead of a dataset, one is written under data_path first.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.config import Config
from recbole.data import create_dataset, data_preparation

from recbole_kuaiformer.benchmarks import measuring

MODELS = {"table": "SASRec", "log": "SASRec", "ours": "KuaiFormer"}
LOAD = {"inter": ["user_id", "item_id", "timestamp"]}
TABLE_ENTRY = 8 + 4  # bytes: an item id and a time for each place of each list
TABLE_COPIES = 2  # the table, and what is copied out of it for the splits


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


def ready_dataset(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Seconds and MiB from files to dataloaders, in this process; what would not fit is not run.

    ``cpu_seconds`` is this process's own time, which a busy machine leaves about as it is.

    Args:
        case: dataset, data_path, source (table | log: RecBole's SASRec; ours: KuaiFormer) and length.
    """
    result = {key: case[key] for key in ("dataset", "source", "length")}
    if case["source"] == "table":
        needed, free = _table_gib(_config(case)), measuring.available_gib()
        if needed > 0.9 * free:
            return [{**result, "stopped": f"needs about {needed:.0f} GiB, {free:.0f} GiB are there"}]
    config, parts = _config(case), _Parts()
    result["peak_mib"] = measuring.peak_mib(lambda: parts.prepare(config))
    result["rows"] = sum(len(loader.dataset) for loader in parts.loaders)
    return [{**result, **parts.seconds, "cpu_seconds": parts.cpu_seconds}]


class _Parts:
    """Dataloaders, and the seconds it took to get there."""

    def prepare(self, config: Any) -> None:
        start, of_cpu = time.perf_counter(), time.process_time()
        dataset = create_dataset(config)
        read = time.perf_counter()
        self.loaders = data_preparation(config, dataset)
        done = time.perf_counter()
        self.cpu_seconds = time.process_time() - of_cpu
        self.seconds = {"seconds": done - start, "read_seconds": read - start, "build_seconds": done - read}


def _config(case: dict[str, Any]) -> Any:
    import recbole_kuaiformer  # noqa: F401 (makes our model RecBole's)

    sys.argv = sys.argv[:1]
    given: dict[str, Any] = {
        "state": "ERROR", "show_progress": False, "load_col": LOAD, "MAX_ITEM_LIST_LENGTH": case["length"],
    }  # fmt: skip
    if case["data_path"]:  # else where RecBole looks by itself
        given["data_path"] = case["data_path"]
    if case["source"] == "ours":
        given |= {"compression_groups": [], "recent_length": None}
    else:
        given["sequences"] = case["source"]
    return Config(MODELS[case["source"]], case["dataset"], config_dict=given)


def _table_gib(config: Any) -> float:
    file = Path(config["data_path"], f"{config['dataset']}.inter")
    with file.open("rb") as blocks:
        rows = sum(block.count(b"\n") for block in iter(lambda: blocks.read(2**20), b""))
    return float(TABLE_COPIES * TABLE_ENTRY * rows * config["MAX_ITEM_LIST_LENGTH"] / 2**30)


def main() -> None:
    """Measure the case given as JSON."""
    case = json.loads(sys.argv[1])
    if "generate" in case:
        case["dataset"] = generated_log(Path(case["data_path"]), **case.pop("generate"))
    print(json.dumps(ready_dataset(case)))


if __name__ == "__main__":
    main()
