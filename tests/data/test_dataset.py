"""Our dataset against RecBole's own prefix table, and its errors."""

import pickle

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation

import recbole_kuaiformer  # noqa: F401
from recbole_kuaiformer.data.dataset import TARGET_IDS, TARGET_UNSEEN, DataError
from tests import worlds

HEADER = "user_id:token\titem_id:token\ttimestamp:float\twatch_time:float\ttags:token_seq\taction:token"


@pytest.fixture
def world(tmp_path, monkeypatch):
    return make_world(tmp_path, monkeypatch, first_second=978300000)


def make_world(tmp_path, monkeypatch, *, first_second):
    worlds.at_home(monkeypatch, tmp_path)
    rng = np.random.default_rng(5)
    rows = []
    for user in range(30):
        for _ in range(int(rng.integers(1, 15))):
            watch = "" if rng.random() < 0.3 else round(float(rng.random() * 60), 3)
            tags = " ".join(f"t{n}" for n in rng.integers(0, 5, rng.integers(0, 3)))
            rows.append(
                (
                    f"u{user}",
                    f"i{rng.integers(40)}",
                    first_second + int(rng.integers(200)),
                    watch,
                    tags,
                    f"x{rng.integers(3)}",
                )
            )
    items = ["item_id:token\tduration:float\tauthor:token"]
    items += [f"i{n}\t{'' if n % 4 == 0 else n * 1.5}\ta{n % 7}" for n in range(40)]
    return worlds.write(tmp_path / "data", "attr", rows, header=HEADER, items=items)


def config_of(model, data_path, **more):
    load = {"inter": ["user_id", "item_id", "timestamp", "watch_time", "tags", "action"], "item": "*"}
    base = worlds.small(data_path, "attr", load_col=load, **more)
    if model != "KuaiFormer":
        ours = ("compression_groups", "recent_length", "window_targets", "n_interests", "hidden_dropout_prob")
        base = {key: value for key, value in base.items() if key not in ours}
    return Config(model, "attr", config_dict=base)


def rows_of(dataset, fields):
    """What a model is shown, as hashable rows: each list cut to its length."""
    feat = dataset[torch.arange(len(dataset))]
    lengths = feat["item_length"].tolist()
    columns = []
    for field in fields:
        values = feat[field]
        if field.endswith("_list"):
            cut = [values[row][:n].tolist() for row, n in enumerate(lengths)]
            columns.append([str(c) for c in cut])
        else:
            columns.append(values.tolist())
    return sorted(zip(*columns))


