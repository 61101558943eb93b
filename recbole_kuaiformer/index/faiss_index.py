"""FAISS: flat and approximate, CPU and GPU; the only file that imports it, and only when asked to."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from recbole_kuaiformer.index.base import IndexUnavailableError, TopK, check_items, check_search
from recbole_kuaiformer.index.torch_exact import TorchIndex

FLAT = "Flat"
Spread = Literal["shards", "replicas"]
GPU_MAX_K = 2048  # GpuIndex.search raises beyond, bfKnn aborts the process
GPU_SCRATCH_BYTES = 256 * 2**20  # FAISS itself would take 1.5 GiB of each device
BLAS_FROM_ROWS = 32  # queries from which one matrix product beats one pass per query
_REINSTALL = "run `pip uninstall -y faiss-cpu faiss-gpu`, then install one of them"

_of_thread = threading.local()


class _BlasThreshold:
    lock = threading.Lock()
    n_users = 0
    before = 0


_blas = _BlasThreshold()


def import_faiss(*, gpu: bool) -> Any:
    """The module, checked.

    Raises:
        IndexUnavailableError: it is absent, broken, or (with ``gpu``) cannot use a GPU; says what to install.
    """
    try:
        faiss: Any = importlib.import_module("faiss")
    except ModuleNotFoundError as error:
        if isinstance(error, metadata.PackageNotFoundError) or error.name != "faiss":
            raise IndexUnavailableError(f"faiss: its import fails ({error}); {_REINSTALL}") from error
        raise IndexUnavailableError(
            "faiss is not installed; `pip install 'recbole-kuaiformer[cpu]'` (or [gpu]) brings it"
        ) from error
    except Exception as error:  # a broken install raises RuntimeError, PackageNotFoundError, ImportError …
        raise IndexUnavailableError(
            f"faiss: its import fails ({type(error).__name__}: {error}); {_REINSTALL}"
        ) from error
    if not hasattr(faiss, "IndexFlatIP"):
        raise IndexUnavailableError(
            f"faiss is installed but empty (one of its wheels was removed from under the other); {_REINSTALL}"
        )
    if gpu:
        _check_gpu(faiss)
    return faiss


def _check_gpu(faiss: Any) -> None:
    if "GPU" not in faiss.get_compile_options().split():
        installed = _distributions()
        why = (
            f"{' and '.join(installed)} share one folder, and the CPU one was installed last"
            if len(installed) > 1
            else "it is the CPU build"
        )
        raise IndexUnavailableError(
            f"faiss has no GPU support ({why}); {_REINSTALL} (faiss-gpu, Linux x86-64)"
        )
    if faiss.get_num_gpus() == 0:
        raise IndexUnavailableError(
            "faiss sees no GPU; check the driver, or choose index: faiss_cpu or torch"
        )


def _distributions() -> list[str]:
    names = {(one.metadata["Name"] or "").lower() for one in metadata.distributions()}
    return sorted(name for name in names if name.startswith("faiss-"))


def is_flat(factory: str) -> bool:
    """Whether a factory string names exhaustive search over the vectors as they are.

    >>> is_flat("Flat"), is_flat("IVF64,Flat"), is_flat("PCA16,Flat")
    (True, False, False)
    """
    return factory == FLAT


class FaissCpuIndex:
    """FAISS on the CPU: exact over the table itself, without a copy, or any index of its factory.

    Args:
        items: [N, D], row 0 is padding.
        factory: FAISS's factory string; ``Flat`` is exact, anything else approximate.
        parameters: settings of the search, as ``nprobe=16`` or ``efSearch=64``; empty for FAISS's own.

    Raises:
        IndexUnavailableError: FAISS cannot be used here.
        ValueError: bad items, or a factory string or parameters FAISS does not know.
    """

    max_k: int | None = None

    def __init__(self, items: Float[Tensor, "N D"], *, factory: str = FLAT, parameters: str = "") -> None:
        check_items(items)
        self._faiss = import_faiss(gpu=False)
        self._vectors = _as_numpy(items[1:])
        self.n_items = len(self._vectors)
        self.is_exact = is_flat(factory)
        self.description = f"faiss_cpu {factory}" + (f" ({parameters})" if parameters else "")
        self._index = (
            None if self.is_exact else build_faiss(self._vectors, factory=factory, parameters=parameters)
        )

    def search(self, queries: Float[Tensor, "Q D"], *, k: int) -> TopK:
        """As the protocol says.

        Raises:
            ValueError: a query is not finite in float32, or k < 1.
        """
        queries = queries.detach().float()
        check_search(queries, k=k)
        found = min(k, self.n_items)
        if len(queries) == 0:
            return _from_faiss(np.zeros((0, found)), np.zeros((0, found)), like=queries).widened(k)
        rows = _as_numpy(queries)
        if self._index is not None:
            scores, places = self._index.search(rows, found)
        else:
            with _one_product(self._faiss, n_queries=len(rows)):
                scores, places = self._faiss.knn(
                    rows, self._vectors, found, metric=self._faiss.METRIC_INNER_PRODUCT
                )
        return _from_faiss(scores, places, like=queries).widened(k)


class FaissGpuIndex:
    """FAISS on GPUs: exact by bfKnn on the model's own tensor, without a copy; or IVF and its like.

    Flat search beyond k = 2048, which FAISS cannot do on a GPU, is done by torch on the same device.

    Args:
        items: [N, D], row 0 is padding; for ``Flat`` without ``spread`` a CUDA tensor that is not copied.
        factory: FAISS's factory string of an index that exists on GPUs (Flat, IVF…).
        parameters: settings of the search, as ``nprobe=16``.
        spread: over several GPUs: ``shards`` of the table or ``replicas`` of it; None for one GPU.

    Raises:
        IndexUnavailableError: FAISS cannot be used here, or not on a GPU.
        ValueError: bad items, or a factory string FAISS does not know.
    """

    max_k: int | None = GPU_MAX_K

    def __init__(
        self,
        items: Float[Tensor, "N D"],
        *,
        factory: str = FLAT,
        parameters: str = "",
        spread: Spread | None = None,
    ) -> None:
        check_items(items)
        self._faiss = import_faiss(gpu=True)
        self._items = items.detach()[1:].float().contiguous()
        self.n_items = len(self._items)
        self.is_exact = is_flat(factory)
        self.description = f"faiss_gpu {factory}" + (f", {spread}" if spread else f" on {items.device}")
        self._index: Any = None
        if spread or not self.is_exact:
            vectors = _as_numpy(self._items)
            built = build_faiss(vectors, factory=factory, parameters=parameters)
            self._index = self._on_gpus(built, factory=factory, spread=spread)
        elif not items.is_cuda:
            raise IndexUnavailableError("index: faiss_gpu needs the model on a GPU; it is on the CPU")
        self._torch = TorchIndex(items)

    def search(self, queries: Float[Tensor, "Q D"], *, k: int) -> TopK:
        """As the protocol says.

        Raises:
            ValueError: a query is not finite in float32, k < 1, or k > 2048 with an approximate index.
        """
        queries = queries.detach().float()
        check_search(queries, k=k)
        found = min(k, self.n_items)
        if found > GPU_MAX_K:
            if not self.is_exact:
                raise ValueError(f"k: {k} is more than FAISS finds on a GPU ({GPU_MAX_K}); lower topk")
            return self._torch.search(queries, k=k)
        if len(queries) == 0:
            return self._torch.search(queries, k=k)
        if self._index is not None:
            scores, places = self._index.search(_as_numpy(queries), found)
            return _from_faiss(scores, places, like=queries).widened(k)
        return self._brute_force(queries.to(self._items).contiguous(), k=found).widened(k)

    @torch.no_grad()
    def _brute_force(self, queries: Float[Tensor, "Q D"], *, k: int) -> TopK:
        faiss, items = self._faiss, self._items
        scores = torch.empty(len(queries), k, device=items.device)
        places = torch.empty(len(queries), k, device=items.device, dtype=torch.int64)
        arguments = faiss.GpuDistanceParams()
        arguments.metric = faiss.METRIC_INNER_PRODUCT
        arguments.k, arguments.dims, arguments.device = k, items.shape[1], items.device.index
        arguments.vectors = faiss.cast_integer_to_void_ptr(items.data_ptr())
        arguments.vectorsRowMajor, arguments.numVectors = True, len(items)
        arguments.vectorType = arguments.queryType = faiss.DistanceDataType_F32
        arguments.queries = faiss.cast_integer_to_void_ptr(queries.data_ptr())
        arguments.queriesRowMajor, arguments.numQueries = True, len(queries)
        arguments.outDistances = faiss.cast_integer_to_float_ptr(scores.data_ptr())
        arguments.outIndices = faiss.cast_integer_to_void_ptr(places.data_ptr())
        arguments.outIndicesType = faiss.IndicesDataType_I64
        with torch.cuda.device(items.device):
            faiss.bfKnn(self._resources(items.device), arguments)
        return _as_top_k(places, scores)

    def _resources(self, device: torch.device) -> Any:
        """One for each thread and device, on the stream torch uses there, so that neither waits in vain."""
        kept: dict[int, Any] = _of_thread.__dict__.setdefault("resources", {})
        number = int(device.index)
        if number not in kept:
            kept[number] = self._faiss.StandardGpuResources()
            kept[number].setTempMemory(GPU_SCRATCH_BYTES)
        stream = torch.cuda.current_stream(device).cuda_stream
        kept[number].setDefaultStream(number, self._faiss.cast_integer_to_cudastream_t(stream))
        return kept[number]

    def _on_gpus(self, index: Any, *, factory: str, spread: Spread | None) -> Any:
        faiss = self._faiss
        options = faiss.GpuMultipleClonerOptions()
        options.shard = spread == "shards"
        device = self._items.device.index or 0
        try:
            if spread:
                return faiss.index_cpu_to_all_gpus(index, co=options)
            return faiss.index_cpu_to_gpu(self._resources(torch.device("cuda", device)), device, index)
        except RuntimeError as error:
            raise ValueError(
                f"index_factory: FAISS has no {factory!r} on a GPU ({_reason(error)}); set index: faiss_cpu, "
                "or take one of IVF"
            ) from error


def build_faiss(vectors: Any, *, factory: str, parameters: str = "") -> Any:
    """A trained FAISS index of the factory over float32 vectors [M, D], metric inner product.

    Raises:
        IndexUnavailableError: FAISS cannot be used here.
        ValueError: a factory string or parameters FAISS does not know, or too few vectors to train it.
    """
    faiss = import_faiss(gpu=False)
    try:
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add(vectors)
    except RuntimeError as error:
        raise ValueError(
            f"index_factory: FAISS cannot build {factory!r} over {vectors.shape[0]} vectors of width "
            f"{vectors.shape[1]}: {_reason(error)}"
        ) from error
    set_parameters(index, parameters)
    return index


def set_parameters(index: Any, parameters: str) -> None:
    """Set search parameters such as ``nprobe=16`` or ``efSearch=64,…`` on a FAISS index.

    Raises:
        ValueError: FAISS does not know them for this index.
    """
    if not parameters:
        return
    try:
        import_faiss(gpu=False).ParameterSpace().set_index_parameters(index, parameters)
    except RuntimeError as error:
        raise ValueError(
            f"index_parameters: {parameters!r} does not fit the index: {_reason(error)}"
        ) from error


def write_faiss(index: Any, path: Path) -> None:
    """Write a FAISS index to a file in FAISS's own format."""
    import_faiss(gpu=False).write_index(index, str(path))


