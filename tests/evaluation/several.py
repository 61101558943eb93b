"""Runs of one or of several real processes (gloo), for tests that compare them."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

from recbole_kuaiformer.config import SettingsError  # a spawned process imports this file first
from recbole_kuaiformer.evaluation.trainer import TrainingError
from tests import worlds


def uneven(folder, *, n_users=23, n_items=31, name="uneven"):
    """Histories of 5 to 21 items, some items far more often than others."""
    rng = np.random.default_rng(5)
    p = 1 / np.arange(1, n_items + 1)
    rows = []
    for user in range(n_users):
        length = int(rng.integers(5, 22))
        items = rng.choice(n_items, size=length, replace=False, p=p / p.sum())
        rows += [
            (f"u{user}", f"i{item}", 1_700_000_000 + 60 * t, int(rng.integers(2)))
            for t, item in enumerate(items)
        ]
    header = "user_id:token\titem_id:token\ttimestamp:float\tlabel:float"
    return worlds.write(folder, name, rows, header=header)


def prepare(model, config_dict, **process):
    """RecBole's own preparation of a run: trainer and the three dataloaders."""
    config = Config(model, config_dict["dataset"], config_dict={**config_dict, **process})
    init_seed(config["seed"], config["reproducibility"])
    train, valid, test = data_preparation(config, create_dataset(config))
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    net = get_model(model)(config, train.dataset).to(config["device"])
    return get_trainer(config["MODEL_TYPE"], model)(config, net), train, valid, test


def train(model, config_dict, **process):
    """Train and test; what came out, as plain types."""
    trainer, train_data, valid, test = prepare(model, config_dict, **process)
    best = trainer.fit(train_data, valid)
    weights = {name: value.cpu().clone() for name, value in trainer.model.state_dict().items()}
    return {
        "weights": weights,
        "losses": dict(trainer.train_loss_dict),
        "valid": [best[0], dict(best[1])],
        "test": dict(trainer.evaluate(test)),
        "rows": [len(train_data.windows), trainer._steps],
        "file": trainer.saved_model_file,
        "last": str(getattr(trainer, "last_checkpoint", "")),
    }


class Interrupted(Exception):
    pass


def interrupted(model, config_dict, **process):
    """Epoch 2 is trained and validated, but never completed."""
    trainer, train_data, valid, _ = prepare(model, config_dict, **process)

    def interrupt(epoch, score):
        if epoch == 2:
            raise Interrupted

    with suppress(Interrupted):
        trainer.fit(train_data, valid, callback_fn=interrupt)


def resumed(model, config_dict, **process):
    """Train on from the one ``…-last.pth`` in the run's folder."""
    (last,) = Path(config_dict["checkpoint_dir"]).glob("*-last.pth")
    return train(model, {**config_dict, "resume_from": str(last)}, **process)


def not_a_number_in_process_1(model, config_dict, **process):
    """In the last step of the second epoch the loss is NaN in process 1 alone."""
    trainer, train_data, valid, _ = prepare(model, config_dict, **process)

    def spoil(module, inputs, loss):
        is_last = trainer._steps == 2 * len(train_data) - 1
        return loss * np.nan if process["local_rank"] == 1 and is_last else loss

    trainer.model.register_forward_hook(spoil)
    trainer.fit(train_data, valid)


class SeedOfOne(int):
    """A seed that fails when process 1 adds its number to it, after the data was read."""

    how = "raises"

    def __add__(self, other):
        if other == 1 and self.how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if other == 1:
            raise SettingsError("seed: process 1 cannot add it")
        return int(self) + other


class SeedOfOneKilled(SeedOfOne):
    how = "dies"


def evaluate(model, config_dict, **process):
    """Twice the result of an untrained model, with the weights of process 0 everywhere."""
    trainer, train_data, _, test = prepare(model, config_dict, **process)
    trainer.eval_collector.data_collect(train_data)
    return [dict(trainer.evaluate(test, load_best_model=False)) for _ in range(2)]


def in_processes(runs, *, n_processes, folder):
    """Each of ``runs``, (function, model, config), by several processes together: [run][process]."""
    folder.mkdir(exist_ok=True)
    ports = worlds.free_ports(len(runs))
    torch.multiprocessing.spawn(
        _process, args=(runs, ports, n_processes, str(folder)), nprocs=n_processes, join=True
    )
    return [
        [torch.load(folder / f"{i}-{rank}.pt", weights_only=False) for rank in range(n_processes)]
        for i in range(len(runs))
    ]


def _process(rank, runs, ports, n_processes, folder):
    torch.set_num_threads(1)
    sys.argv = ["pytest"]
    for i, ((function, model, config), port) in enumerate(zip(runs, ports)):
        process = {"world_size": n_processes, "nproc": n_processes, "ip": "localhost", "port": port}
        process |= {"offset": 0, "local_rank": rank, "gpu_id": "0,1,2"}
        try:
            outcome = function(model, dict(config), **process)
        except TrainingError as error:  # for the test to look at; any other ends all processes
            outcome = error
        torch.save(outcome, Path(folder, f"{i}-{rank}.pt"))
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