SPLITS = [
    {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
    {"split": {"LS": "valid_only"}, "order": "TO", "mode": "full"},
    {"split": {"RS": [0.6, 0.2, 0.2]}, "order": "TO", "group_by": "user", "mode": "full"},
    {"split": {"RS": [0.6, 0.2, 0.2]}, "order": "TO", "group_by": "none", "mode": "full"},
    pytest.param(
        {"split": {"TS": [0.6, 0.2, 0.2]}, "order": "TO", "group_by": "user", "mode": "full"},
        marks=worlds.splits_by_time,
    ),
]


@pytest.mark.parametrize("eval_args", SPLITS, ids=str)
def test_splits_and_histories_equal_recboles_prefix_table(tmp_path, monkeypatch, eval_args):
    # A split of all users together goes by RecBole's float32 times, which are exact for small ones only.
    first = 0 if eval_args.get("group_by") == "none" else 978300000
    world = make_world(tmp_path, monkeypatch, first_second=first)
    fields = ["user_id", "item_id", "item_id_list", "action_list"]
    ours, theirs = (
        create_dataset(
            config_of(
                model,
                world,
                eval_args=eval_args,
                item_inter_num_interval="[2,inf)",
                **({"attributes": {"action": None}} if model == "KuaiFormer" else {}),
            )
        ).build()
        for model in ("KuaiFormer", "GRU4Rec")
    )
    for part, (mine, table) in enumerate(zip(ours, theirs)):
        if part == 0 or len(table):
            assert rows_of(mine, fields) == rows_of(table, fields), part
        assert len(mine) == len(table)


def test_attributes_come_raw_with_gaps_in_seconds_and_nan_where_missing(world):
    attributes = {
        "watch_time": {"n_buckets": 8, "maximum": 60.0, "scale": "uniform"},
        "duration": {"n_buckets": 8, "maximum": 60.0, "scale": "uniform"},
        "time_gap": {"n_buckets": 8, "maximum": 200.0, "scale": "log"},
        "tags": None,
    }
    dataset = create_dataset(config_of("KuaiFormer", world, attributes=attributes, normalize_all=True))
    dataset.build()
    log = dataset.log
    batch = dataset[torch.arange(len(dataset))]
    rows, _ = log.histories(batch["log_row"].numpy(), max_length=16)
    watch, gap = batch["watch_time_list"].numpy(), batch["time_gap_list"].numpy()
    assert np.isnan(watch[rows >= 0]).mean() > 0.1
    assert np.nanmax(watch) > 2, "normalised to [0, 1]"
    np.testing.assert_array_equal(gap[:, 0][rows[:, 0] >= 0], log.time_gaps(rows[:, 0][rows[:, 0] >= 0]))
    np.testing.assert_allclose(
        gap[:, 1:][rows[:, 1:] >= 0],
        (log.timestamps[rows][:, 1:] - log.timestamps[rows][:, :-1])[rows[:, 1:] >= 0],
    )
    assert batch["tags_list"].shape[:2] == watch.shape
    raw = dataset.raw_floats("duration")
    assert np.isnan(raw[dataset.token2id("item_id", "i4")])
    assert raw[dataset.token2id("item_id", "i5")] == 7.5


def test_the_counts_behind_log_q_are_those_of_the_targets_trained_on(world):
    settings = {"windows_per_user": 1, "window_targets": 2}
    config = config_of("KuaiFormer", world, **settings)
    train, *_ = data_preparation(config, create_dataset(config))
    predicted = torch.cat([batch["target_ids"].flatten() for batch in train])
    counts = torch.bincount(predicted[predicted > 0], minlength=train.dataset.item_num)
    assert train.dataset.target_counts().tolist() == counts.tolist()
    assert 0 < counts.sum() < len(train.dataset)


def test_training_batches_hold_each_training_target_once_and_nothing_later(world):
    config = config_of("KuaiFormer", world, targets_per_window=None)
    train, valid, test = data_preparation(config, create_dataset(config))
    dataset = train.dataset
    expected = sorted(zip(dataset.inter_feat["user_id"].tolist(), dataset.inter_feat["item_id"].tolist()))
    seen = []
    held_out = {
        (u, i)
        for d in (valid, test)
        for u, i in zip(d.dataset.inter_feat["user_id"].tolist(), d.dataset.inter_feat["item_id"].tolist())
    }
    log = dataset.log
    trained_rows = set(dataset.inter_feat["log_row"].tolist())
    last = {int(log.user_ids[row]): row for row in sorted(trained_rows)}
    for batch in train:
        targets, unseen = batch[TARGET_IDS], batch[TARGET_UNSEEN]
        for user, ids, hidden, history, n in zip(
            batch["user_id"].tolist(), targets, unseen, batch["item_id_list"], batch["item_length"].tolist()
        ):
            own = [(i.item(), h.item()) for i, h in zip(ids, hidden) if i > 0]
            newest = max(h for _, h in own)
            assert newest < n
            end = last[user]
            seen += [(user, i) for i, _ in own]
            items_until_now = log.item_ids[log.starts[end] : end + 1].tolist()
            assert set(history[:n].tolist()) <= set(items_until_now)
            for i, h in own[:-1]:
                assert history[n - h].item() == i  # the target stands in the window, h items from its end
    assert sorted(seen) == expected
    assert held_out
    assert len(train) == len([*train])


def test_a_pickled_dataset_gives_the_same_batches(world):
    config = config_of("KuaiFormer", world)
    dataset = create_dataset(config)
    again = pickle.loads(pickle.dumps(dataset))
    fields = ["user_id", "item_id", "item_id_list"]
    for mine, theirs in zip(dataset.build(), again.build()):
        assert rows_of(mine, fields) == rows_of(theirs, fields)


def test_inter_matrix_holds_every_interaction_of_the_split(world):
    dataset = create_dataset(config_of("KuaiFormer", world))
    dataset.build()
    log = dataset.log
    users, counts = np.unique(log.user_ids, return_counts=True)
    matrix = dataset.inter_matrix(form="csr")
    assert matrix.sum() == counts[counts > 1].sum()


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([("u", "i")], "user_id:token\titem_id:token", r"bad\.inter: no column 'timestamp' \(TIME_FIELD\)"),
        ([], "", r"bad\.inter: the file is empty"),
        ([], "user_id:token\titem_id:token\ttimestamp:float", r"bad\.inter: the file is empty"),
        (
            [("u", "i", 1)],
            "user_id:token\titem_id:token\ttimestamp:token",
            "must be of type float, not token",
        ),
        ([("u", "i", 1)], "user_id\titem_id:token\ttimestamp:float", "'user_id' of type ''"),
        (
            [("u", "i", 1), ("u", "j", "")],
            "user_id:token\titem_id:token\ttimestamp:float",
            "1 interactions have no",
        ),
        (
            [("u", "i", 1), ("u", "j", "inf")],
            "user_id:token\titem_id:token\ttimestamp:float",
            "1 interactions have no 'timestamp', or an infinite one",
        ),
        (
            [("u", "i", 1), ("v", "j", 2)],
            "user_id:token\titem_id:token\ttimestamp:float",
            "nothing to predict",
        ),
    ],
)
def test_bad_files_are_named(tmp_path, monkeypatch, rows, header, message):
    worlds.at_home(monkeypatch, tmp_path)
    path = worlds.write(tmp_path / "data", "bad", rows, header=header)
    config = Config("KuaiFormer", "bad", config_dict=worlds.small(path, "bad", load_col=None))
    with pytest.raises(DataError, match=message):
        create_dataset(config).build()