def read_faiss(path: Path, *, parameters: str = "") -> Any:
    """Read what ``write_faiss`` wrote, and set its search parameters.

    Raises:
        IndexUnavailableError: FAISS cannot be used here.
        ValueError: the file is no FAISS index.
    """
    faiss = import_faiss(gpu=False)
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise ValueError(f"{path}: no readable FAISS index: {_reason(error)}") from error
    set_parameters(index, parameters)
    return index


def add_vectors(index: Any, vectors: Float[Tensor, "M D"]) -> None:
    """Append vectors to a FAISS index.

    Raises:
        ValueError: an index of its kind takes no more vectors.
    """
    try:
        index.add(_as_numpy(vectors))
    except RuntimeError as error:
        raise ValueError(f"{type(index).__name__} takes no more vectors: {_reason(error)}") from error


class LoadedFaissIndex:
    """An approximate FAISS index read from a file, behind the protocol.

    Args:
        index: FAISS's own, over items 1 … N−1 in this order.
        description: for the log.
    """

    is_exact = False
    max_k: int | None = None

    def __init__(self, index: Any, *, description: str) -> None:
        self._index, self.n_items, self.description = index, int(index.ntotal), description

    def search(self, queries: Float[Tensor, "Q D"], *, k: int) -> TopK:
        """As the protocol says.

        Raises:
            ValueError: a query is not finite in float32, or k < 1.
        """
        queries = queries.detach().float()
        check_search(queries, k=k)
        scores, places = self._index.search(_as_numpy(queries), min(k, self.n_items))
        return _from_faiss(scores, places, like=queries).widened(k)


