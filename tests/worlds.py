"""Small generated datasets whose right answer is known, as RecBole atomic files."""

import random
import socket
import sys
from contextlib import suppress

import numpy as np
import pytest
import recbole
import torch

splits_by_time = pytest.mark.skipif(recbole.__version__ == "1.2.0", reason="RecBole 1.2.0 has no split TS")


def write(folder, name, rows, *, header="user_id:token\titem_id:token\ttimestamp:float", items=None):
    """Write rows (tuples) as <folder>/<name>/<name>.inter, and items as .item; returns the data_path."""
    (folder / name).mkdir(parents=True)
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    (folder / name / f"{name}.inter").write_text("\n".join(lines) + "\n")
    if items is not None:
        (folder / name / f"{name}.item").write_text("\n".join(items) + "\n")
    return str(folder)


def cyclic(folder, *, n_users=120, n_items=37, length=20, name="cyclic"):
    """Next item = item + 1, around the catalogue."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(n_users):
        start = int(rng.integers(n_items))
        rows += [(f"u{user}", f"i{(start + t) % n_items}", 1_700_000_000 + 60 * t) for t in range(length)]
    return write(folder, name, rows)


def two_interests(folder, *, n_users=300, per_cycle=12, length=24, name="twofold"):
    """Each user follows two cycles at once and goes on in either, by the toss of a coin.

    Items a0…a11 and b0…b11; the next item continues the a-cycle or the b-cycle. Both continuations are
    right, so a retriever should have both among its first few.
    """
    rng = np.random.default_rng(1)
    rows = []
    for user in range(n_users):
        at = {"a": int(rng.integers(per_cycle)), "b": int(rng.integers(per_cycle))}
        for t in range(length):
            cycle = "ab"[int(rng.integers(2))]
            at[cycle] = (at[cycle] + 1) % per_cycle
            rows.append((f"u{user}", f"{cycle}{at[cycle]}", 1_700_000_000 + 60 * t))
    return write(folder, name, rows)


def two_kinds(folder, *, n_users, length=15):
    """``two_interests`` with items whose kind is their letter, and whose tags are several."""
    path = two_interests(folder, n_users=n_users, length=length)
    items = ["item_id:token\tkind:token\ttags:token_seq\tprice:float"]
    items += [f"{letter}{i}\t{letter}\tx{i % 5} {letter}\t{i}" for letter in "ab" for i in range(12)]
    (folder / "twofold" / "twofold.item").write_text("\n".join(items) + "\n")
    return path


def small(data_path, name, **more):
    """A configuration small enough for seconds."""
    return {
        "data_path": data_path,
        "dataset": name,
        "use_gpu": torch.cuda.is_available(),  # conftest.py says; begun processes do as well
        "show_progress": False,
        "state": "WARNING",
        "seed": 7,
        "hidden_size": 16,
        "n_layers": 1,
        "n_interests": 2,
        "MAX_ITEM_LIST_LENGTH": 16,
        "compression_groups": [4, 4],
        "recent_length": 8,
        "window_targets": 4,
        "hidden_dropout_prob": 0.0,
        "train_batch_size": 256,
        "learning_rate": 0.01,
        "topk": [5, 10],
        "valid_metric": "NDCG@10",
        "epochs": 3,
        **more,
    }


SHAPE = {
    "KuaiFormer": ("n_layers", "n_interests", "compression_groups", "recent_length", "hidden_dropout_prob"),
    "SASRecPlus": ("n_layers", "hidden_dropout_prob"),
    "HSTU": ("n_layers", "hidden_dropout_prob"),
    "PinnerFormer": ("n_layers", "hidden_dropout_prob"),
    "ComiRecSA": ("n_interests",),
    "ComiRecDR": ("n_interests",),
    "MIND": ("n_interests",),
}


def small_for(model, data_path, name, **more):
    """As ``small``, without the shape keys that the model does not have."""
    every = {key for keys in SHAPE.values() for key in keys}
    given = {
        key: value for key, value in small(data_path, name).items() if key not in every - {*SHAPE[model]}
    }
    return {**given, **more}


def free_ports(n):
    """Ports to listen on later: none of those that the system gives to connections in the meantime."""
    found = []
    while len(found) < n:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("localhost", port))
            found.append(str(port))
    return found


def at_home(monkeypatch, folder):
    """RecBole writes into the working directory and parses the process's arguments."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["pytest"])
