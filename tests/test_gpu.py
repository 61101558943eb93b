"""The CUDA path; every test here skips itself without a GPU."""

import pytest
import torch
from recbole.quick_start import run, run_recbole

from recbole_kuaiformer.benchmarks import gpu_retrieval
from recbole_kuaiformer.index.base import IndexUnavailableError
from recbole_kuaiformer.index.choose import build_index
from recbole_kuaiformer.index.faiss_index import FaissGpuIndex, import_faiss
from recbole_kuaiformer.index.torch_exact import TorchIndex
from tests import worlds
from tests.evaluation.test_ranking import trainer_of, twins
from tests.evaluation.test_trainer import Interrupted, prepare
from tests.models.test_contract import build

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def path(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    return worlds.cyclic(tmp_path / "data")


@pytest.mark.parametrize(
    "objective", [{"negatives": "all"}, {"mask_known_positives": True}, {"mask_history": True}], ids=str
)
def test_scores_and_gradients_equal_the_cpus(path, objective):
    model, train, valid, _ = build("KuaiFormer", path, use_gpu=False, **objective)
    batch, train_batch = valid.dataset[torch.arange(20)], next(iter(train))
    results = []
    for device in ("cpu", "cuda"):
        model.to(device)
        model.zero_grad()
        loss = model.calculate_loss(train_batch.to(device))
        loss.backward()
        grads = [p.grad.cpu().clone() for p in model.parameters() if p.grad is not None]
        with torch.no_grad():
            results.append((loss.item(), grads, model.full_sort_predict(batch.to(device)).cpu()))
    (loss, grads, scores), (loss_gpu, grads_gpu, scores_gpu) = results
    assert abs(loss - loss_gpu) < 1e-4
    torch.testing.assert_close(scores_gpu, scores, rtol=0, atol=1e-4)
    for mine, theirs in zip(grads_gpu, grads):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("objective", [{}, {"item_frequency": "streaming"}], ids=str)
def test_trains_on_one_gpu(path, objective):
    config = worlds.small(path, "cyclic", epochs=15, **objective)
    result = run_recbole(model="KuaiFormer", dataset="cyclic", config_dict=config)
    assert result["test_result"]["recall@5"] > 0.9


def test_resumes_on_one_gpu(path):
    """As on the CPU, dropout's noise with it; sums on a GPU have no fixed order, so nearly."""
    options = {"schedule": "cosine", "warmup_steps": 5}
    whole, train, valid, _ = prepare(path, **options, checkpoint_dir="whole")
    whole.fit(train, valid)

    def interrupt(epoch, score):
        if epoch == 2:
            raise Interrupted

    cut, train, valid, _ = prepare(path, **options, checkpoint_dir="cut")
    with pytest.raises(Interrupted):
        cut.fit(train, valid, callback_fn=interrupt)
    again, train, valid, _ = prepare(path, **options, resume_from=str(cut.last_checkpoint))
    torch.cuda.manual_seed(999)
    again.fit(train, valid)
    assert next(again.model.parameters()).device.type == "cuda"
    assert sorted(again.train_loss_dict) == sorted(whole.train_loss_dict) == [0, 1, 2, 3]
    for epoch, loss in whole.train_loss_dict.items():
        assert abs(again.train_loss_dict[epoch] - loss) < 1e-3 * abs(loss), epoch


@pytest.mark.parametrize("index", ["torch", "faiss_gpu", "auto"])
@pytest.mark.parametrize("name", ["SASRec", "KuaiFormer"])
def test_ranking_on_a_gpu_is_recboles(path, monkeypatch, name, index):
    if index == "faiss_gpu":
        _needs_faiss_gpu()
    more = worlds.small(None, None) if name == "KuaiFormer" else {"load_col": None}
    more = {key: value for key, value in more.items() if key not in ("dataset", "data_path", "topk")}
    more |= {"data_path": path, "topk": [5, 20], "index": index}
    _, model, config, (train, _, test) = trainer_of(name, "cyclic", report_both=True, **more)
    by_index, by_matrix = twins(model.to(config["device"]), config, train, test)
    assert by_index == by_matrix


@pytest.mark.parametrize("k", [2047, 2048, 2049])
def test_faiss_on_a_gpu_equals_torch_on_both_sides_of_its_limit(k):
    _needs_faiss_gpu()
    torch.manual_seed(0)
    items, queries = torch.randn(5000, 24, device="cuda"), torch.randn(37, 24, device="cuda")
    want, found = TorchIndex(items).search(queries, k=k), FaissGpuIndex(items).search(queries, k=k)
    torch.testing.assert_close(found.scores, want.scores, rtol=1e-4, atol=1e-4)
    assert (found.item_ids == want.item_ids).float().mean() > 0.99


def test_auto_on_a_gpu_never_takes_the_cpu():
    items = torch.randn(5000, 24, device="cuda")
    index, line = build_index("auto", items)
    assert index.search(items[1:5], k=3).item_ids.is_cuda
    assert "cpu" not in index.description
    assert "exact" in line


def test_the_questions_are_answered(tmp_path, monkeypatch):
    _needs_faiss_gpu()
    monkeypatch.setattr(gpu_retrieval, "SIZES", (10_000,))
    monkeypatch.setattr(gpu_retrieval, "QUESTIONS", {**gpu_retrieval.QUESTIONS})
    for size in (1_000_000, 10_000_000):
        del gpu_retrieval.QUESTIONS[f"{size:,} items"]
    assert gpu_retrieval.main(["--out", str(tmp_path / "gpu.json")]) == 0


def _needs_faiss_gpu():
    try:
        import_faiss(gpu=True)
    except IndexUnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bfloat16"},
        {"fused_optimizer": True, "accumulate_batches": 2},
        {"ema_decay": 0.9, "schedule": "cosine", "warmup_steps": 10},
    ],
    ids=lambda options: ", ".join(options),
)
def test_training_options_learn_the_cycle(path, options):
    result = run_recbole(
        model="KuaiFormer", dataset="cyclic", config_dict=worlds.small(path, "cyclic", epochs=20, **options)
    )
    assert result["test_result"]["recall@5"] > 0.9


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("negatives", ["in_batch", "mixed", "all"])
def test_two_gpus_report_what_one_does(path, monkeypatch, negatives):
    """nccl. Uniform ids are drawn by the GPU of process 0, so the same ones as alone."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    config = worlds.small(path, "cyclic", epochs=2, learner="sgd", negatives=negatives, gpu_id="0,1")
    config |= {"n_negatives": 9}
    alone = run("KuaiFormer", "cyclic", config_dict=config)
    together = run("KuaiFormer", "cyclic", config_dict=config, nproc=2, port="5699")
    for name, value in alone["test_result"].items():
        assert abs(together["test_result"][name] - value) < 0.01, name
