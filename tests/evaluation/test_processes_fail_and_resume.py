"""Several processes (gloo) that are interrupted, diverge or die."""

import sys
from pathlib import Path

import pytest
import torch

from recbole_kuaiformer.evaluation.trainer import TrainingError
from recbole_kuaiformer.quick_start import main, run
from recbole_kuaiformer.settings import SettingsError
from recbole_kuaiformer.spawning import ProcessError
from tests import worlds
from tests.evaluation import several


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("failing")
        worlds.at_home(patch, folder)
        several.uneven(folder / "data")
        yield folder


def config(home, **more):
    shared = {"window_targets": 4, "train_batch_size": 92, "topk": [3, 10], "negatives": "mixed"}
    return worlds.small(str(home / "data"), "uneven", **{**shared, "n_negatives": 9, **more})


@pytest.fixture(scope="module")
def outcomes(home):
    uninterrupted = {
        "epochs": 4, "hidden_dropout_prob": 0.3, "ema_decay": 0.8, "schedule": "linear", "warmup_steps": 3,
        "accumulate_batches": 2, "item_frequency": "streaming",
    }  # fmt: skip
    runs = [
        (several.train, config(home, checkpoint_dir="whole", **uninterrupted)),
        (several.interrupted, config(home, checkpoint_dir="broken", **uninterrupted)),
        (several.resumed, config(home, checkpoint_dir="broken", **uninterrupted)),
        (several.not_a_number_in_process_1, config(home, checkpoint_dir="nan")),
    ]
    runs = [(function, "KuaiFormer", given) for function, given in runs]
    return several.in_processes(runs, n_processes=2, folder=home / "out")


def test_resumed_equals_uninterrupted_with_dropout_of_each_processs_own(outcomes):
    whole, _, again, _ = outcomes
    for rank in range(2):
        for key in ("losses", "valid", "test", "rows"):
            assert again[rank][key] == whole[rank][key], key
        for name, value in whole[rank]["weights"].items():
            assert torch.equal(again[rank]["weights"][name], value), name
    state = torch.load(whole[0]["last"], weights_only=True)
    states = [state["random_state"], *state["other_random_states"]]
    assert not torch.equal(states[0]["torch"], states[1]["torch"])


def test_a_loss_of_nan_in_one_process_stops_all_and_is_not_saved(outcomes):
    errors = outcomes[3]
    for error in errors:
        assert isinstance(error, TrainingError), error
        assert "loss became nan in epoch 1" in str(error)
    assert str(errors[0]) == str(errors[1])
    files = sorted(Path("nan").glob("*.pth"))
    assert len(files) == 2
    for file in files:
        state = torch.load(file, weights_only=True)
        assert state["epoch"] == 0
        assert all(torch.isfinite(value).all() for value in state["state_dict"].values())


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (several.SeedOfOne(7), SettingsError, "seed: process 1 cannot add it"),
        (several.SeedOfOneKilled(7), ProcessError, "process 1 terminated with signal SIGKILL"),
    ],
)
def test_one_process_that_fails_ends_all(home, seed, error, message):
    given = config(home, seed=seed, checkpoint_dir="failing", gpu_id="0,1")
    (port,) = worlds.free_ports(1)
    with pytest.raises(error, match=message):
        run("KuaiFormer", "uneven", config_dict=given, nproc=2, port=port)


def test_a_mistake_is_one_line_and_the_result_is_that_of_process_0(home, monkeypatch, capfd):
    given = {"topk": "[3,40]", "data_path": home / "data", "gpu_id": "0,1", "epochs": 1}
    (port,) = worlds.free_ports(1)
    monkeypatch.setattr(sys, "argv", ["x", *(f"--{key}={value}" for key, value in given.items())])
    assert main(["--dataset=uneven", "--nproc=2", f"--port={port}"]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert lines[-1] == "error: topk: [3, 40] exceeds the catalogue's 31 items; set it to at most that"
    assert not any("Traceback" in line for line in lines)
