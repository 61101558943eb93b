"""A model whose encoder takes one target at a time: the same windows, loss and evaluation as any other."""

import numpy as np
import pytest
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import init_seed

from recbole_kuaiformer.data.planning import BatchPlan
from recbole_kuaiformer.evaluation.trainer import RetrievalTrainer
from tests import worlds
from tests.bidirectional import BidirectionalModel


@pytest.fixture
def cyclic(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    return worlds.cyclic(tmp_path / "data")


def build(path, **more):
    config = Config(
        "SASRecPlus", "cyclic", config_dict=worlds.small_for("SASRecPlus", path, "cyclic", **more)
    )
    init_seed(config["seed"], config["reproducibility"])
    train, valid, test = data_preparation(config, create_dataset(config))
    return BidirectionalModel(config, train.dataset), config, train, valid, test


def test_learns_the_cycle(cyclic):
    model, config, train, valid, test = build(cyclic, epochs=8)
    trainer = RetrievalTrainer(config, model)
    trainer.fit(train, valid, saved=False)
    assert trainer.evaluate(test, load_best_model=False)["recall@5"] > 0.95


def test_loss_of_a_window_is_the_mean_over_its_targets_alone(cyclic):
    """No earlier target is told by a later item: the loss is that of windows of one target each."""
    model, _, train, _, _ = build(cyclic, train_batch_size=100_000, MAX_ITEM_LIST_LENGTH=32)
    (batch,) = train
    together = float(model.calculate_loss(batch).detach())
    dataset, windows = train.dataset, train.dataset.windows(span=1)
    targets = windows.lasts[:, None]
    single = dataset.window_batch(windows, BatchPlan(np.arange(len(windows)), targets, predicted=targets))
    assert together == pytest.approx(float(model.calculate_loss(single).detach()), abs=1e-5)
