"""Resuming, safe checkpoints, and what a user sees when training goes wrong."""

import shutil
from pathlib import Path

import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import load_data_and_model, run_recbole
from recbole.utils import get_model, get_trainer, init_seed
from recbole.utils.case_study import full_sort_scores, full_sort_topk

from recbole_kuaiformer import checkpoint
from recbole_kuaiformer.evaluation.trainer import TrainingError
from recbole_kuaiformer.settings import SettingsError
from tests import worlds


class Interrupted(Exception):
    pass


@pytest.fixture
def path(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    return worlds.cyclic(tmp_path / "data", n_users=40)


def prepare(path, **more):
    options = {"hidden_dropout_prob": 0.3, "epochs": 4, "negatives": "mixed", "n_negatives": 8, **more}
    config = Config("KuaiFormer", "cyclic", config_dict=worlds.small(path, "cyclic", **options))
    init_seed(config["seed"], config["reproducibility"])
    train, valid, test = data_preparation(config, create_dataset(config))
    model = get_model("KuaiFormer")(config, train.dataset).to(config["device"])
    return get_trainer(config["MODEL_TYPE"], "KuaiFormer")(config, model), train, valid, test


@pytest.mark.parametrize(
    "options",
    [
        {"item_frequency": "counts"},
        {"item_frequency": "streaming"},
        {"worker": 1},
        {"precision": "bfloat16", "fused_optimizer": True, "adam_betas": [0.8, 0.98]},
        {"accumulate_batches": 3, "train_batch_size": 64, "clip_grad_norm": {"max_norm": 0.5}},
        {"schedule": "cosine", "warmup_steps": 5, "schedule_floor": 0.1},
        {"schedule": "linear", "ema_decay": 0.9},
        {"learner": "adamw", "weight_decay": 0.1, "decay_embeddings": False, "warmup_steps": 4},
    ],
    ids=lambda options: ", ".join(options),
)
def test_resumed_equals_uninterrupted(path, options):
    whole, train, valid, test = prepare(path, **options, checkpoint_dir="whole")
    want = whole.fit(train, valid)
    want_test = whole.evaluate(test)

    def interrupt(epoch, score):
        if epoch == 2:  # epoch 2 is trained and validated, but never completed
            raise Interrupted

    broken, train, valid, _ = prepare(path, **options, checkpoint_dir="broken")
    with pytest.raises(Interrupted):
        broken.fit(train, valid, callback_fn=interrupt)
    last = broken.last_checkpoint
    assert checkpoint.load(last)["epoch"] == 1

    again, train, valid, test = prepare(path, **options, checkpoint_dir="broken", resume_from=str(last))
    torch.manual_seed(999)
    got = again.fit(train, valid)
    assert got == want
    assert again.train_loss_dict == whole.train_loss_dict
    assert again.evaluate(test) == want_test
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_a_finished_run_is_not_trained_further_and_more_epochs_are(path):
    trainer, train, valid, _ = prepare(path, epochs=2)
    want = trainer.fit(train, valid)
    best = torch.load(trainer.saved_model_file, weights_only=True)["epoch"]
    again, train, valid, _ = prepare(path, epochs=2, resume_from=str(trainer.last_checkpoint))
    assert again.fit(train, valid) == want
    assert torch.load(trainer.saved_model_file, weights_only=True)["epoch"] == best
    more, train, valid, _ = prepare(path, epochs=3, resume_from=str(trainer.last_checkpoint))
    more.fit(train, valid)
    assert sorted(more.train_loss_dict) == [0, 1, 2]


@pytest.mark.parametrize(
    ("other", "named"),
    [({"n_layers": 2}, "n_layers is 2 but was 1"), ({"hidden_size": 8}, "hidden_size is 8")],
)
def test_a_checkpoint_of_another_shape_is_refused_and_what_differs_named(path, other, named):
    trainer, train, valid, _ = prepare(path, epochs=1)
    trainer.fit(train, valid)
    last = trainer.last_checkpoint
    again, train, valid, _ = prepare(path, epochs=2, resume_from=str(last), **other)
    with pytest.raises(
        checkpoint.CheckpointError, match=f"{last}: its weights are not of this model.*{named}"
    ):
        again.fit(train, valid)


def test_checkpoints_load_with_the_safe_loader_and_through_recbole(path):
    config = worlds.small(path, "cyclic", epochs=2, save_dataset=True, save_dataloaders=True)
    result = run_recbole(model="KuaiFormer", dataset="cyclic", config_dict=config)
    (file,) = [
        f for f in sorted(__import__("pathlib").Path("saved").glob("KuaiFormer*.pth")) if "last" not in f.name
    ]
    state = torch.load(file, weights_only=True)
    assert state["format"] == checkpoint.FORMAT
    config, model, _, _, _, test = load_data_and_model(str(file))
    assert config["n_interests"] == 2
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    assert trainer.evaluate(test, load_best_model=False) == result["test_result"]
    scores = full_sort_scores([1, 2], model, test)
    assert scores.shape == (2, model.n_items)
    top, ids = full_sort_topk([1, 2], model, test, k=3)
    torch.testing.assert_close(top, scores.gather(1, ids))


def test_a_loss_that_is_not_a_number_stops_with_advice(path):
    trainer, train, valid, _ = prepare(path)
    with torch.no_grad():
        trainer.model.tokens.ids.weight.fill_(torch.nan)
    with pytest.raises(TrainingError, match="loss became nan in epoch 0; lower learning_rate"):
        trainer.fit(train, valid)


def test_bad_checkpoints_are_named(path, tmp_path):
    trainer, train, valid, test = prepare(path, epochs=1)
    trainer.fit(train, valid)
    last = trainer.last_checkpoint
    cut = tmp_path / "cut.pth"
    cut.write_bytes(last.read_bytes()[:2000])
    resumed, train, valid, _ = prepare(path, resume_from=str(cut))
    with pytest.raises(ValueError, match=r"cut\.pth: not a readable checkpoint"):
        resumed.fit(train, valid)
    with pytest.raises(ValueError, match=r"cut\.pth: not a readable checkpoint"):
        resumed.evaluate(test, model_file=str(cut))
    with pytest.raises(FileNotFoundError, match=r"gone\.pth: no such checkpoint"):
        resumed.resume_checkpoint("gone.pth")
    torch.save({"weights": 1}, tmp_path / "other.pth", pickle_protocol=2)
    with pytest.raises(ValueError, match=r"other\.pth: not a checkpoint of recbole_kuaiformer"):
        resumed.resume_checkpoint(tmp_path / "other.pth")
    alone = tmp_path / "alone" / "x-last.pth"
    alone.parent.mkdir()
    shutil.copy(last, alone)
    with pytest.raises(FileNotFoundError, match="the best epoch's checkpoint"):
        resumed.resume_checkpoint(alone)


def test_a_run_interrupted_before_its_first_validation_goes_on_whatever_eval_step(path, tmp_path):
    trainer, train, valid, _ = prepare(path, epochs=2, eval_step=5)
    trainer.eval_step = 5  # RecBole lowers it to the number of epochs
    trainer.fit(train, valid)
    last = trainer.last_checkpoint
    assert not Path(trainer.saved_model_file).exists()
    resumed, train, valid, _ = prepare(path, epochs=3, eval_step=1, resume_from=str(last))
    resumed.fit(train, valid)
    assert [*resumed.train_loss_dict] == [0, 1, 2]
    assert Path(resumed.saved_model_file).is_file()
    Path(resumed.saved_model_file).unlink()  # of one that was validated
    late, train, valid, _ = prepare(path, epochs=9, eval_step=9, resume_from=str(last))
    with pytest.raises(FileNotFoundError, match="the best epoch's checkpoint"):
        late.fit(train, valid)


def test_nothing_is_trained_on_a_key_of_the_wrong_type(path):
    with pytest.raises(SettingsError, match="resume_from: must be str, got 3"):
        prepare(path, resume_from=3)


@pytest.mark.parametrize(("schedule", "low", "high"), [("constant", 0.05, 0.05), ("cosine", 0.0, 0.025)])
def test_a_resumed_run_takes_the_rate_and_the_schedule_of_its_own_configuration(path, schedule, low, high):
    first, train, valid, _ = prepare(path, epochs=2, schedule="linear", learning_rate=0.01)
    first.fit(train, valid)
    assert first.optimizer.param_groups[0]["lr"] < 0.001
    given = {"epochs": 4, "schedule": schedule, "learning_rate": 0.05}
    more, train, valid, _ = prepare(path, **given, resume_from=str(first.last_checkpoint))
    more.fit(train, valid)
    assert sorted(more.train_loss_dict) == [0, 1, 2, 3]
    assert low <= more.optimizer.param_groups[0]["lr"] <= high
    assert more.optimizer.param_groups[0]["initial_lr"] == 0.05


def test_a_checkpoint_from_before_some_keys_were_there_resumes_in_silence(path, caplog):
    first, train, valid, _ = prepare(path, epochs=1)
    first.fit(train, valid)
    state = checkpoint.load(first.last_checkpoint)
    for key in ("schedule", "precision", "target_horizon", "compression_block"):
        del state["config"]["final"][key]
    del state["steps"]
    checkpoint.save(state, path=first.last_checkpoint)
    more, train, valid, _ = prepare(path, epochs=2, schedule="linear", resume_from=str(first.last_checkpoint))
    with caplog.at_level("WARNING"):
        more.fit(train, valid)
    warned = [record.message for record in caplog.records if "will not equal" in record.message]
    assert len(warned) == 1
    assert warned[0].startswith("schedule is 'linear' but was 'constant'")
    assert more._steps == 2 * len(train)
