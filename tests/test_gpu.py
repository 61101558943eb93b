"""The CUDA path; every test here skips itself without a GPU."""

import numpy as np
import pytest
import torch
from recbole.quick_start import run, run_recbole

from tests import worlds
from tests.models.test_contract import build

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def path(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    return worlds.cyclic(tmp_path / "data")


def test_scores_and_gradients_equal_the_cpus(path):
    model, train, valid, _ = build("KuaiFormer", path, use_gpu=False, negatives="all")
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


@pytest.mark.parametrize("objective", [{}, {"item_frequency": "streaming"}, {"mask_known_positives": True}])
def test_trains_on_one_gpu_and_resumes(path, objective):
    config = worlds.small(path, "cyclic", epochs=15, **objective)
    result = run_recbole(model="KuaiFormer", dataset="cyclic", config_dict=config)
    assert result["test_result"]["recall@5"] > 0.9


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus_train_with_nccl(path):
    config = worlds.small(path, "cyclic", epochs=1, gpu_id="0,1")
    result = run("KuaiFormer", "cyclic", config_dict=config, nproc=2, port="5699")
    assert np.isfinite([*result["test_result"].values()]).all()
