"""KuaiFormer told when the recommendation is asked for: each target its own pause, in windows and alone."""

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.quick_start import run_recbole

from recbole_kuaiformer.encoders.kuaiformer import gaps_to_targets
from recbole_kuaiformer.settings import SettingsError
from tests import worlds
from tests.models.test_hstu_times import built, by_pause

GAP = {"n_buckets": 8, "maximum": 604_800.0, "scale": "log"}


def given(path, **more):
    return worlds.small_for("KuaiFormer", path, "pauses", **{"request_gap": GAP, **more})


def build(path, **more):
    return built("KuaiFormer", given(path, **more))


@pytest.mark.parametrize("seed", range(3))
def test_gaps_are_those_of_plain_loops(seed):
    rng = np.random.default_rng(seed)
    lengths, width, n_targets = rng.integers(0, 7, size=5), 6, 4
    times = np.cumsum(rng.integers(0, 100, size=(5, width)), axis=1)
    requests = times[:, -1] + rng.integers(0, 100, size=5)
    n_unseen = rng.integers(0, width + 1, size=(5, n_targets))
    valid = torch.tensor([[column >= width - n for column in range(width)] for n in lengths])
    got = gaps_to_targets(
        torch.tensor(times), torch.tensor(requests), valid=valid, n_unseen=torch.tensor(n_unseen)
    )
    for row in range(5):
        events = [*times[row].tolist(), int(requests[row])]
        for target in range(n_targets):
            place = width - 1 - int(n_unseen[row, target])  # of the newest item seen
            if place < width - lengths[row]:
                assert torch.isnan(got[row, target])
            else:
                assert got[row, target] == events[place + 1] - events[place]


@pytest.mark.parametrize("more", [{}, {"query_init": "recent"}, {"MAX_ITEM_LIST_LENGTH": 10}])
def test_a_target_of_a_window_has_the_interests_of_its_own_row(tmp_path, monkeypatch, more):
    worlds.at_home(monkeypatch, tmp_path)
    more = {"compression_groups": [], "recent_length": None, **more}
    model, train, _ = build(by_pause(tmp_path / "data", n_users=5), **more)
    (batch,) = train
    vectors = model.interests(batch, n_unseen=batch["target_unseen"])
    rows = train.dataset[torch.arange(len(train.dataset))]
    alone = model.interests(rows)[:, 0]
    real = batch["target_ids"] > 0
    history = batch["item_length"][:, None] - batch["target_unseen"]
    users = batch["user_id"][:, None].expand_as(history)
    in_row = {(int(u), int(n), int(i)): place for place, (u, n, i) in enumerate(zip(
        rows["user_id"], rows["item_length"], rows["item_id"]))}  # fmt: skip
    asked = zip(users[real].tolist(), history[real].tolist(), batch["target_ids"][real].tolist())
    pairs = [(place, in_row[one]) for place, one in enumerate(asked) if one in in_row]
    assert len(pairs) > len(rows) / 2  # longer histories than a window's are cut in one of the two alone
    places, found = map(list, zip(*pairs))
    torch.testing.assert_close(vectors[real][places], alone[found], rtol=0, atol=1e-5)
    rows["request_time"] = rows["request_time"] + 86_400
    assert not torch.allclose(model.interests(rows)[:, 0], alone, atol=1e-3)


def test_the_pause_tells_what_comes_next(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    path = by_pause(tmp_path / "data")
    hits = {}
    for gap in (None, GAP):
        config = given(path, request_gap=gap, epochs=25, topk=[1, 2], valid_metric="Recall@1", n_interests=1)
        config |= {"negatives": "all", "logq": "none", "initializer_range": None}
        hits[gap is not None] = run_recbole(model="KuaiFormer", dataset="pauses", config_dict=config)
    assert hits[True]["test_result"]["recall@1"] > 0.9
    assert hits[False]["test_result"]["recall@1"] < 0.65


def test_a_batch_without_times_is_refused_by_name(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    model, _, valid = build(by_pause(tmp_path / "data", n_users=5))
    batch = valid.dataset[torch.arange(2)]
    del batch.interaction["request_time"]
    with pytest.raises(ValueError, match="request_gap: .* the batch has no 'request_time'.* request_gap: ~"):
        model.predict(batch)


@pytest.mark.parametrize("nothing", [None, "~", "null"])
def test_without_it_no_times_are_read(tmp_path, monkeypatch, nothing):
    worlds.at_home(monkeypatch, tmp_path)
    model, _, valid = build(by_pause(tmp_path / "data", n_users=5), request_gap=nothing)
    assert model.encoder.gaps is None
    assert "request_time" not in valid.dataset[torch.arange(2)].columns


@pytest.mark.parametrize(
    ("gap", "message"),
    [
        (3, "request_gap: must be dict, got 3"),
        ({"n_buckets": 8, "maximum": 9.0}, "request_gap: needs scale"),
        ({**GAP, "maximum": 0}, "request_gap: maximum must be positive and finite, got 0"),
        ({**GAP, "n_bucket": 3}, r"request_gap: 'n_bucket' is not known \(did you mean 'n_buckets'\?\)"),
        ({**GAP, "scale": "cubic"}, "request_gap: scale must be uniform or log, got 'cubic'"),
    ],
)
def test_bad_options_are_named(tmp_path, monkeypatch, gap, message):
    worlds.at_home(monkeypatch, tmp_path)
    with pytest.raises(SettingsError, match=message):
        Config("KuaiFormer", "pauses", config_dict=given("nowhere", request_gap=gap))
