"""Seven questions to a GPU: python -m recbole_kuaiformer.benchmarks.gpu_retrieval --out FILE.

Mixed CUDA versions in one process; streams; k = 2048 and 2049; FAISS against torch at 100k, 1M and 10M items;
scratch memory; equality in float32; how large torch's parts should be. Every answer is measured; what cannot
be is written down as the error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from recbole_kuaiformer.benchmarks import measuring, running
from recbole_kuaiformer.benchmarks.retrieval_cases import SIZE
from recbole_kuaiformer.index.base import Index
from recbole_kuaiformer.index.faiss_index import GPU_SCRATCH_BYTES, FaissGpuIndex, import_faiss
from recbole_kuaiformer.index.torch_exact import SCORES_AT_ONCE, TorchIndex
from recbole_kuaiformer.settings import SettingsError

USERS, K_INTERESTS = 2048, 4
ROUNDS = 10
ROUNDS_OF_MANY = 3  # of more than a million items, where a search takes seconds
SIZES = (100_000, 1_000_000, 10_000_000)
PARTS = (2**23, 2**25, 2**26, 2**28)  # scores


def vectors(n_rows: int, *, seed: int) -> torch.Tensor:
    """Normalised rows [n, 64] on the GPU."""
    generator = torch.Generator("cuda").manual_seed(seed)
    rows = torch.randn(n_rows, SIZE, device="cuda", generator=generator)
    return torch.nn.functional.normalize(rows, dim=1)


def versions() -> dict[str, Any]:
    """CUDA of torch and of FAISS in one process, both having worked."""
    faiss = import_faiss(gpu=True)
    FaissGpuIndex(vectors(1_000, seed=1)).search(vectors(8, seed=2), k=3)
    return {
        "torch_cuda": torch.version.cuda,
        "faiss": faiss.__version__,
        "faiss_options": faiss.get_compile_options(),
        "gpus": faiss.get_num_gpus(),
        "device": torch.cuda.get_device_name(),
    }


def streams() -> dict[str, Any]:
    """A search queued on a side stream behind the product that makes its queries must see their result."""
    items, stream = vectors(100_000, seed=1), torch.cuda.Stream()
    index, oracle = FaissGpuIndex(items), TorchIndex(items)
    wrong = 0
    for turn in range(20):
        with torch.cuda.stream(stream):
            queries = torch.zeros(256, SIZE, device="cuda")
            for _ in range(50):  # keeps the stream busy while the search is queued
                queries = queries * 0.5 + vectors(256, seed=turn)
            found = index._brute_force(queries, k=10)  # search() looks for NaN first, and so waits
        stream.synchronize()
        wrong += int((found.scores - oracle.search(queries, k=10).scores).abs().max() > 1e-3)
    return {"turns": 20, "wrong": wrong}


def limits() -> dict[str, Any]:
    """FAISS's own limit of k on a GPU, and the torch search beyond it."""
    items = vectors(10_000, seed=1)
    index, oracle, queries = FaissGpuIndex(items), TorchIndex(items), vectors(16, seed=2)
    return {
        str(k): float((index.search(queries, k=k).scores - oracle.search(queries, k=k).scores).abs().max())
        for k in (2048, 2049)
    }


def scratch() -> dict[str, Any]:
    """MiB of device memory that FAISS's first search takes and keeps; asked first, as it is kept."""
    items, queries = vectors(10_000, seed=1), vectors(64, seed=2)
    torch.cuda.synchronize()
    before = torch.cuda.mem_get_info()[0]
    FaissGpuIndex(items).search(queries, k=10)
    torch.cuda.synchronize()
    return {
        "mib": (before - torch.cuda.mem_get_info()[0]) / 2**20,
        "asked_for_mib": GPU_SCRATCH_BYTES / 2**20,
    }


