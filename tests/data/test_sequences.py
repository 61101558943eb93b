"""RecBole's own sequential models on the log: field for field what its prefix table holds."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import load_data_and_model, run_recbole
from recbole.utils import get_model, init_seed
from recbole.utils.case_study import full_sort_scores, full_sort_topk

import recbole_kuaiformer  # noqa: F401
from recbole_kuaiformer.data.history import past_items
from recbole_kuaiformer.data.sequences import LoggedSequences
from recbole_kuaiformer.settings import SettingsError
from tests import worlds

HEADER = (
    "user_id:token\titem_id:token\ttimestamp:float\twatch:float\ttags:token_seq\tplace:float_seq"
    "\taction:token"
)
MODELS = ["SASRec", "GRU4Rec", "NARM", "BERT4Rec", "SINE", "SASRecF", "GRU4RecF", "DIN"]


@pytest.fixture(scope="module")
def data_path(tmp_path_factory):
    rng = np.random.default_rng(3)
    rows = []
    for user in range(23):
        for _ in range(int(rng.integers(1, 17))):
            tags = " ".join(f"t{n}" for n in rng.integers(0, 5, rng.integers(1, 4)))
            place = " ".join(f"{x:.3f}" for x in rng.random(2))
            time = 1_700_000_000 + int(rng.integers(300))
            watch = "" if rng.random() < 0.2 else f"{rng.random() * 9:.2f}"
            rows.append((f"u{user}", f"i{rng.integers(31)}", time, watch, tags, place, f"x{rng.integers(3)}"))
    items = ["item_id:token\tkind:token", *(f"i{n}\tk{n % 5}" for n in range(31))]
    return worlds.write(tmp_path_factory.mktemp("sequences"), "seq", rows, header=HEADER, items=items)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)


def config_of(model, data_path, sequences, **more):
    given = {
        "data_path": data_path, "show_progress": False, "state": "ERROR", "seed": 5, "load_col": None,
        "sequences": sequences, "MAX_ITEM_LIST_LENGTH": 6, "train_batch_size": 32, "eval_batch_size": 16,
        "epochs": 1, "topk": [5], "valid_metric": "NDCG@5", "metrics": ["Recall", "NDCG"],
        "hidden_size": 16, "embedding_size": 16, "inner_size": 16, "selected_features": ["kind"],
        "pooling_mode": "sum", "learning_rate": 0.01,
    }  # fmt: skip
    if model == "DIN":
        args = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "uni7"}
        given |= {"eval_args": args, "metrics": ["Recall"], "valid_metric": "Recall@5"}
    return {**given, **more}


def prepared(model, data_path, sequences, **more):
    config = Config(model, "seq", config_dict=config_of(model, data_path, sequences, **more))
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    assert isinstance(dataset, LoggedSequences) == (sequences == "log")
    return config, data_preparation(config, dataset)


def assert_same(mine, theirs):
    if isinstance(mine, tuple):
        for one, other in zip(mine, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(mine, torch.Tensor):
        assert torch.equal(mine, theirs)
        assert mine.dtype == theirs.dtype
    elif mine is not None:
        assert set(mine.columns) == set(theirs.columns)
        for field in theirs:
            assert mine[field].dtype == theirs[field].dtype, field
            assert torch.equal(mine[field], theirs[field]), field


@pytest.mark.parametrize("model", MODELS)
def test_every_batch_equals_the_tables(data_path, model):
    (_, log), (_, table) = (prepared(model, data_path, kind) for kind in ("log", "table"))
    for mine, theirs in zip(log, table):
        batches = []
        for loader in (mine, theirs):
            init_seed(11, True)  # BERT4Rec draws its masks, DIN its negatives
            batches.append([*loader])
        assert len(batches[0]) == len(batches[1]) > 0
        for one, other in zip(*batches):
            assert_same(one, other)


SPLITS = [
    {"split": {"LS": "valid_only"}}, {"split": {"LS": "test_only"}},
    {"split": {"RS": [0.6, 0.2, 0.2]}, "group_by": "user"},
    {"split": {"RS": [0.6, 0.2, 0.2]}, "group_by": "none"},
    pytest.param({"split": {"TS": [0.6, 0.2, 0.2]}}, marks=worlds.splits_by_time),
]  # fmt: skip


@pytest.mark.parametrize("eval_args", SPLITS, ids=str)
def test_every_split_equals_the_tables_with_filters_on(data_path, eval_args):
    args = {"group_by": "user", "order": "TO", "mode": "full", **eval_args}
    more = {
        "eval_args": args, "user_inter_num_interval": "[5,inf)", "item_inter_num_interval": "[3,12]",
        "normalize_all": True,
    }  # fmt: skip
    log, table = (
        create_dataset(Config("SASRecF", "seq", config_dict=config_of("SASRecF", data_path, kind, **more)))
        for kind in ("log", "table")
    )
    parts = [*zip(log.build(), table.build())]
    assert log.field2id_token.keys() == table.field2id_token.keys()
    for field, tokens in table.field2id_token.items():
        assert log.field2id_token[field].tolist() == tokens.tolist()
    for mine, theirs in parts:
        assert len(mine) == len(theirs)
        everything = np.arange(len(mine))
        assert_same(mine[everything], theirs[everything])
        if len(mine):
            assert (mine.inter_matrix("csr") != theirs.inter_matrix("csr")).nnz == 0
            by_value = [part.inter_matrix("csr", value_field="watch") for part in (mine, theirs)]
            assert (by_value[0] != by_value[1]).nnz == 0
            for mine_past, their_past in zip(
                past_items(mine, mine.inter_feat["log_row"].numpy()),
                past_items(theirs, theirs.inter_feat["log_row"].numpy()),
            ):
                assert np.array_equal(mine_past, their_past)


def test_no_list_is_kept(data_path):
    _, parts = prepared("SASRecF", data_path, "log")
    for part in parts:
        assert not [name for name in part.dataset.inter_feat if name.endswith("_list")]
        assert part.dataset.log is parts[0].dataset.log


@pytest.mark.parametrize("model", ["SASRec", "BERT4Rec", "GRU4RecF"])
def test_an_epoch_and_its_evaluation_give_the_same_result(data_path, model):
    more = {"evaluator": "faiss", "evaluate_history": "masked", "index": "torch"} if model == "SASRec" else {}
    results = [
        run_recbole(model=model, dataset="seq", config_dict=config_of(model, data_path, kind, **more))
        for kind in ("log", "table")
    ]
    assert results[0] == results[1]


def test_a_saved_dataset_is_loaded_again_but_not_for_the_other_kind(data_path):
    create_dataset(
        Config("SASRec", "seq", config_dict=config_of("SASRec", data_path, "log", save_dataset=True))
    )
    assert [file.name for file in Path("saved").iterdir()] == ["seq-SequentialDataset.pth"]
    _, (again, *_) = prepared("SASRec", data_path, "log")  # from the file
    _, (fresh, *_) = prepared("SASRec", data_path, "log", dataset_save_path="elsewhere")
    assert_same(again.dataset[np.arange(9)], fresh.dataset[np.arange(9)])
    prepared("SASRec", data_path, "table")
    clone = pickle.loads(pickle.dumps(fresh.dataset))
    assert_same(clone[np.arange(9)], fresh.dataset[np.arange(9)])


def test_a_checkpoint_brings_model_and_data_back(data_path):
    given = config_of("SASRec", data_path, "log", checkpoint_dir="saved")
    config = Config("SASRec", "seq", config_dict=given)
    init_seed(1, True)
    loaders = data_preparation(config, create_dataset(config))
    model = get_model("SASRec")(config, loaders[0].dataset)
    state = {"config": config, "state_dict": model.state_dict(), "other_parameter": None}
    torch.save(state, "model.pth")
    _, again, dataset, _, _, test = load_data_and_model("model.pth")
    assert isinstance(dataset, LoggedSequences)
    users = test.dataset.inter_feat["user_id"][:4].numpy()
    again.eval()
    model.eval()
    scores = full_sort_scores(users, again, test, device=config["device"])
    assert torch.equal(scores, full_sort_scores(users, model, loaders[2], device=config["device"]))
    best, _ = full_sort_topk(users, again, test, k=3, device=config["device"])
    assert torch.equal(best, scores.topk(3).values)


@pytest.mark.parametrize(
    ("model", "more", "why"),
    [
        ("DIEN", {}, "DIEN has a dataset of its own"),
        ("FEARec", {}, "FEARec looks rows up in the table itself"),
        ("BPR", {}, "BPR is no sequential model"),
        ("SASRec", {"benchmark_filename": ["a", "b", "c"]}, "SASRec is given pre-split files"),
    ],
)
def test_what_cannot_be_on_the_log_is_refused(data_path, model, more, why):
    with pytest.raises(SettingsError, match=f"sequences: log is not possible, since {why}"):
        Config(model, "seq", config_dict=config_of(model, data_path, "log", **more))


def test_a_way_that_is_not_known_is_refused(data_path):
    with pytest.raises(SettingsError, match="sequences: 'tabel' is not known"):
        Config("SASRec", "seq", config_dict=config_of("SASRec", data_path, "tabel"))
