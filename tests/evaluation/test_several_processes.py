"""Two real processes (gloo) take the steps, and report the numbers, of one."""

import pytest
import torch

from tests import worlds
from tests.evaluation import several

# About 36 targets, 9 windows, a step.
SHARED = {
    "window_targets": 4,
    "train_batch_size": 36,
    "epochs": 2,
    "learner": "sgd",
    "learning_rate": 0.05,
    "temperature": 0.2,
    "topk": [3, 10],
    "report_both": True,
    "valid_metric": "NDCG@10",
    "metrics": ["Recall", "MRR", "NDCG", "ItemCoverage", "GiniIndex", "AveragePopularity", "GAUC"],
}
TRAINED = {
    "in_batch": {"negatives": "in_batch", "logq": "both"},
    "in_batch, no repeats": {"negatives": "in_batch", "deduplicate_candidates": True, "logq": "negatives"},
    "in_batch, counted, smoothed": {"negatives": "in_batch", "logq": "negatives", "label_smoothing": 0.1},
    "uniform": {"negatives": "uniform", "n_negatives": 9, "logq": "negatives"},
    "mixed": {"negatives": "mixed", "n_negatives": 9, "logq": "both"},
    "all": {"negatives": "all", "label_smoothing": 0.1, "smoothing_form": "uniform"},
    "streaming": {"negatives": "in_batch", "logq": "both", "item_frequency": "streaming"},
    "streaming, hashed": {
        "negatives": "mixed", "n_negatives": 9, "logq": "both", "item_frequency": "streaming",
        "streaming_slots": 11, "streaming_hashes": 2,
    },
    "known positives": {"negatives": "in_batch", "logq": "both", "mask_known_positives": True},
    "history": {"negatives": "mixed", "n_negatives": 9, "logq": "both", "mask_history": True},
    "accumulated": {"negatives": "all", "accumulate_batches": 3, "train_batch_size": 20},
    "drawn targets": {"negatives": "mixed", "n_negatives": 9, "logq": "both", "targets_per_window": 2},
    "later targets, shorter histories": {
        "negatives": "mixed", "n_negatives": 9, "logq": "both", "target_horizon": 3,
        "stochastic_length_alpha": 1.0, "stochastic_length_choice": "weighted",
    },
    "hardly a window": {"negatives": "mixed", "n_negatives": 9, "logq": "both", "train_batch_size": 3},
    "adamw": {
        "negatives": "mixed", "n_negatives": 9, "learner": "adamw", "learning_rate": 0.01,
        "schedule": "cosine", "warmup_steps": 3, "ema_decay": 0.9, "weight_decay": 0.1,
        "clip_grad_norm": {"max_norm": 0.1}, "precision": "float32",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("several")
        worlds.at_home(patch, folder)
        several.uneven(folder / "data")
        yield folder


@pytest.fixture(scope="module")
def pairs(home):
    """For each name what one process, and what two processes, came to."""
    runs = []
    for name, more in TRAINED.items():
        config = worlds.small(str(home / "data"), "uneven", **{**SHARED, **more})
        runs.append((several.train, "KuaiFormer", {**config, "checkpoint_dir": name.replace(" ", "_")}))
    together = several.in_processes(runs, n_processes=2, folder=home / "out")
    alone = []
    for function, model, config in runs:
        alone.append(function(model, {**config, "checkpoint_dir": config["checkpoint_dir"] + "_alone"}))
    return {name: (one, two) for name, one, two in zip(TRAINED, alone, together)}


@pytest.mark.parametrize("name", TRAINED)
def test_two_train_as_one(pairs, name):
    alone, (first, second) = pairs[name]
    for w, v in alone["weights"].items():
        print(w, (first["weights"][w] - v).abs().max().item(), v.abs().max().item())
    print(alone["losses"], first["losses"])
    for weight, value in alone["weights"].items():
        torch.testing.assert_close(first["weights"][weight], value, rtol=1e-4, atol=1e-5, msg=weight)
        assert torch.equal(first["weights"][weight], second["weights"][weight]), weight
    for epoch, loss in alone["losses"].items():
        assert first["losses"][epoch] == pytest.approx(loss, rel=1e-5)
    assert first["losses"] == second["losses"]
    assert first["valid"] == second["valid"] == alone["valid"]
    assert first["test"] == second["test"] == alone["test"]
    assert first["file"] == second["file"]


def test_some_step_leaves_process_1_without_a_window(pairs):
    """Steps are asked to be so small that each of 73 windows is alone in one."""
    alone, (first, _) = pairs["hardly a window"]
    assert first["rows"] == alone["rows"] == [73, 2 * 73]


# ---- evaluation --------------------------------------------------------------------------------------

FULL = {"topk": [3, 10], "metrics": SHARED["metrics"], "eval_batch_size": 5, "epochs": 1, "seed": 3}
FULL |= {"show_progress": False, "state": "WARNING", "valid_metric": "NDCG@10", "load_col": None}
LEAVE_ONE_OUT = {"split": {"LS": "valid_and_test"}, "order": "TO"}
PLAIN = {**FULL, "eval_args": LEAVE_ONE_OUT, "train_neg_sample_args": None}
PAIRWISE = {**FULL, "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}
EVALUATED = {
    "both readings": ("KuaiFormer", {"report_both": True}),
    "approximate": (
        "KuaiFormer", {"index_factory": "IVF4,Flat", "index_parameters": "nprobe:1", "topk": [3]},
    ),
    "RecBole's model by index": ("SASRec", {**PLAIN, "evaluator": "faiss", "report_both": True}),
    "RecBole's model, masked": ("SASRec", {**PLAIN, "evaluator": "recbole", "evaluate_history": "masked"}),
    "RecBole's model, RecBole's way": ("SASRec", {**PLAIN, "evaluator": "recbole"}),
    "not sequential": ("BPR", {**PAIRWISE, "evaluator": "recbole", "eval_batch_size": 64}),
    "of single rows": (
        "BPR", {**PAIRWISE, "metrics": ["AUC", "LogLoss"], "valid_metric": "AUC",
                "eval_args": {"mode": "labeled", **LEAVE_ONE_OUT}},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def evaluations(home):
    runs = []
    for model, more in EVALUATED.values():
        config = {"data_path": str(home / "data"), "dataset": "uneven", **FULL, **more}
        if model == "KuaiFormer":
            config = worlds.small(str(home / "data"), "uneven", **{**SHARED, "report_both": False, **more})
        runs.append((several.evaluate, model, config))
    three = several.in_processes(runs, n_processes=3, folder=home / "evaluated")
    alone = [function(model, dict(config)) for function, model, config in runs]
    return {name: (one, many) for name, one, many in zip(EVALUATED, alone, three)}


@pytest.mark.parametrize("name", EVALUATED)
def test_three_report_the_numbers_of_one(evaluations, name):
    """23 users among three processes: RecBole would count one of them twice."""
    alone, together = evaluations[name]
    assert alone[0]
    for result in together:
        assert result == alone
