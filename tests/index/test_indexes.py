"""What every index keeps: one contract for all entries of INDEXES, against plain loops."""

import sys
import types
from importlib import metadata

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_kuaiformer.index import faiss_index, torch_exact
from recbole_kuaiformer.index.base import IndexUnavailableError
from recbole_kuaiformer.index.choose import AUTO, INDEXES, build_index
from recbole_kuaiformer.index.torch_exact import TorchIndex
from tests.reference import retrieval as slow


def table(n_items, size, *, seed=0, device="cpu"):
    """Vectors of small integers: products are exact in every order of summation, and ties abound."""
    generator = torch.Generator().manual_seed(seed)
    items = torch.randint(-2, 3, (n_items, size), generator=generator).float()
    items[0] = 99  # the padding row would win every search
    return items.to(device)


def backends():
    for name in sorted(INDEXES):
        gpu = name == "faiss_gpu"
        skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
        yield pytest.param(name, "cuda" if gpu else "cpu", marks=[pytest.mark.gpu, skip] if gpu else [])
    skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    yield pytest.param("torch", "cuda", marks=[pytest.mark.gpu, skip])


@pytest.mark.parametrize(("name", "device"), [*backends()])
class TestContract:
    @pytest.mark.parametrize(
        ("n_items", "n_queries", "k"), [(13, 3, 4), (13, 1, 12), (301, 70, 37), (2, 5, 1)]
    )
    def test_finds_the_best_scores(self, name, device, n_items, n_queries, k):
        items = table(n_items, 5, device=device)
        queries = table(n_queries, 5, seed=1, device=device)
        index, line = build_index(name, items)
        found = index.search(queries, k=k)
        assert index.is_exact
        assert line.endswith("exact (as configured)")
        assert found.item_ids.shape == found.scores.shape == (n_queries, k)
        assert found.item_ids.device.type == device
        every = slow.scores_of(items.tolist(), queries[:, None].tolist())
        for row in range(n_queries):
            want = slow.top_k(every[row], k=k)
            assert found.scores[row].tolist() == [score for _, score in want]
            ids = found.item_ids[row].tolist()
            assert len({*ids}) == k
            assert 0 not in ids
            assert [every[row][item] for item in ids] == found.scores[row].tolist()

    def test_k_beyond_the_catalogue_gives_what_there_is(self, name, device):
        index, _ = build_index(name, table(7, 4, device=device))
        found = index.search(table(3, 4, seed=2, device=device), k=11)
        assert found.item_ids.shape == (3, 11)
        assert (found.item_ids[:, :6].sort().values.cpu() == torch.arange(1, 7)).all()
        assert (found.item_ids[:, 6:] == 0).all()
        assert (found.scores[:, 6:] == -torch.inf).all()

    def test_no_query_is_no_result(self, name, device):
        index, _ = build_index(name, table(7, 4, device=device))
        assert index.search(torch.zeros(0, 4, device=device), k=3).item_ids.shape == (0, 3)

    def test_vectors_that_are_not_finite_are_named(self, name, device):
        items = table(9, 4, device=device)
        index, _ = build_index(name, items)
        queries = torch.ones(5, 4, device=device)
        queries[3, 1] = torch.nan
        with pytest.raises(ValueError, match="queries: 1 of 5 rows hold NaN or infinity, the first is row 3"):
            index.search(queries, k=2)
        with pytest.raises(ValueError, match="queries: 5 of 5 rows hold NaN or infinity"):
            index.search(torch.ones(5, 4, dtype=torch.float64, device=device) * 1e60, k=2)
        for k in (0, -1):
            with pytest.raises(ValueError, match=f"k must be at least 1, got {k}"):
                index.search(torch.ones(5, 4, device=device), k=k)
        items[6, 0] = torch.inf
        with pytest.raises(ValueError, match="item vectors: 1 of 8 rows .* the first is row 6"):
            build_index(name, items)
        items[0] = torch.nan
        items[6] = 1.0
        build_index(name, items)  # padding may hold anything
        with pytest.raises(ValueError, match="at least one item beside the padding row, got 1 rows"):
            build_index(name, items[:1])

    def test_vectors_with_gradients_are_searched_without(self, name, device):
        items = table(9, 4, device=device).requires_grad_()
        index, _ = build_index(name, items)
        assert not index.search(torch.ones(2, 4, device=device, requires_grad=True), k=2).scores.requires_grad


