"""Pre-split files: what each split may train on and see, against plain loops over the files' rows."""

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import run_recbole

import recbole_kuaiformer  # noqa: F401
from recbole_kuaiformer.data.dataset import TARGET_IDS, TARGET_UNSEEN, DataError
from recbole_kuaiformer.data.history import past_items
from tests import worlds

HEADER = "user_id:token\titem_id:token\ttimestamp:float"
LISTS = "user_id:token\titem_id:token\titem_id_list:token_seq"
PARTS = ("train", "valid", "test")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)


def write(folder, rows_of, *, header):
    (folder / "pre").mkdir(parents=True)
    for part, rows in rows_of.items():
        lines = [header, *("\t".join(map(str, row)) for row in rows)]
        (folder / "pre" / f"pre.{part}.inter").write_text("\n".join(lines) + "\n")
    return str(folder)


def config_of(path, **more):
    return worlds.small(path, "pre", **{"benchmark_filename": [*PARTS], **more})


def prepared(path, **more):
    config = Config("KuaiFormer", "pre", config_dict=config_of(path, **more))
    return data_preparation(config, create_dataset(config))


def plain(seed=4):
    """Rows of three files, held-out ones before and after training rows of the same user."""
    rng = np.random.default_rng(seed)
    rows_of = {part: [] for part in PARTS}
    for user in range(19):
        for place in range(int(rng.integers(2, 13))):
            part = PARTS[rng.choice(3, p=[0.6, 0.2, 0.2])]
            rows_of[part].append((f"u{user}", f"i{rng.integers(29)}", 978300000 + 7 * place))
    return {part: [rows[n] for n in rng.permutation(len(rows))] for part, rows in rows_of.items()}


def names(dataset, ids):
    return [*dataset.id2token("item_id", np.array(ids, dtype=int))]


def shown(dataset):
    """(user, target, history) of each row of a split."""
    batch = dataset[torch.arange(len(dataset))]
    for user, item, history, n in zip(
        batch["user_id"].tolist(), batch["item_id"].tolist(), batch["item_id_list"], batch["item_length"]
    ):
        yield str(dataset.id2token("user_id", user)), names(dataset, [item])[0], names(dataset, history[:n])


def expected(rows_of, part, *, visible):
    for user, item, time in rows_of[part]:
        before = sorted((t, i) for name in visible for u, i, t in rows_of[name] if u == user and t < time)
        if before:
            yield user, item, [i for _, i in before][-16:]


def test_each_file_is_a_split_and_training_never_sees_what_is_held_out(tmp_path):
    rows_of = plain()
    train, valid, test = prepared(write(tmp_path / "data", rows_of, header=HEADER))
    right = sorted(expected(rows_of, "train", visible=("train",)))
    assert sorted(shown(train.dataset)) == right
    assert right != sorted(expected(rows_of, "train", visible=PARTS)), "nothing was held out before"
    for loader, part in ((valid, "valid"), (test, "test")):
        assert sorted(shown(loader.dataset)) == sorted(expected(rows_of, part, visible=PARTS))
    seen = []
    for batch in train:
        for user, ids, hidden, history, n in zip(
            batch["user_id"].tolist(), batch[TARGET_IDS], batch[TARGET_UNSEEN], batch["item_id_list"],
            batch["item_length"].tolist(),
        ):  # fmt: skip
            for item, unseen in zip(ids.tolist(), hidden.tolist()):
                if item:
                    before = names(train.dataset, history[: n - unseen])
                    user_name = str(train.dataset.id2token("user_id", user))
                    seen.append((user_name, names(train.dataset, [item])[0], before))
    assert sorted(seen) == right


def test_past_items_of_an_evaluation_are_everything_before(tmp_path):
    rows_of = plain()
    _, valid, _ = prepared(
        write(tmp_path / "data", rows_of, header=HEADER), MAX_ITEM_LIST_LENGTH=2, compression_groups=[]
    )
    dataset = valid.dataset
    places, items = past_items(dataset, dataset.inter_feat["log_row"].numpy())
    whole = [names(dataset, items[places == row]) for row in range(len(dataset))]
    cut = [history for _, _, history in shown(dataset)]
    assert [history[-2:] for history in whole] == cut
    assert max(map(len, whole)) > 2


def augmented():
    rng = np.random.default_rng(8)
    rows_of = {}
    for part, n_rows in zip(PARTS, (40, 11, 13)):
        rows_of[part] = [
            (
                f"u{rng.integers(9)}",
                f"i{rng.integers(23)}",
                " ".join(f"i{n}" for n in rng.integers(0, 23, length)),
            )
            for length in rng.integers(0, 21, n_rows)
        ]
    return rows_of


