"""What every model of the plugin keeps: one contract for all entries of MODELS."""

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.quick_start import run_recbole
from recbole.utils import get_model, init_seed

import recbole_kuaiformer
from recbole_kuaiformer.data.dataset import TARGET_IDS, TARGET_ROWS, TARGET_UNSEEN
from recbole_kuaiformer.models.base import _nearest
from recbole_kuaiformer.plugin import MODELS
from tests import worlds


@pytest.fixture(params=sorted(MODELS))
def model_name(request):
    return request.param


def build(model_name, data_path, dataset="cyclic", **more):
    config = Config(model_name, dataset, config_dict=worlds.small_for(model_name, data_path, dataset, **more))
    init_seed(config["seed"], config["reproducibility"])
    train, valid, test = data_preparation(config, create_dataset(config))
    return get_model(model_name)(config, train.dataset).to(config["device"]), train, valid, test


@pytest.fixture
def cyclic(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    return worlds.cyclic(tmp_path / "data")


OBJECTIVES = [
    {"negatives": negatives, "logq": logq, "smoothing_form": form, "label_smoothing": 0.1}
    for negatives in ("in_batch", "uniform", "mixed", "all")
    for logq in ("none", "both", "negatives")
    for form in ("paper", "uniform")
] + [
    {"negatives": "in_batch", "deduplicate_candidates": True},
    {"negatives": "in_batch", "item_frequency": "streaming"},
    {"negatives": "mixed", "item_frequency": "streaming", "streaming_slots": 50, "streaming_hashes": 2},
    {"negatives": "all", "mask_known_positives": True, "interest_routing": "log_sum_exp"},
    {"negatives": "mixed", "mask_history": True},
    {"negatives": "all", "similarity": "dot", "temperature": 1.0},
    {"negatives": "mixed", "interest_routing": "target"},
    {"negatives": "all", "interest_separation": 0.1},
    {"negatives": "all", "targets_per_window": 2},
    {"negatives": "mixed", "target_horizon": 5},
    {"negatives": "all", "stochastic_length_alpha": 1.5, "stochastic_length_choice": "uniform"},
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: "-".join(map(str, o.values())))
def test_every_objective_gives_a_finite_loss_and_reaches_every_parameter(model_name, cyclic, objective):
    model, train, _, _ = build(model_name, cyclic, n_negatives=9, **objective)
    model.train()
    longest = max(train, key=lambda batch: int(batch["item_length"].max()))  # reaches into the groups
    loss = model.calculate_loss(longest)
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("key", ["mask_history", "mask_known_positives"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"target_horizon": 4},
        {"stochastic_length_alpha": 1.5},
        {"targets_per_window": 2, "windows_per_user": 1},
    ],
    ids=str,
)
def test_the_items_a_user_had_leave_the_softmax(model_name, cyclic, key, more):
    model, train, _, _ = build(
        model_name, cyclic, negatives="all", scores_at_once=200, label_smoothing=0.0, **{key: True}, **more
    )
    log, trained = train.dataset.log, set(train.dataset.inter_feat["log_row"].tolist())
    model.eval()
    batch, losses, n_left = next(iter(train)), [], set()
    scores = model.interests(batch, n_unseen=batch[TARGET_UNSEEN]) @ model.item_vectors().T
    for window, column in (batch[TARGET_IDS] > 0).nonzero().tolist():
        row, own = int(batch[TARGET_ROWS][window, column]), int(batch[TARGET_IDS][window, column])
        n_seen = int(batch["item_length"][window] - batch[TARGET_UNSEEN][window, column])
        if "stochastic_length_alpha" not in more:  # the row is the one that follows what the target sees
            seen = batch["item_id_list"][window, :n_seen].tolist()
            assert seen == log.item_ids[row - n_seen : row].tolist()
        if train.dataset.config["target_horizon"] == 1:
            assert own == log.item_ids[row]
        assert log.user_ids[row] == batch["user_id"][window]
        user = np.flatnonzero(log.user_ids == log.user_ids[row])
        if key == "mask_history":
            had = {int(log.item_ids[other]) for other in user if other < row}
        else:
            had = {int(log.item_ids[other]) for other in user if other in trained or other == user[0]}
        left = [item for item in range(1, model.n_items) if item not in had or item == own]
        of_target = scores[window, column]
        if model.objective.interest_routing == "target":
            of_target = of_target[[int(of_target[:, own].argmax())]]
        of_target = of_target.amax(0) / model.objective.temperature
        losses.append(float((of_target[left].logsumexp(0) - of_target[own]).detach()))
        n_left.add(len(left))
    assert min(n_left) < model.n_items - 1
    got = float(model.calculate_loss(batch).detach())
    assert got == pytest.approx(np.mean(losses), rel=1e-4)


