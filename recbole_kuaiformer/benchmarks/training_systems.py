"""Models that train side by side: each as its own trainer trains it, a stretch of an epoch at a time.

python -m recbole_kuaiformer.benchmarks.training_systems '{"system": "KuaiFormer", …}' says when its
libraries are imported, builds the system at the first line of its input, and then trains for as many seconds
as each line says. Each answer is a line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import record_function

from recbole_kuaiformer.data.dataset import TARGET_IDS

LOADING = "data loading"  # name under which a profile shows the time spent on making batches

_WIDTH = {"hidden_size": 64, "n_layers": 2, "n_heads": 2, "train_batch_size": 2048}  # RecBole's own batch
_RECBOLE = {
    **_WIDTH,
    "inner_size": 256,
    "loss_type": "CE",
    "train_neg_sample_args": None,
    "sequences": "table",
}

HALF_WINDOWS = "half windows"

# name: RecBole's name of the model, its keys, and whether autograd looks for anomalies as RecBole leaves it.
SYSTEMS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "KuaiFormer": ("KuaiFormer", {**_WIDTH, "n_interests": 4, "targets_per_window": None}, False),
    "SASRecPlus": ("SASRecPlus", {**_WIDTH, "negatives": "all"}, False),
    "SASRecPlus, half windows": ("SASRecPlus", {**_WIDTH, "negatives": "all"}, False),
    "RecBole SASRec, as it is": ("SASRec", _RECBOLE, True),
    "RecBole SASRec, no anomaly detection": ("SASRec", _RECBOLE, False),
}


class Stretch:
    """A part of a dataloader's endless epochs, at least one step; ends by the clock or after some steps."""

    def __init__(
        self, loader: Any, batches: Iterator[Any], *, seconds: float | None, steps: int | None
    ) -> None:
        self._loader, self._batches = loader, batches
        self._seconds, self._most = seconds, steps
        self.targets = self.steps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def set_epoch(self, epoch: int) -> None:
        """The trainer's epoch: of no consequence, the stretch goes on where the last one ended."""

    def __iter__(self) -> Iterator[Any]:
        start = time.perf_counter()
        while self.steps == 0 or self._goes_on(time.perf_counter() - start):
            with record_function(LOADING):
                batch = next(self._batches)
            self.steps += 1
            self.targets += targets_of(batch)
            yield batch

    def _goes_on(self, seconds: float) -> bool:
        in_time = self._seconds is None or seconds < self._seconds
        return in_time and (self._most is None or self.steps < self._most)


def items_seen(train_data: Any, *, length: int) -> Any:
    """How many items of the history each training target sees, [targets].

    A target of a window sees what stands in the window before it; a row of RecBole's table its whole list.
    """
    if not hasattr(train_data, "windows"):
        return train_data.dataset.inter_feat["item_length"].numpy()
    windows, log = train_data.windows, train_data.windows.log
    targets = np.sort(train_data.dataset.inter_feat["log_row"].numpy())
    lasts = np.sort(windows.lasts)
    of_target = lasts[np.searchsorted(lasts, targets)]
    in_window = np.minimum(of_target - log.starts[of_target], length)
    return in_window - (of_target - targets)


def targets_of(batch: Any) -> int:
    """How many targets a training batch trains."""
    return int((batch[TARGET_IDS] > 0).sum()) if TARGET_IDS in batch.interaction else len(batch)