def test_an_attribute_that_the_data_lacks_is_named(world):
    with pytest.raises(DataError, match="attributes: 'colour' is in neither"):
        create_dataset(config_of("KuaiFormer", world, attributes={"colour": None}))
    config = config_of("KuaiFormer", world, attributes={"action": None})
    config["load_col"] = {"inter": ["user_id", "item_id", "timestamp"]}
    with pytest.raises(DataError, match="attributes: 'action' is not loaded; add it to load_col"):
        create_dataset(config)


@pytest.mark.parametrize(
    "drawn",
    [
        {"targets_per_window": None},
        {"targets_per_window": 2},
        {"target_horizon": 3, "stochastic_length_alpha": 1.0, "stochastic_length_choice": "uniform"},
    ],
    ids=str,
)
def test_worker_processes_give_the_same_batches_epoch_after_epoch(world, drawn):
    alone, helped = (
        data_preparation(config, create_dataset(config))[0]
        for config in (
            config_of("KuaiFormer", world, train_batch_size=16, worker=worker, **drawn) for worker in (0, 2)
        )
    )
    epochs = []
    for _ in range(2):
        mine, theirs = [*alone], [*helped]
        assert len(mine) == len(theirs) == len(alone) > 2
        for one, other in zip(mine, theirs):
            assert set(one.columns) == set(other.columns)
            assert all(torch.equal(one[name], other[name]) for name in one)
        epochs.append(torch.cat([batch[TARGET_IDS].flatten() for batch in mine]))
    assert not torch.equal(*epochs)
    next(iter(helped))  # broken off: the next epoch begins from its own plan all the same
    next(iter(alone))
    assert torch.equal(next(iter(helped))[TARGET_IDS], next(iter(alone))[TARGET_IDS])
    pickle.loads(pickle.dumps(helped))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("worker", [0, 2])
def test_batches_for_a_gpu_wait_in_pinned_memory(world, worker):
    config = config_of("KuaiFormer", world, worker=worker)
    train, *_ = data_preparation(config, create_dataset(config))
    (batch, *_) = [*train]
    assert all(batch[name].is_pinned() for name in batch)
    assert all(torch.equal(batch.to("cuda")[name].cpu(), batch[name]) for name in batch)
