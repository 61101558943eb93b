"""Which index to take: by name, or ``auto``."""

from __future__ import annotations

import time

import torch
from jaxtyping import Float
from torch import Tensor

from recbole_kuaiformer.index.base import Index, IndexUnavailableError
from recbole_kuaiformer.index.faiss_index import FaissCpuIndex, FaissGpuIndex, Spread, is_flat
from recbole_kuaiformer.index.torch_exact import TorchIndex

# name: class; each is built from the item table [N, D], row 0 padding
INDEXES = {"torch": TorchIndex, "faiss_cpu": FaissCpuIndex, "faiss_gpu": FaissGpuIndex}
AUTO = "auto"
TRIAL_QUERIES, TRIAL_K, TRIALS = 1024, 100, 3


def build_index(
    name: str,
    items: Float[Tensor, "N D"],
    *,
    factory: str = "Flat",
    parameters: str = "",
    spread: Spread | None = None,
) -> tuple[Index, str]:
    """The index of that name over the item table, and one line for the log: which, why, exact or not.

    ``auto``: on a CUDA device with GPU FAISS the faster of it and torch, by trial; on one without it torch
    on that device, never the CPU; on the CPU FAISS, or torch where there is no FAISS. A factory that GPU
    FAISS does not have is searched by CPU FAISS, and the line says so.

    Args:
        name: ``auto`` or one of INDEXES.
        items: [N, D], row 0 is padding.
        factory: FAISS's factory string; anything but ``Flat`` is approximate and needs FAISS.
        parameters: settings of the search, as ``nprobe=16``.
        spread: ``shards`` or ``replicas`` over all GPUs, for faiss_gpu.

    Raises:
        IndexUnavailableError: the backend asked for cannot run here.
        ValueError: an unknown name, bad items, or a factory string that does not fit.
    """
    if name == AUTO:
        index, why = _automatic(items, factory=factory, parameters=parameters, spread=spread)
    elif name not in INDEXES:
        raise ValueError(f"index: {name!r} is not known; known: {AUTO}, {', '.join(INDEXES)}")
    else:
        index = _build(name, items, factory=factory, parameters=parameters, spread=spread)
        why = "as configured"
    return index, f"index: {index.description}, {'exact' if index.is_exact else 'approximate'} ({why})"


def _build(name: str, items: Tensor, *, factory: str, parameters: str, spread: Spread | None) -> Index:
    if name == "torch":
        if not is_flat(factory):
            raise ValueError(f"index_factory: index: torch searches exhaustively, not by {factory!r}")
        return TorchIndex(items)
    if name == "faiss_cpu":
        return FaissCpuIndex(items, factory=factory, parameters=parameters)
    return FaissGpuIndex(items, factory=factory, parameters=parameters, spread=spread)


def _automatic(items: Tensor, *, factory: str, parameters: str, spread: Spread | None) -> tuple[Index, str]:
    if items.is_cuda:
        return _automatic_on_gpu(items, factory=factory, parameters=parameters, spread=spread)
    if spread:
        raise ValueError(f"index_spread: {spread} are over GPUs, but the model is on the CPU")
    try:
        return FaissCpuIndex(items, factory=factory, parameters=parameters), "the model is on the CPU"
    except IndexUnavailableError as error:
        if not is_flat(factory):
            raise
        return TorchIndex(items), str(error)


def _automatic_on_gpu(
    items: Tensor, *, factory: str, parameters: str, spread: Spread | None
) -> tuple[Index, str]:
    try:
        index = FaissGpuIndex(items, factory=factory, parameters=parameters, spread=spread)
    except (IndexUnavailableError, ValueError) as error:
        if is_flat(factory):
            return TorchIndex(items), str(error)
        return FaissCpuIndex(items, factory=factory, parameters=parameters), str(error)
    if not index.is_exact or spread:
        return index, "the model is on a GPU"
    return _faster(index, TorchIndex(items), items=items)


def _faster(faiss: Index, oracle: Index, *, items: Tensor) -> tuple[Index, str]:
    queries = items[1:][torch.arange(TRIAL_QUERIES, device=items.device) % (len(items) - 1)]
    seconds = {index: _seconds(index, queries) for index in (faiss, oracle)}
    best = min(seconds, key=lambda index: seconds[index])
    trial = ", ".join(f"{index.description} {1e3 * s:.1f} ms" for index, s in seconds.items())
    return best, f"the faster in a trial of {TRIAL_QUERIES} queries: {trial}"


def _seconds(index: Index, queries: Tensor) -> float:
    times = []
    for _ in range(TRIALS + 1):  # the first warms up
        torch.cuda.synchronize(queries.device)
        start = time.perf_counter()
        index.search(queries, k=TRIAL_K)
        torch.cuda.synchronize(queries.device)
        times.append(time.perf_counter() - start)
    return min(times[1:])