class System:
    """A model with its data and its trainer, ready to train a stretch of an epoch.

    Args:
        case: ``system``, ``dataset``, ``data_path``, ``length``; optional ``seed``, ``first_users``
            (RecBole's table is written for so many users alone), ``given`` (more keys of the configuration).
    """

    def __init__(self, case: dict[str, Any]) -> None:
        from recbole.config import Config
        from recbole.data import create_dataset, data_preparation
        from recbole.utils import get_model, get_trainer, init_seed

        name, keys, anomaly = SYSTEMS[case["system"]]
        if case["system"].endswith(HALF_WINDOWS):  # each target sees at least half of the length
            keys = {**keys, "window_targets": max(1, case["length"] // 2)}
        sys.argv = sys.argv[:1]  # RecBole's Config reads it
        keys = {**_shared(case), **keys, **case.get("given", {})}
        self.config = Config(name, case["dataset"], config_dict=keys)
        init_seed(self.config["seed"], True)
        torch.autograd.set_detect_anomaly(anomaly)
        start = time.perf_counter()
        self.first_users = case.get("first_users", 0) if name == "SASRec" else 0
        if self.first_users:
            write_table_of_first_users(self.first_users)
        data = data_preparation(self.config, create_dataset(self.config))
        self.train_data, self.valid_data, self.test_data = data
        self.build_seconds = time.perf_counter() - start
        self.model = get_model(name)(self.config, self.train_data.dataset).to(self.config["device"])
        self.trainer = get_trainer(self.config["MODEL_TYPE"], name)(self.config, self.model)
        self._batches = self._endless()

    def _endless(self) -> Iterator[Any]:
        while True:
            yield from self.train_data

    def batches(self, n_batches: int) -> list[Any]:
        """The next training batches."""
        return [next(self._batches).to(self.config["device"]) for _ in range(n_batches)]

    def train(self, *, seconds: float | None = None, steps: int | None = None) -> dict[str, float]:
        """Train by RecBole's own loop for some time or steps: seconds taken, targets and steps trained."""
        stretch = Stretch(self.train_data, self._batches, seconds=seconds, steps=steps)
        start, processor = time.perf_counter(), time.process_time()
        self.trainer._train_epoch(stretch, self.trainer.start_epoch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - processor}
        return {**taken, "targets": stretch.targets, "steps": stretch.steps}

    def facts(self) -> dict[str, Any]:
        """What was built: targets of an epoch, seconds to the dataset, items, parameters."""
        start = time.perf_counter()
        iter(self.train_data)
        return {
            "epoch_targets": len(self.train_data.dataset),
            "items_seen": float(
                np.mean(items_seen(self.train_data, length=self.config["MAX_ITEM_LIST_LENGTH"]))
            ),
            "build_seconds": self.build_seconds,
            "epoch_start_seconds": time.perf_counter() - start,
            "first_users": self.first_users,
            "items": self.train_data.dataset.item_num - 1,
            "parameters": sum(values.numel() for values in self.model.parameters()),
        }


def _shared(case: dict[str, Any]) -> dict[str, Any]:
    given = {
        "MAX_ITEM_LIST_LENGTH": case["length"],
        "seed": case.get("seed", 1),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "show_progress": False,
        "state": "ERROR",
    }
    return {**given, "data_path": case["data_path"]} if case["data_path"] else given


def write_table_of_first_users(n_users: int) -> None:
    """RecBole's prefix table holds the users 1 … n alone; the catalogue, numbered by then, stays whole."""
    from recbole.data.dataset import SequentialDataset

    whole = SequentialDataset.data_augmentation

    def data_augmentation(self: Any) -> None:
        self.inter_feat = self.inter_feat[self.inter_feat[self.uid_field] <= n_users]
        whole(self)

    SequentialDataset.data_augmentation = data_augmentation


def write_training_log(case: dict[str, Any], *, file: Path) -> None:
    """The interactions that training may know, as user_ids, item_ids and timestamps in an .npz file."""
    dataset = System({**case, "system": "SASRecPlus"}).train_data.dataset
    rows = dataset.inter_feat["log_row"].numpy()
    rows = np.unique(np.r_[dataset.log.starts[rows], rows])
    log = dataset.log
    np.savez(file, user_ids=log.user_ids[rows], item_ids=log.item_ids[rows], timestamps=log.timestamps[rows])


def main() -> None:
    """Serve a system over stdin and stdout."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else is printed is no answer

    def answer(what: dict[str, Any]) -> None:
        answers.write(json.dumps(what) + "\n")

    answer({"imported": True})
    sys.stdin.readline()
    system = System(json.loads(sys.argv[1]))
    answer(system.facts())
    for line in sys.stdin:
        answer(system.train(seconds=float(line)))


if __name__ == "__main__":
    main()