def test_separation_adds_its_weight_times_the_mean_squared_cosine_of_the_targets(model_name, cyclic):
    values = []
    for weight in (0.0, 0.5, 2.0):
        model, train, _, _ = build(model_name, cyclic, negatives="all", interest_separation=weight)
        model.eval()
        batch = next(iter(train))
        values.append(float(model.calculate_loss(batch).detach()))
        is_target = batch[TARGET_IDS] > 0
        interests = model.interests(batch, n_unseen=batch[TARGET_UNSEEN])[is_target]
    unit = torch.nn.functional.normalize(interests.double(), dim=-1)
    pairs = [(i, j) for i in range(unit.shape[1]) for j in range(i)]
    term = sum(float((unit[:, i] * unit[:, j]).sum(-1).square().mean()) for i, j in pairs) / max(
        1, len(pairs)
    )
    assert values[1] - values[0] == pytest.approx(0.5 * term, abs=1e-4)
    assert values[2] - values[0] == pytest.approx(2.0 * term, abs=1e-4)
    assert (term > 0) == (unit.shape[1] > 1)


def test_queries_that_start_from_recent_items_are_trained(cyclic):
    model, train, _, _ = build("KuaiFormer", cyclic, query_init="recent")
    model.calculate_loss(next(iter(train))).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


# How each model is trained in the generated worlds, the least recall@5 in the cyclic one, and how many of 24
# items must hold both continuations of two planted interests for what share of the users. Only transformers
# read the order as such; the others see it through positions counted from the oldest item. Under its own
# loss, of the nearest interest alone, ComiRec-SA collapses into one interest in most draws of the world of
# two (6 of 8): there it is trained by the best interest of each candidate.
LEARNS = {
    "KuaiFormer": ({"epochs": 15}, 0.95),
    "SASRecPlus": ({"epochs": 15}, 0.95),
    "HSTU": ({"epochs": 15, "n_negatives": 100}, 0.95),
    "PinnerFormer": ({"epochs": 15, "target_horizon": 4, "n_negatives": 100}, 0.95),
    "ComiRecDR": ({"epochs": 15, "n_negatives": 100}, 0.9),
    "MIND": ({"epochs": 80, "negatives": "all", "stopping_step": 200}, 0.9),
    "ComiRecSA": ({"epochs": 60, "learning_rate": 0.03, "n_negatives": 100, "train_batch_size": 128}, 0.7),
}
_ALL = {"epochs": 40, "negatives": "all", "stopping_step": 100}
FINDS_BOTH = {
    "KuaiFormer": ({"epochs": 12, "learning_rate": 0.003, "n_layers": 2}, 4, 0.9),
    "SASRecPlus": ({"epochs": 12, "learning_rate": 0.003, "n_layers": 2}, 4, 0.9),
    "HSTU": ({"epochs": 12, "learning_rate": 0.003, "n_layers": 2, "negatives": "all"}, 4, 0.9),
    "PinnerFormer": (
        {"epochs": 24, "learning_rate": 0.003, "n_layers": 2, "target_horizon": 2, "train_batch_size": 64},
        4,
        0.9,
    ),
    "ComiRecDR": (_ALL, 4, 0.7),
    "MIND": (_ALL, 8, 0.7),
    "ComiRecSA": ({**_ALL, "interest_routing": "max"}, 8, 0.7),
}


def test_learns_the_cycle_and_beats_popularity(model_name, cyclic):
    training, least = LEARNS[model_name]
    config = worlds.small_for(model_name, cyclic, "cyclic", **training)
    result = run_recbole(model=model_name, dataset="cyclic", config_dict=config)["test_result"]
    pop = run_recbole(model="Pop", dataset="cyclic", config_dict=_of_recbole(config))["test_result"]
    assert result["recall@5"] > least
    assert result["recall@5"] > pop["recall@5"] + 0.3


def _of_recbole(config):
    keys = ("data_path", "dataset", "show_progress", "state", "seed", "topk", "valid_metric", "epochs")
    leave_one_out = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}
    load_col = {"inter": ["user_id", "item_id", "timestamp"]}
    return {**{key: config[key] for key in keys}, "eval_args": leave_one_out, "load_col": load_col}


def test_predict_and_full_sort_predict_agree_and_evaluation_repeats_itself(model_name, cyclic):
    model, _, valid, _ = build(model_name, cyclic)
    model.eval()
    batch = valid.dataset[torch.arange(20)]
    scores = model.full_sort_predict(batch)
    assert scores.shape == (20, model.n_items)
    torch.testing.assert_close(scores[torch.arange(20), batch["item_id"]], model.predict(batch))
    torch.testing.assert_close(model.full_sort_predict(batch), scores, rtol=0, atol=0)


