"""HSTU as a model: whole times from the log, the time of the request only where it is asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import run_recbole
from recbole.utils import get_model

from recbole_kuaiformer.serving.retriever import Retriever
from recbole_kuaiformer.serving.writing import export
from recbole_kuaiformer.settings import SettingsError
from tests import worlds

N_ITEMS, SHORT, LONG = 23, 60, 86_400


def by_pause(folder, *, n_users=150, length=16):
    """After a minute comes the next item, after a day the seventh next: the pause tells which of the two."""
    rng, rows = np.random.default_rng(4), []
    for user in range(n_users):
        item, now = int(rng.integers(N_ITEMS)), 978_300_760
        for _ in range(length):
            rows.append((f"u{user}", f"i{item}", now))
            pause = (SHORT, LONG)[int(rng.integers(2))]
            item, now = (item + (1 if pause == SHORT else 7)) % N_ITEMS, now + pause
    return worlds.write(folder, "pauses", rows)


def given(path, **more):
    return worlds.small_for("HSTU", path, "pauses", **more)


def built(model, settings):
    """The model, and its training and validation data."""
    config = Config(model, "pauses", config_dict=settings)
    train, valid, _ = data_preparation(config, create_dataset(config))
    return get_model(model)(config, train.dataset).eval(), train, valid


def build(path, **more):
    return built("HSTU", given(path, **more))


def test_times_are_whole_seconds_from_the_newest_item_and_the_request_is_the_targets(tmp_path, monkeypatch):
    """RecBole's float32 times of 2001 are 64 seconds apart."""
    worlds.at_home(monkeypatch, tmp_path)
    rows = [("u", f"i{n}", 978_300_000 + t) for n, t in enumerate((760, 761, 780, 790, 86_800))]
    config = Config("HSTU", "pauses", config_dict=given(worlds.write(tmp_path / "data", "pauses", rows)))
    feats = [part[torch.arange(len(part))] for part in create_dataset(config).build()]
    assert [feat["item_times"].tolist() for feat in feats] == [
        [[0, 0], [-1, 0]], [[-20, -19, 0]], [[-30, -29, -10, 0]]
    ]  # fmt: skip
    assert [feat["request_time"].tolist() for feat in feats] == [[1, 19], [10], [86_010]]
    assert {feat[name].dtype for feat in feats for name in ("item_times", "request_time")} == {torch.int64}


@pytest.mark.parametrize("use_request_time", [False, True])
@pytest.mark.parametrize("n_interests", [None, 3])
def test_a_target_of_a_window_has_the_vectors_of_its_own_row(
    tmp_path, monkeypatch, use_request_time, n_interests
):
    worlds.at_home(monkeypatch, tmp_path)
    path = by_pause(tmp_path / "data", n_users=5)
    model, train, _ = build(path, use_request_time=use_request_time, n_interests=n_interests)
    (batch,) = train
    vectors = model.interests(batch, n_unseen=batch["target_unseen"])
    rows = train.dataset[torch.arange(len(train.dataset))]
    alone = model.interests(rows)[:, 0]
    assert alone.shape[1] == (n_interests or 1)
    real = batch["target_ids"] > 0
    history = batch["item_length"][:, None] - batch["target_unseen"]
    users = batch["user_id"][:, None].expand_as(history)
    places = {(int(u), int(n)): i for i, (u, n) in enumerate(zip(rows["user_id"], rows["item_length"]))}
    found = [places[int(u), int(n)] for u, n in zip(users[real], history[real])]
    assert sorted(found) == list(range(len(rows)))
    torch.testing.assert_close(vectors[real], alone[found], rtol=0, atol=1e-5)


def test_the_time_of_the_request_tells_what_comes_next(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    path = by_pause(tmp_path / "data")
    hits = {}
    for use_request_time in (False, True):
        config = given(
            path, use_request_time=use_request_time, epochs=25, topk=[1, 2], valid_metric="Recall@1"
        )
        config |= {"negatives": "all", "initializer_range": None}  # few steps, so items differ at once
        result = run_recbole(model="HSTU", dataset="pauses", config_dict=config)
        hits[use_request_time] = result["test_result"]
    assert hits[True]["recall@1"] > 0.9
    assert hits[False]["recall@1"] < 0.65
    assert hits[False]["recall@2"] > 0.9


def test_queries_without_the_time_of_the_request_find_what_may_come_after_either_pause(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    more = {"n_interests": 2, "query_init": "recent", "interest_routing": "max", "negatives": "all"}
    config = given(by_pause(tmp_path / "data"), **more, epochs=15, topk=[1, 2], valid_metric="Recall@2")
    result = run_recbole(model="HSTU", dataset="pauses", config_dict=config | {"initializer_range": None})
    assert result["test_result"]["recall@2"] > 0.9


@pytest.mark.parametrize("more", [{"use_times": False}, {}, {"use_request_time": True}])
@pytest.mark.parametrize("query_init", ["learned", "recent"])
def test_queries_and_all_else_are_trained(tmp_path, monkeypatch, more, query_init):
    worlds.at_home(monkeypatch, tmp_path)
    more = {**more, "query_init": query_init, "n_interests": 2, "interest_routing": "log_sum_exp"}
    model, train, _ = build(by_pause(tmp_path / "data", n_users=20), **more)
    model.train().calculate_loss(next(iter(train))).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("n_interests", [None, 2])
def test_without_times_it_is_exported_and_served(tmp_path, monkeypatch, n_interests):
    worlds.at_home(monkeypatch, tmp_path)
    path = by_pause(tmp_path / "data", n_users=20)
    config = given(path, use_times=False, n_interests=n_interests, epochs=1)
    run_recbole(model="HSTU", dataset="pauses", config_dict=config)
    (file,) = [file for file in Path("saved").glob("*.pth") if not file.stem.endswith("-last")]
    export(file, "out")
    answer = Retriever.load("out").recommend([["i3", "i4"]], k=3)
    assert len(answer.tokens[0]) == 3


def test_a_batch_without_times_is_refused_by_name(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    model, _, valid = build(by_pause(tmp_path / "data", n_users=5))
    batch = valid.dataset[torch.arange(2)]
    del batch.interaction["item_times"]
    with pytest.raises(ValueError, match="use_times: .* the batch has no 'item_times'"):
        model.predict(batch)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"use_times": False, "use_request_time": True}, "use_request_time: True needs use_times: True"),
        ({"qk_size": 0}, "qk_size: must be at least 1, got 0"),
        ({"n_interests": 0}, "n_interests: must be from 1 to 11, or ~ .*, got 0"),
        ({"n_interests": 12}, "n_interests: must be from 1 to 11, or ~ .*, got 12"),
        ({"query_init": "newest"}, "query_init: 'newest' is not known; known: learned, recent"),
        ({"use_request_tme": True}, r"use_request_tme: unknown key \(did you mean 'use_request_time'\?\)"),
    ],
)
def test_bad_keys_are_named(tmp_path, monkeypatch, more, message):
    worlds.at_home(monkeypatch, tmp_path)
    with pytest.raises(SettingsError, match=message):
        Config("HSTU", "pauses", config_dict=given("nowhere", **more))