def speed(n_items: int) -> dict[str, Any]:
    """Users a second of FAISS and torch in turn, 2 048 users x 4 interests; torch's own peak memory."""
    items, queries = vectors(n_items, seed=1), vectors(USERS * K_INTERESTS, seed=2)
    indexes: dict[str, Index] = {"faiss": FaissGpuIndex(items), "torch": TorchIndex(items)}
    answer: dict[str, Any] = {}
    for k in (100, 500):
        works = {name: _work(index, queries, k) for name, index in indexes.items()}
        rounds = ROUNDS if n_items <= 1_000_000 else ROUNDS_OF_MANY
        taken = measuring.interleaved(works, rounds=rounds)
        answer[f"k={k}"] = {name: USERS / measuring.median(values) for name, values in taken.items()}
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    indexes["torch"].search(queries, k=100)
    answer["torch_peak_mib"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return answer


def parts() -> dict[str, Any]:
    """Users a second of torch's search of a million items by the size of its parts, in turn."""
    index, queries = TorchIndex(vectors(1_000_000, seed=1)), vectors(USERS * K_INTERESTS, seed=2)
    works = {f"{size * 4 // 2**20} MiB": _work_in_parts(index, queries, size) for size in PARTS}
    taken = measuring.interleaved(works, rounds=ROUNDS_OF_MANY)
    return {name: USERS / measuring.median(values) for name, values in taken.items()}


def _work_in_parts(index: Index, queries: torch.Tensor, size: int) -> Callable[[], Any]:
    def work() -> None:
        before = SCORES_AT_ONCE["cuda"]
        SCORES_AT_ONCE["cuda"] = size
        try:
            index.search(queries, k=100)
        finally:
            SCORES_AT_ONCE["cuda"] = before

    return work


def _work(index: Index, queries: torch.Tensor, k: int) -> Callable[[], Any]:
    return lambda: index.search(queries, k=k)


def equality() -> dict[str, Any]:
    """Largest difference of scores from torch on the CPU, and the share of equal ids."""
    items, queries = vectors(100_000, seed=1), vectors(512, seed=2)
    oracle = TorchIndex(items.cpu()).search(queries.cpu(), k=500)
    answer = {}
    indexes: dict[str, Index] = {"faiss": FaissGpuIndex(items), "torch": TorchIndex(items)}
    for name, index in indexes.items():
        found = index.search(queries, k=500)
        answer[name] = {
            "scores": float((found.scores.cpu() - oracle.scores).abs().max()),
            "same_ids": float((found.item_ids.cpu() == oracle.item_ids).float().mean()),
        }
    return answer


QUESTIONS: dict[str, Callable[[], Any]] = {
    "scratch memory": scratch,
    "mixed CUDA versions": versions,
    "streams": streams,
    "k = 2048 and 2049": limits,
    "equality in float32": equality,
    "torch in parts of a size": parts,
    **{f"{n:,} items": (lambda n=n: speed(n)) for n in SIZES},  # type: ignore[misc]
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 1 if a question found no answer."""
    parser = argparse.ArgumentParser(prog="python -m recbole_kuaiformer.benchmarks.gpu_retrieval")
    parser.add_argument("--out", required=True, help="JSON file of the answers")
    args = parser.parse_args(arguments)
    out = Path(args.out)
    try:
        running.check_no_file(out.parent)
        if out.is_dir():
            raise SettingsError(f"--out {out}: a folder is in the place of the file")
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not torch.cuda.is_available():
        print("error: this benchmark needs a CUDA device", file=sys.stderr)
        return 2
    out.parent.mkdir(parents=True, exist_ok=True)
    answers: dict[str, Any] = {"machine": measuring.machine()}
    for question, ask in QUESTIONS.items():
        answers[question] = _answer(ask)
        print(f"{question}: {json.dumps(answers[question])}", flush=True)
        running.write(out, answers)
    return int(any(isinstance(answer, dict) and "error" in answer for answer in answers.values()))


def _answer(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Exception as error:  # the other questions are still to be asked
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    sys.exit(main())