def test_rows_that_list_their_history_have_exactly_that(tmp_path):
    rows_of = augmented()
    path = write(tmp_path / "data", rows_of, header=LISTS)
    loaders = prepared(path, alias_of_item_id=["item_id_list"])
    for loader, part in zip(loaders, PARTS):
        rows = [(u, i, h.split()) for u, i, h in rows_of[part] if h]
        assert [*shown(loader.dataset)] == [(u, i, history[-16:]) for u, i, history in rows]
        dataset = loader.dataset
        places, items = past_items(dataset, dataset.inter_feat["log_row"].numpy())
        assert [names(dataset, items[places == row]) for row in range(len(rows))] == [h for _, _, h in rows]
    train = loaders[0]
    targets = torch.cat([batch[TARGET_IDS].flatten() for batch in train])
    assert sorted(targets.tolist()) == sorted(train.dataset.inter_feat["item_id"].tolist())


@pytest.mark.parametrize("kind", ["plain", "augmented"])
@pytest.mark.parametrize("history", ["kept", "masked"])
def test_a_model_trains_and_is_ranked(tmp_path, kind, history):
    rows_of, header = (plain(), HEADER) if kind == "plain" else (augmented(), LISTS)
    path = write(tmp_path / "data", rows_of, header=header)
    more = {"alias_of_item_id": ["item_id_list"]} if kind == "augmented" else {}
    result = run_recbole(
        model="KuaiFormer",
        dataset="pre",
        config_dict=config_of(path, epochs=1, evaluate_history=history, mask_known_positives=True, **more),
    )
    assert np.isfinite([*result["test_result"].values()]).all()


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        ({}, {"benchmark_filename": ["train", "test"]}, "benchmark_filename: three names are needed"),
        ({}, {"benchmark_filename": ["train", "valid", "tset"]}, r"pre\.tset\.inter: no such file"),
        ({}, {"rm_dup_inter": "first"}, "rm_dup_inter: 'first' is not applied to pre-split files"),
        ({}, {"user_inter_num_interval": "[5,inf)"}, "user_inter_num_interval: .* is not applied"),
        ({"test": []}, {}, r"pre\.test\.inter: the file is empty"),
        ({"test": [("u1", "", 3.0)]}, {}, "1 rows of the pre-split files have no 'item_id'"),
        ({"test": [("u1", "i1", "")]}, {}, "1 interactions have no 'timestamp'"),
        ({"test": [("nobody", "i1", 5)]}, {}, r"pre\.test\.inter: no row has a history"),
    ],
)
def test_what_cannot_be_done_with_plain_files_is_refused(tmp_path, change, more, message):
    path = write(tmp_path / "data", plain() | change, header=HEADER)
    with pytest.raises(DataError, match=message):
        prepared(path, **more)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "alias_of_item_id: must list 'item_id_list'"),
        (
            {"alias_of_item_id": ["item_id_list"], "attributes": {"time_gap": None}},
            "'time_gap' is of the interactions, but a history given as 'item_id_list' tells the items alone",
        ),
        (
            {"alias_of_item_id": ["item_id_list"], "mask_history": True},
            "mask_history: where each row has a list 'item_id_list' a user's rows have no order",
        ),
        (
            {"alias_of_item_id": ["item_id_list"], "use_times": True},
            "use_times: a history given as 'item_id_list' has no times; set use_times to False",
        ),
        (
            {
                "alias_of_item_id": ["item_id_list"],
                "request_gap": {"n_buckets": 4, "maximum": 9.0, "scale": "log"},
            },
            "request_gap: a history given as 'item_id_list' has no times; set request_gap to ~",
        ),
        (
            {"alias_of_item_id": ["item_id_list"], "load_col": {"inter": ["user_id", "item_id"]}},
            "load_col: inter must list 'item_id_list'",
        ),
    ],
)
def test_what_cannot_be_done_with_listed_histories_is_refused(tmp_path, more, message):
    path = write(tmp_path / "data", augmented(), header=LISTS)
    with pytest.raises(DataError, match=message):
        prepared(path, **more)


def test_files_of_different_columns_are_refused(tmp_path):
    path = write(tmp_path / "data", plain(), header=HEADER)
    file = tmp_path / "data" / "pre" / "pre.test.inter"
    file.write_text("user_id:token\titem_id:token\ttimestamp:float\tx:token\nu1\ti1\t3\ty\n")
    with pytest.raises(DataError, match=r"pre\.test\.inter: columns .* differ from"):
        prepared(path)