@settings(max_examples=60, deadline=None)
@given(
    n_items=st.integers(2, 90), n_queries=st.integers(1, 40), k=st.integers(1, 60),
    at_once=st.integers(8, 900), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_streaming_in_parts_changes_nothing(n_items, n_queries, k, at_once, seed):
    items, queries = table(n_items, 3, seed=seed), table(n_queries, 3, seed=seed + 1)
    index = TorchIndex(items)
    whole = (queries @ items[1:].T).topk(min(k, n_items - 1)).values
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(torch_exact.SCORES_AT_ONCE, "cpu", at_once)
        patch.setattr(torch_exact, "QUERIES_AT_ONCE", 7)
        found = index.search(queries, k=k)
    n_found = whole.shape[1]
    assert torch.equal(found.scores[:, :n_found], whole)
    assert torch.equal((queries[:, None] * items[found.item_ids[:, :n_found]]).sum(-1), whole)
    for row in found.item_ids[:, :n_found].tolist():
        assert len({*row}) == n_found


def test_real_numbers_agree_between_torch_and_faiss():
    torch.manual_seed(5)
    items, queries = torch.randn(5000, 24), torch.randn(100, 24)
    oracle, faiss = TorchIndex(items), faiss_index.FaissCpuIndex(items)
    want, found = oracle.search(queries, k=50), faiss.search(queries, k=50)
    torch.testing.assert_close(found.scores, want.scores, rtol=1e-5, atol=1e-5)
    assert (found.item_ids == want.item_ids).float().mean() > 0.999


@pytest.mark.parametrize(("factory", "parameters"), [("HNSW16", "efSearch=64"), ("IVF8,Flat", "nprobe=3")])
def test_a_factory_string_is_searched_and_called_approximate(factory, parameters):
    torch.manual_seed(6)
    items = torch.nn.functional.normalize(torch.randn(900, 16), dim=1)
    index, line = build_index("faiss_cpu", items, factory=factory, parameters=parameters)
    assert not index.is_exact
    assert line == f"index: faiss_cpu {factory} ({parameters}), approximate (as configured)"
    want, found = TorchIndex(items).search(items[1:60], k=5), index.search(items[1:60], k=5)
    hits = (found.item_ids[:, :, None] == want.item_ids[:, None, :]).any(-1).float().mean()
    assert hits > 0.5
    every = index.search(items[1:3], k=2000)
    assert every.item_ids.shape == (2, 2000)
    assert (every.scores[every.item_ids == 0] == -torch.inf).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factory": "Flt"}, "index_factory: FAISS cannot build 'Flt' over 12 vectors of width 4"),
        ({"factory": "IVF64,Flat"}, "index_factory: FAISS cannot build 'IVF64,Flat' over 12 vectors"),
        ({"factory": "IVF2,Flat", "parameters": "nprob=1"}, "index_parameters: 'nprob=1' does not fit"),
    ],
    ids=str,
)
def test_what_faiss_does_not_know_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        build_index("faiss_cpu", table(13, 4), **options)


def test_names_and_combinations_that_cannot_be():
    with pytest.raises(
        ValueError, match="index: 'fais' is not known; known: auto, torch, faiss_cpu, faiss_gpu"
    ):
        build_index("fais", table(5, 2))
    with pytest.raises(ValueError, match="index: torch searches exhaustively, not by 'HNSW8'"):
        build_index("torch", table(5, 2), factory="HNSW8")


