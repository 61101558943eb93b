"""Runs → one line for each model and reading: mean and deviation over the seeds."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from recbole_kuaiformer.config import READINGS

Rows = list[dict[str, Any]]

NONE = "n/a"  # what tables have in the place of a value that is not there

COSTS = ("train_seconds", "epochs", "peak_mib", "cuda_peak_mib", "parameters", "user_mflops", "valid_score")
UNKNOWN_CPU = "a CPU"
OF_A_DEVICE = ("train_seconds", "peak_mib", "cuda_peak_mib")  # no number for runs of several devices together
# Of these metrics the tables show these cut-offs alone (where they were measured); the JSON holds all.
SHOWN = {
    "recall": (10, 50, 100, 200, 500, 1000), "ndcg": (10, 50, 200), "mrr": (10,),
    "itemcoverage": (10,), "giniindex": (10,),
}  # fmt: skip


def by_dataset(rows: Rows) -> dict[str, Rows]:
    """The rows of each dataset, in their order."""
    found: dict[str, Rows] = {}
    for row in rows:
        found.setdefault(row["dataset"], []).append(row)
    return found


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation; the latter is None of a single value."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of the values of the seeds.

        >>> Spread.of([1.0, 2.0, 3.0])
        Spread(mean=2.0, std=1.0)
        """
        held = list(values)
        return cls(statistics.fmean(held), statistics.stdev(held) if len(held) > 1 else None)


@dataclass(frozen=True)
class Line:
    """A model in one reading of history.

    Attributes:
        metrics: by name and cut-off, as recall@10; empty where the model has no such reading.
        costs: what training took, by the names of COSTS.
    """

    model: str
    reading: str
    n_seeds: int
    metrics: dict[str, Spread]
    costs: dict[str, Spread]


def lines(rows: Rows) -> list[Line]:
    """A line for each model and each reading that any model has, models in the order of the rows."""
    finished = [row for row in rows if "failed" not in row]
    readings = [name for name in READINGS if any(name in row["readings"] for row in finished)]
    devices_of: dict[str, set[str]] = {}
    for row, device in zip(finished, device_of_each(finished)):
        devices_of.setdefault(row["name"], set()).add(device)
    return [
        _line([row for row in finished if row["name"] == model], reading=reading, on_several=len(made_on) > 1)
        for reading in readings
        for model, made_on in devices_of.items()
    ]


def _line(rows: Rows, *, reading: str, on_several: bool) -> Line:
    measured = [row["readings"][reading] for row in rows if reading in row["readings"]]
    names = [name for name in (measured[0] if measured else ()) if all(name in one for one in measured)]
    return Line(
        model=rows[0]["name"],
        reading=reading,
        n_seeds=len(rows),
        metrics={name: Spread.of(one[name] for one in measured) for name in names},
        costs={
            name: Spread.of(row[name] for row in rows)
            for name in COSTS
            if all(row.get(name) is not None for row in rows) and not (name in OF_A_DEVICE and on_several)
        },
    )


def shown_metrics(found: Iterable[Line]) -> list[str]:
    """Names of the metrics that tables show, in their order; all of them where none is among SHOWN."""
    there = dict.fromkeys(name for line in found for name in line.metrics)
    chosen = [f"{metric}@{k}" for metric, cuts in SHOWN.items() for k in cuts if f"{metric}@{k}" in there]
    missing = [name for name in there if name.partition("@")[0] not in SHOWN]
    if not any(name.startswith("recall@") for name in chosen):
        return list(there)
    return chosen + missing


def warnings(rows: Rows) -> list[str]:
    """What makes the numbers of a dataset not comparable, or less so; empty where nothing does."""
    finished = [row for row in rows if "failed" not in row]
    reads_lists = [
        row
        for row in finished
        if row["valid_reading"] == row["resolved"]["evaluate_history"] or len(row["readings"]) > 1
    ]
    may_differ: dict[str, dict[str, Any]] = {
        "The models were tested on different users: {}.": {
            row["name"]: row["test_users"] for row in finished
        },
        "The models ranked catalogues of different size: {}.": {
            row["name"]: row["items"]
            for row in finished
            if "items" in row  # earlier runs do not say
        },
        "The models read histories of different length: {}. `--set MAX_ITEM_LIST_LENGTH=…` gives all of "
        "them one.": {row["name"]: row["resolved"].get("MAX_ITEM_LIST_LENGTH") for row in reads_lists},
        "The epochs of the models were chosen in different readings of history: {}. "
        "`--set evaluate_history=…` gives all of them one.": {
            row["name"]: row["valid_reading"] for row in reads_lists
        },
        "The models have different numbers of seeds: {}.": Counter(row["name"] for row in finished),
    }
    said = [text.format(_listed(of)) for text, of in may_differ.items() if len(set(of.values())) > 1]
    if any(row["readings"].keys() != {*READINGS} for row in finished):
        partial = dict.fromkeys(row["name"] for row in finished if row["readings"].keys() != {*READINGS})
        said.append(
            f"{', '.join(partial)}: no numbers with history kept; RecBole always leaves a user's history out "
            "of the ranking of models that are not sequential, in validation too. It orders "
            "theirs by times of 32 bits, so that some users may be asked for another item."
        )
    made_on = devices(finished)
    if len(made_on) > 1:
        listed = ". ".join(f"On {device}: {'; '.join(names)}" for device, names in made_on.items())
        bounded = dict.fromkeys(row["name"] for row in finished if row.get("time_budget") is not None)
        nor = f", nor the results of what a time budget ends ({'; '.join(bounded)})" if bounded else ""
        said.append(f"Runs of several devices: seconds and memory cannot be compared{nor}. {listed}.")
    for file in dict.fromkeys(row["published"] for row in finished if "published" in row):
        seeds_of: dict[str, list[str]] = {}
        for row in finished:
            if row.get("published") == file:
                seeds_of.setdefault(row["name"], []).append(str(row["seed"]))
        of_each = "; ".join(f"{name} {', '.join(some)}" for name, some in seeds_of.items())
        said.append(
            f"Runs taken from {file}, with what they cost on its machine and day, and without the ranks of "
            f"their users, so that no pair is tested over these seeds: {of_each}."
        )
    return said


def device_of_each(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """What made each run: a GPU, or a CPU and its threads.

    Runs of before this was noted are of the CPU that the others are of, if these are all of one.
    """
    found = []
    for row in rows:
        made = row.get("made") or {}
        on_gpu = row.get("cuda_peak_mib")  # 0 on the CPU of a machine that has a GPU
        if on_gpu or (made.get("cuda") and on_gpu is None):
            found.append(made.get("cuda") or "a GPU")
        elif made.get("cpu"):
            found.append(f"{made['cpu']} (threads: {made.get('threads')})")
        else:
            found.append(UNKNOWN_CPU)
    (only, *others) = {device for device in found if "(threads: " in device} or {UNKNOWN_CPU}
    return [only if device == UNKNOWN_CPU and not others else device for device in found]


def devices(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Names of the runs by what made them."""
    held = list(rows)
    found: dict[str, list[str]] = {}
    for row, device in zip(held, device_of_each(held)):
        names = found.setdefault(device, [])
        if row["name"] not in names:
            names.append(row["name"])
    return found


def told_the_time(rows: Rows) -> list[str]:
    """Names of the models that know when a recommendation is asked for, the time of the target itself."""
    return [
        name
        for name, resolved in {row["name"]: row["resolved"] for row in rows}.items()
        if resolved.get("use_request_time") or resolved.get("request_gap") is not None
    ]


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
