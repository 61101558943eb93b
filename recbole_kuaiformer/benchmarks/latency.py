"""Trained models served: python -m recbole_kuaiformer.benchmarks.latency --checkpoints NAME=FILE … --out DIR.

One request (a user's history in, the best k items out) and batches of users, through each checkpoint's own
model on its configured device, all of them in turn so that a busy machine slows them alike. Writes latency.md
and latency.json; every time also as a ratio to the first checkpoint's.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_kuaiformer.benchmarks import flops, measuring, running
from recbole_kuaiformer.benchmarks.encoded_users import loaded, named_checkpoints
from recbole_kuaiformer.checkpoint import CheckpointError
from recbole_kuaiformer.index.base import Index
from recbole_kuaiformer.index.choose import build_index
from recbole_kuaiformer.index.multi_interest import retrieve
from recbole_kuaiformer.models.dot_product import dot_product_model
from recbole_kuaiformer.settings import SettingsError

Row = dict[str, Any]

TIMES = ("encode", "search", "batch")


@dataclass(frozen=True)
class Served:
    """A checkpoint ready to answer.

    Attributes:
        encode: K vectors of each row of an interaction.
        index: over its items.
        requests: one row each, of test users.
        batch: the same users at once.
        parameters: of the model.
        mflops: to encode one of them, on average as they are padded in the batch.
    """

    encode: Callable[[Interaction], Tensor]
    index: Index
    requests: list[Interaction]
    batch: Interaction
    parameters: int
    mflops: float


def load(checkpoint: Path, *, n_users: int) -> Served:
    """A checkpoint's model, index and first test users.

    Raises:
        SettingsError: the model's score is no dot product.
        FileNotFoundError: there is no such file.
        CheckpointError: it is no checkpoint.
    """
    config, model, _, test_data = loaded(checkpoint)
    vectors = dot_product_model(model)
    if vectors is None:
        raise SettingsError(f"{checkpoint}: the score of {config['model']} is not known to be a dot product")
    model.eval()
    batches, have = [], 0
    for found, *_ in test_data:
        batches.append(found)
        have += len(found)
        if have >= n_users:
            break
    users = {key: torch.cat([batch[key] for batch in batches])[:n_users] for key in batches[0].interaction}
    batch = Interaction(users).to(config["device"])
    with torch.no_grad():
        index, _ = build_index("auto", vectors.item_vectors().detach().contiguous())
    return Served(
        encode=vectors.user_vectors,
        index=index,
        requests=[batch[row : row + 1] for row in range(len(batch))],
        batch=batch,
        parameters=sum(values.numel() for values in model.parameters()),
        mflops=flops.encoding_mflops(vectors, batch),
    )


@torch.no_grad()
def measured(served: dict[str, Served], *, k: int, rounds: int) -> list[Row]:
    """A row for each checkpoint.

    Args:
        served: by name.
        k: items asked for.
        rounds: times that the whole batch is encoded; every single request is made once.
    """
    taken: dict[str, dict[str, list[float]]] = {name: {time: [] for time in TIMES} for name in served}
    for one in served.values():  # warm
        retrieve(one.index, one.encode(one.requests[0]), k=k)
        one.encode(one.batch)
    for number in range(min(len(one.requests) for one in served.values())):
        for name, one in served.items():
            start = _now()
            interests = one.encode(one.requests[number])
            encoded = _now()
            retrieve(one.index, interests, k=k)
            taken[name]["encode"].append(encoded - start)
            taken[name]["search"].append(_now() - encoded)
    for _ in range(rounds):
        for name, one in served.items():
            start = _now()
            one.encode(one.batch)
            taken[name]["batch"].append(_now() - start)
    return [_row(name, one, taken[name]) for name, one in served.items()]


def _row(name: str, one: Served, taken: dict[str, list[float]]) -> Row:
    encode, search = (measuring.percentiles([1e3 * value for value in taken[part]]) for part in TIMES[:2])
    whole = [1e3 * sum(pair) for pair in zip(taken["encode"], taken["search"])]
    return {
        "name": name,
        "parameters": one.parameters,
        "mflops": one.mflops,
        "encode_ms": encode,
        "search_ms": search,
        "request_ms": measuring.percentiles(whole),
        "batch_users_per_s": len(one.batch) / measuring.median(taken["batch"]),
    }


def as_markdown(rows: Sequence[Row], *, command: str, k: int, n_users: int) -> str:
    """A line for each checkpoint; ratios are to the first one."""
    machine = measuring.machine()
    device = machine["cuda"] or f"{machine['cpu']}, {machine['threads']} threads"
    lines = [
        f"# Trained models served\n\n`{command}`\n",
        f"{n_users} test users, one after another and in one batch; {k} items for each. {device}, torch "
        f"{machine['torch']}, commit {measuring.commit()}. In brackets the ratio to {rows[0]['name']}.\n",
        "| model | parameters | MFLOP a user | encode p50, ms | encode p95 | request p50, ms | request p95 | "
        "users a second, batch |",
        "| --- |" + " --- |" * 7,
    ]
    first = rows[0]
    for row in rows:
        p50 = row["encode_ms"]["p50"]
        whole = row["request_ms"]["p50"]
        rate = row["batch_users_per_s"]
        lines.append(
            f"| {row['name']} | {row['parameters']} | {row['mflops']:.1f} | "
            f"{p50:.2f} ({p50 / first['encode_ms']['p50']:.2f}) | {row['encode_ms']['p95']:.2f} | "
            f"{whole:.2f} ({whole / first['request_ms']['p50']:.2f}) | {row['request_ms']['p95']:.2f} | "
            f"{rate:.0f} ({rate / first['batch_users_per_s']:.2f}) |"
        )
    return "\n".join(lines) + "\n"


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    options = argparse.ArgumentParser(prog="python -m recbole_kuaiformer.benchmarks.latency")
    options.add_argument("--checkpoints", nargs="+", required=True, metavar="NAME=FILE")
    options.add_argument("--out", required=True, help="folder of the results")
    options.add_argument("-k", type=int, default=100, help="items asked for")
    options.add_argument("--users", type=int, default=256, help="test users, and so single requests")
    options.add_argument("--rounds", type=int, default=10, help="times that the batch of all is encoded")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a wrong setting or file."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parser().parse_args(given)
    try:
        for option in ("k", "users", "rounds"):
            if getattr(args, option) < 1:
                raise SettingsError(f"{'-' if option == 'k' else '--'}{option}: must be at least 1")
        files = named_checkpoints(args.checkpoints)
        served = {name: load(file, n_users=args.users) for name, file in files.items()}
        out = running.results_folder(Path(args.out))
    except (SettingsError, CheckpointError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = measured(served, k=args.k, rounds=args.rounds)
    command = f"python -m recbole_kuaiformer.benchmarks.latency {shlex.join(given)}"
    n_users = min(len(one.requests) for one in served.values())
    text = as_markdown(rows, command=command, k=args.k, n_users=n_users)
    (out / "latency.md").write_text(text, encoding="utf-8")
    (out / "latency.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(text)
    return 0


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    sys.exit(main())
