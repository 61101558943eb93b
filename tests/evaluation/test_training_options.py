"""What each training option changes, and what it leaves as it was."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recbole.config import Config

from recbole_kuaiformer.evaluation.optimizer import adam
from recbole_kuaiformer.evaluation.schedule import factor
from recbole_kuaiformer.evaluation.trainer import TrainingError
from recbole_kuaiformer.plugin import MODELS
from recbole_kuaiformer.settings import SettingsError
from tests import worlds
from tests.evaluation import several


@pytest.fixture
def home(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    several.uneven(tmp_path / "data")
    return tmp_path


def given(home, **more):
    shared = {"window_targets": 4, "train_batch_size": 60, "topk": [3, 10], "negatives": "all", "epochs": 2}
    return worlds.small(str(home / "data"), "uneven", **{**shared, **more})


def trained(home, **more):
    trainer, train, valid, _ = several.prepare("KuaiFormer", given(home, **more))
    trainer.fit(train, valid)
    return trainer


def weights(trainer):
    return dict(trainer.model.named_parameters())


def assert_same_weights(one, other, **tolerance):
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(other)[name], value, **tolerance, msg=name)


@pytest.mark.parametrize("clip", [None, {"max_norm": 0.05}])
@pytest.mark.parametrize(
    ("whole_size", "n_accumulated", "n_steps"),
    [(84, 3, 3), (10_000, 100, 1)],
    ids=["in threes", "an epoch that ends before the step is full"],
)
def test_batches_accumulated_are_one_batch_of_all_their_targets(
    home, clip, whole_size, n_accumulated, n_steps
):
    """9 batches of about 28 targets, which differ in number."""
    shared = {"learner": "sgd", "learning_rate": 0.05, "temperature": 0.2, "shuffle": False}
    shared |= {"clip_grad_norm": clip}
    whole = trained(home, train_batch_size=whole_size, **shared)
    parts = trained(home, train_batch_size=28, accumulate_batches=n_accumulated, **shared)
    assert parts._steps == whole._steps == 2 * n_steps
    assert_same_weights(whole, parts, rtol=1e-4, atol=1e-6)


def test_what_is_left_of_an_epoch_makes_a_step_of_its_own(home):
    assert trained(home, train_batch_size=28, accumulate_batches=4)._steps == 2 * 3  # 4 + 4 + 1


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("constant", lambda t: 1.0),
        ("linear", lambda t: 0.2 + 0.8 * (1 - t)),
        ("cosine", lambda t: 0.2 + 0.8 * (1 + math.cos(math.pi * t)) / 2),
    ],
)
def test_the_rate_of_each_step_is_the_schedules(home, name, want):
    options = {"schedule": name, "warmup_steps": 3, "schedule_floor": 0.2, "learning_rate": 0.01}
    trainer, train, valid, _ = several.prepare("KuaiFormer", given(home, **options))
    rates = []
    trainer.optimizer.register_step_post_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    trainer.fit(train, valid)
    n = 2 * len(train)
    expected = [(s + 1) / 3 if s < 3 else want((s - 3) / (n - 3)) for s in range(n)]
    assert rates == pytest.approx([0.01 * factor for factor in expected])


def test_schedules_start_and_end_where_they_should():
    options = {"warmup_steps": 4, "n_steps": 10, "floor": 0.1}
    for name in ("linear", "cosine"):
        rates = [factor(step, name=name, **options) for step in range(13)]
        assert rates[3] == rates[4] == 1.0
        assert rates[10] == rates[12] == pytest.approx(0.1)
        assert sorted(rates[4:11], reverse=True) == rates[4:11]
    assert factor(0, name="linear", warmup_steps=20, n_steps=10, floor=0.0) == 1 / 20


def test_with_another_batch_size_the_schedule_goes_on_at_the_same_share_of_the_training(home, caplog):
    first = trained(home, schedule="linear", epochs=2, learning_rate=0.01)
    more = given(
        home, schedule="linear", epochs=4, learning_rate=0.01, train_batch_size=28,
        resume_from=str(first.last_checkpoint),
    )  # fmt: skip
    trainer, train, valid, _ = several.prepare("KuaiFormer", more)
    assert 2 * len(train) > first._steps
    rates = []
    trainer.optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    with caplog.at_level("WARNING"):
        trainer.fit(train, valid)
    n = 4 * len(train)
    assert rates == pytest.approx([0.01 * (1 - step / n) for step in range(n // 2, n)])
    said = f"{first._steps} steps were taken in the 2 epochs before, which would now be {n // 2}"
    assert any(said in record.message for record in caplog.records)


def test_more_epochs_follow_the_longer_schedule_from_where_they_resume(home):
    first = trained(home, schedule="linear", epochs=2, learning_rate=0.01)
    more = given(
        home, schedule="linear", epochs=4, learning_rate=0.01, resume_from=str(first.last_checkpoint)
    )
    trainer, train, valid, _ = several.prepare("KuaiFormer", more)
    rates = []
    trainer.optimizer.register_step_post_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    trainer.fit(train, valid)
    n = 4 * len(train)
    assert rates == pytest.approx([0.01 * (1 - step / n) for step in range(n // 2, n)])


def test_averages_are_the_recurrence_and_are_what_is_judged_and_kept(home):
    decay, options = 0.7, given(home, ema_decay=0.7, learning_rate=0.02)
    trainer, train, valid, test = several.prepare("KuaiFormer", options)
    want = {}

    def follow(*_):
        for name, value in weights(trainer).items():
            now = value.detach().double()
            want[name] = decay * want[name] + (1 - decay) * now if name in want else now

    trainer.optimizer.register_step_post_hook(follow)
    judged = []
    trainer.fit(train, valid, callback_fn=lambda epoch, score: judged.append((score, dict(want))))
    for name, value in weights(trainer).items():
        torch.testing.assert_close(value.double(), want[name], rtol=1e-5, atol=1e-6, msg=name)

    last = torch.load(trainer.last_checkpoint, weights_only=True)
    best = torch.load(trainer.saved_model_file, weights_only=True)
    _, at_best = judged[best["epoch"]]
    for name, value in want.items():
        torch.testing.assert_close(last["averaged"][name].double(), value, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(last["state_dict"][name].double(), value, rtol=1e-5, atol=1e-6), name
        torch.testing.assert_close(best["state_dict"][name].double(), at_best[name], rtol=1e-5, atol=1e-6)
    score, _ = judged[best["epoch"]]
    trainer.model.load_state_dict(best["state_dict"])
    assert trainer.evaluate(valid, load_best_model=False)["ndcg@10"] == score


def test_averaging_leaves_training_and_streaming_counts_alone(home):
    options = {"negatives": "in_batch", "logq": "both", "item_frequency": "streaming"}
    plain, averaged = trained(home, **options), trained(home, **options, ema_decay=0.9)
    assert averaged.train_loss_dict == plain.train_loss_dict
    raw = torch.load(averaged.last_checkpoint, weights_only=True)["state_dict"]
    best = torch.load(averaged.saved_model_file, weights_only=True)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(raw[name], value), name
    if best["epoch"] == 1:
        assert torch.equal(best["state_dict"]["frequency.gap"], raw["frequency.gap"])


def test_bfloat16_is_close_in_loss_and_gradient_and_leaves_weights_and_scores_float32(home):
    options = given(home, label_smoothing=0.1)
    results = []
    for precision in ("float32", "bfloat16"):
        trainer, train, valid, _ = several.prepare("KuaiFormer", {**options, "precision": precision})
        batch = next(iter(train))
        with trainer._in_precision():
            loss = trainer.model.calculate_loss(batch)
            vectors = trainer.model.interests(batch, n_unseen=batch["target_unseen"])
        loss.backward()
        assert loss.dtype == vectors.dtype == torch.float32
        grads = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
        assert grads.dtype == torch.float32
        results.append((loss.item(), grads, trainer.evaluate(valid, load_best_model=False), vectors))
    (loss, grads, result, vectors), (loss_16, grads_16, result_16, vectors_16) = results
    assert result_16 == result  # the same untrained weights, evaluated in float32
    assert not torch.equal(vectors_16, vectors)
    assert loss_16 == pytest.approx(loss, rel=0.02)
    assert torch.nn.functional.cosine_similarity(grads, grads_16, dim=0) > 0.995
    assert loss_16 != loss


@pytest.mark.parametrize("name", sorted(MODELS))
def test_in_bfloat16_vectors_have_length_one_and_the_softmax_is_float32s(home, name):
    options = {"window_targets": 4, "topk": [3], "negatives": "all", "precision": "bfloat16"}
    options |= {"interest_routing": "max", "temperature": 0.05, "similarity": "cosine"}
    trainer, train, *_ = several.prepare(
        name, worlds.small_for(name, str(home / "data"), "uneven", **options)
    )
    trainer.model.eval()
    batch = next(iter(train))
    with trainer._in_precision():
        loss = trainer.model.calculate_loss(batch)
        vectors = trainer.model.interests(batch, n_unseen=batch["target_unseen"])
    targets = batch["target_ids"]
    lengths = vectors.norm(dim=-1)[targets > 0]
    assert (lengths - 1).abs().max() < 1e-5
    scores = (vectors[targets > 0] @ trainer.model.item_vectors()[1:].T / 0.05).amax(1)
    want = torch.nn.functional.cross_entropy(scores, targets[targets > 0] - 1)
    torch.testing.assert_close(loss, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("learner", ["adam", "adamw"])
def test_a_fused_optimiser_takes_the_same_steps(home, learner):
    options = {"learner": learner, "weight_decay": 0.01, "learning_rate": 0.003, "temperature": 0.2}
    plain, fused = trained(home, **options), trained(home, **options, fused_optimizer=True)
    assert fused.optimizer.defaults["fused"]
    assert_same_weights(plain, fused, rtol=1e-3, atol=1e-4)


def test_the_defaults_are_recboles_own_optimiser(home):
    trainer, *_ = several.prepare("KuaiFormer", given(home, weight_decay=0.01))
    theirs = super(type(trainer), trainer)._build_optimizer(params=trainer.model.parameters(), learner="adam")
    assert type(trainer.optimizer) is type(theirs)
    assert trainer.optimizer.defaults == theirs.defaults
    betas, *_ = several.prepare("KuaiFormer", given(home, adam_betas=[0.9, 0.98]))
    assert betas.optimizer.defaults["betas"] == (0.9, 0.98)


def test_weight_decay_leaves_embeddings_norms_and_biases_alone_when_asked():
    model = torch.nn.Sequential(torch.nn.Embedding(7, 5), torch.nn.LayerNorm(5), torch.nn.Linear(5, 3))
    before = [p.detach().clone() for p in model.parameters()]
    for decays, factors in ((False, [1, 1, 1, 0.95, 1]), (True, [0.95] * 5)):
        with torch.no_grad():
            for p, value in zip(model.parameters(), before):
                p.copy_(value)
                p.grad = torch.zeros_like(p)
        adam(
            model, learner="adamw", learning_rate=0.1, weight_decay=0.5, betas=(0.9, 0.999), fused=False,
            decay_embeddings=decays,
        ).step()  # fmt: skip
        for p, value, shrunk in zip(model.parameters(), before, factors):
            torch.testing.assert_close(p.detach(), value * shrunk)


def test_weights_that_turn_into_nan_in_the_last_step_of_an_epoch_are_not_saved(home):
    trainer, train, valid, _ = several.prepare("KuaiFormer", given(home, epochs=3))

    @torch.no_grad()
    def spoil(*_):
        if trainer._epoch == 1 and trainer._steps == 2 * len(train) - 1:
            trainer.model.encoder.norm.weight[0] = torch.nan

    trainer.optimizer.register_step_post_hook(spoil)
    with pytest.raises(TrainingError, match="weights became NaN or infinite in epoch 1"):
        trainer.fit(train, valid)
    for file in (trainer.last_checkpoint, trainer.saved_model_file):
        state = torch.load(file, weights_only=True)
        assert state["epoch"] == 0
        assert all(torch.isfinite(value).all() for value in state["state_dict"].values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float16"}, "precision: 'float16' is not known"),
        ({"accumulate_batches": 0}, "accumulate_batches: must be at least 1, got 0"),
        ({"schedule": "cosin"}, r"schedule: 'cosin' is not known \(did you mean 'cosine'\?\)"),
        ({"warmup_steps": -1}, "warmup_steps: must be at least 0"),
        ({"schedule_floor": 1.5}, r"schedule_floor: must be in \[0, 1\], got 1.5"),
        ({"ema_decay": 1.0}, r"ema_decay: must be in \[0, 1\), or ~ for none, got 1.0"),
        ({"adam_betas": [0.9]}, "adam_betas: must be two numbers"),
        ({"enable_amp": True}, "enable_amp: must be False here; `precision: bfloat16`"),
        ({"enable_scaler": True}, "enable_scaler: must be False here"),
        ({"learner": "sgd", "fused_optimizer": True}, "fused_optimizer, .* learner is 'sgd'"),
        ({"learner": "sgd", "adam_betas": [0.9, 0.9]}, "adam_betas, .* learner is 'sgd'"),
    ],
)
def test_a_wrong_value_is_named(home, options, message):
    with pytest.raises(SettingsError, match=message):
        Config("KuaiFormer", "uneven", config_dict=given(home, **options))


@pytest.mark.slow  # torch compiles for every shape it takes for special
def test_a_compiled_encoder_learns_the_same(home):
    """In a process of its own: torch's compiler cannot look through the shape checks of these tests."""
    shared = {"hidden_dropout_prob": 0.0, "epochs": 1, "n_layers": 1}
    code = f"""
import torch
import recbole_kuaiformer
from torch._dynamo.utils import counters
from tests.evaluation import several
from tests.evaluation.test_training_options import assert_same_weights, trained
from pathlib import Path
home = Path({str(home)!r})
plain = trained(home, **{shared!r})
assert not counters["stats"]["unique_graphs"]
compiled = trained(home, compile_encoder="aot_eager", **{shared!r})
assert counters["stats"]["unique_graphs"]
assert_same_weights(plain, compiled, rtol=1e-4, atol=1e-6)
assert [*compiled.model.state_dict()] == [*plain.model.state_dict()]
print("the same")
"""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.strip().endswith("the same"), done.stderr[-2000:]


def test_a_compiler_that_torch_does_not_know_is_named(home):
    with pytest.raises(
        SettingsError, match="compile_encoder: 'inductr' is not known; torch knows .*inductor"
    ):
        trained(home, compile_encoder="inductr")


@pytest.mark.parametrize("key", ["mask_history", "mask_known_positives"])
def test_what_training_masks_and_the_ranking_keeps_is_warned_of(home, caplog, key):
    both = {"report_both": True, "valid_metric": "NDCG@10_masked"}
    for more, said in (
        ({"evaluate_history": "kept"}, 1),
        ({"evaluate_history": "masked"}, 0),
        ({"evaluate_history": "kept", **both}, 0),
    ):
        caplog.clear()
        with caplog.at_level("WARNING"):
            several.prepare("KuaiFormer", given(home, **{key: True, **more}))
        lines = [record.getMessage() for record in caplog.records]
        assert sum(line.startswith(f"{key}: ") and "evaluate_history" in line for line in lines) == said