def test_score_is_the_best_of_the_interests(model_name, cyclic):
    """Eq. 9, by loops."""
    model, _, valid, _ = build(model_name, cyclic)
    model.eval()
    batch = valid.dataset[torch.arange(3)]
    with torch.no_grad():
        interests, items = model.interests(batch)[:, 0], model.item_vectors()
        scores = model.full_sort_predict(batch)
    for b in range(3):
        for item in range(1, model.n_items):
            best = max(float(interests[b, r] @ items[item]) for r in range(interests.shape[1]))
            assert abs(best - float(scores[b, item])) < 1e-5


def test_hard_routing_trains_the_interest_nearest_to_the_target_alone():
    torch.manual_seed(0)
    interests, items = torch.randn(7, 3, 5, requires_grad=True), torch.randn(7, 5)
    chosen = _nearest(interests, items)
    assert chosen.shape == (7, 1, 5)
    chosen.sum().backward()
    for row in range(7):
        best = max(range(3), key=lambda r: float(interests[row, r] @ items[row]))
        assert torch.equal(chosen[row, 0], interests[row, best])
        assert interests.grad[row].abs().sum(1).nonzero().flatten().tolist() == [best]


def test_ranks_a_hand_made_history_of_any_length(model_name, cyclic):
    """RecBole's way of asking for a user it never saw; a history longer than the layout keeps its newest."""
    model, _, _, _ = build(model_name, cyclic)
    model.eval()
    long = torch.randint(1, model.n_items, (1, 40))
    kept = long[:, -16:]
    padded = torch.cat([kept, torch.zeros(1, 24, dtype=torch.long)], dim=1)
    with torch.no_grad():
        scores = [
            model.full_sort_predict(_hand_made(ids, n)) for ids, n in ((long, 40), (kept, 16), (padded, 16))
        ]
        empty = model.full_sort_predict(_hand_made(torch.zeros(1, 4, dtype=torch.long), 0))
    torch.testing.assert_close(scores[0], scores[1])
    torch.testing.assert_close(scores[2], scores[1])
    assert torch.isfinite(empty).all()


def _hand_made(ids, n):
    """A minute between any two events."""
    minutes = 60 * (torch.arange(ids.shape[1]) - n + 1)
    return Interaction(
        {
            "item_id_list": ids,
            "item_length": torch.tensor([n]),
            "item_times": minutes[None],
            "request_time": torch.tensor([60]),
        }
    )


@pytest.mark.parametrize("mode", ["full", "uni50"])
def test_sampled_evaluation_works_too(model_name, tmp_path, monkeypatch, mode):
    """Of users whose histories differ in length."""
    worlds.at_home(monkeypatch, tmp_path)
    rows = [(user, (user + t) % 60, t) for user in range(70) for t in range(3 + user % 12)]
    path = worlds.write(tmp_path / "data", "ragged", rows)
    config = worlds.small_for(
        model_name,
        path,
        "ragged",
        epochs=1,
        eval_args={"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": mode},
    )
    result = run_recbole(model=model_name, dataset="ragged", config_dict=config)
    assert np.isfinite([*result["test_result"].values()]).all()


def test_two_planted_interests_are_both_found(model_name, tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    path = worlds.two_interests(tmp_path / "data")
    training, k, least = FINDS_BOTH[model_name]
    config = worlds.small_for(model_name, path, "twofold", hidden_size=32, **training)
    config = Config(model_name, "twofold", config_dict=config)
    init_seed(3, True)
    train, valid, test = data_preparation(config, create_dataset(config))
    model = get_model(model_name)(config, train.dataset)
    trainer = getattr(recbole_kuaiformer.plugin.recbole.trainer, f"{model_name}Trainer")(config, model)
    trainer.fit(train, valid, saved=False)
    model.eval()
    dataset = test.dataset
    batch = dataset[torch.arange(len(dataset))]
    with torch.no_grad():
        scores = model.full_sort_predict(batch)
        scores[:, 0] = -torch.inf
    top = dataset.id2token("item_id", scores.topk(k).indices)
    both = 0
    for row, (history, n) in enumerate(zip(batch["item_id_list"], batch["item_length"])):
        tokens = [*dataset.id2token("item_id", history[:n])]
        ahead = set()
        for cycle in "ab":
            places = [int(token[1:]) for token in tokens if token[0] == cycle]
            if places:
                ahead.add(f"{cycle}{(places[-1] + 1) % 12}")
        both += ahead <= set(top[row])
    assert both / len(dataset) > least