@contextmanager
def _one_product(faiss: Any, *, n_queries: int) -> Iterator[None]:
    """Let FAISS multiply matrices from BLAS_FROM_ROWS queries on; its own threshold is 2 000 rows at D=64.

    The threshold is the whole process's: the first of several threads changes it, the last one restores it.
    """
    if n_queries < BLAS_FROM_ROWS:
        yield
        return
    with _blas.lock:
        if _blas.n_users == 0:
            _blas.before = faiss.cvar.distance_compute_blas_threshold
            faiss.cvar.distance_compute_blas_threshold = 0
        _blas.n_users += 1
    try:
        yield
    finally:
        with _blas.lock:
            _blas.n_users -= 1
            if _blas.n_users == 0:
                faiss.cvar.distance_compute_blas_threshold = _blas.before


def _reason(error: RuntimeError) -> str:
    """FAISS's message without its source file and line."""
    return str(error).split("Error: ")[-1].split(" at ")[-1].strip()


def _as_numpy(vectors: Tensor) -> Any:
    return np.ascontiguousarray(vectors.detach().cpu().float().numpy())


def _from_faiss(scores: Any, places: Any, *, like: Tensor) -> TopK:
    return _as_top_k(
        torch.from_numpy(np.asarray(places, dtype=np.int64)).to(like.device),
        torch.from_numpy(np.asarray(scores, dtype=np.float32)).to(like.device),
    )


def _as_top_k(places: Tensor, scores: Tensor) -> TopK:
    """FAISS's place −1 (nothing found) becomes id 0 with score −inf."""
    return TopK(places + 1, scores.masked_fill(places < 0, -torch.inf))