def test_auto_on_the_cpu_takes_faiss_and_says_why():
    index, line = build_index(AUTO, table(9, 4))
    assert isinstance(index, faiss_index.FaissCpuIndex)
    assert line == "index: faiss_cpu Flat, exact (the model is on the CPU)"


class _Distribution:
    def __init__(self, name):
        self.metadata = {"Name": name}


def _install(monkeypatch, module, *, distributions=("faiss-cpu",)):
    """A fake faiss in place of the real one; None is an absent one, an exception a broken one."""
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    real = faiss_index.importlib.import_module

    def import_module(name):
        if name != "faiss":
            return real(name)
        if isinstance(module, Exception):
            raise module
        return module

    monkeypatch.setattr(faiss_index.importlib, "import_module", import_module)
    monkeypatch.setattr(
        faiss_index.metadata, "distributions", lambda: [_Distribution(name) for name in distributions]
    )


def _fake(options, n_gpus=0):
    fake = types.ModuleType("faiss")
    fake.IndexFlatIP = object
    fake.get_compile_options = lambda: options
    fake.get_num_gpus = lambda: n_gpus
    return fake


BROKEN = {
    "absent": (ModuleNotFoundError("No module named 'faiss'", name="faiss"), "faiss is not installed; `pip"),
    "needs numpy": (
        ModuleNotFoundError("No module named 'numpy'", name="numpy"),
        r"faiss: its import fails \(No module named 'numpy'\); run `pip uninstall -y faiss-cpu faiss-gpu`",
    ),
    "runtime error": (RuntimeError("no loader"), r"faiss: its import fails \(RuntimeError: no loader\)"),
    "no metadata": (metadata.PackageNotFoundError("faiss-gpu"), "its import fails .*faiss-gpu"),
    "libraries": (ImportError("libcublas.so.12"), r"its import fails \(ImportError: libcublas"),
    "empty namespace": (types.ModuleType("faiss"), "faiss is installed but empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_each_broken_install_has_its_own_message(monkeypatch, case):
    module, message = BROKEN[case]
    _install(monkeypatch, module)
    with pytest.raises(IndexUnavailableError, match=message):
        build_index("faiss_cpu", table(9, 4))
    index, line = build_index(AUTO, table(9, 4))  # auto goes on without it, and says so
    assert isinstance(index, TorchIndex)
    assert line.startswith("index: torch on cpu, exact (faiss")
    with pytest.raises(IndexUnavailableError, match=message):  # but not where torch cannot do what is asked
        build_index(AUTO, table(9, 4), factory="HNSW8")


@pytest.mark.parametrize(
    ("fake", "distributions", "message"),
    [
        (_fake("OPTIMIZE AVX2"), ("faiss-cpu",), r"no GPU support \(it is the CPU build\)"),
        (
            _fake("OPTIMIZE AVX2"),
            ("faiss-gpu", "faiss-cpu"),
            r"no GPU support \(faiss-cpu and faiss-gpu share one folder, and the CPU one was",
        ),
        (_fake("OPTIMIZE GPU"), ("faiss-gpu",), "faiss sees no GPU"),
        (_fake("OPTIMIZE GPU", n_gpus=1), ("faiss-gpu",), "needs the model on a GPU; it is on the CPU"),
    ],
)
def test_each_reason_against_a_gpu_has_its_own_message(monkeypatch, fake, distributions, message):
    _install(monkeypatch, fake, distributions=distributions)
    with pytest.raises(IndexUnavailableError, match=message):
        build_index("faiss_gpu", table(9, 4))


def test_searching_leaves_faiss_as_it_was():
    import faiss

    before = faiss.cvar.distance_compute_blas_threshold
    index, _ = build_index("faiss_cpu", table(50, 4))
    for n_queries in (1, 200):
        index.search(torch.ones(n_queries, 4), k=3)
        assert faiss.cvar.distance_compute_blas_threshold == before
    assert "faiss.contrib.torch_utils" not in sys.modules
    assert faiss.IndexFlatIP.search.__module__.startswith("faiss.class_wrappers")
