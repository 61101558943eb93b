"""The evaluator: the numbers of RecBole's own ranking, for every model, metric and reading."""

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.general_recommender import BPR
from recbole.quick_start import load_data_and_model, run_recbole
from recbole.utils import get_model, get_trainer, init_seed

from recbole_kuaiformer.evaluation import collector, ranking
from recbole_kuaiformer.evaluation.settings import EvaluationSettings
from recbole_kuaiformer.index.base import TopK
from recbole_kuaiformer.models.dot_product import VECTORS, ScoreMismatchError, check_scores
from recbole_kuaiformer.plugin import MODELS
from recbole_kuaiformer.settings import SettingsError
from tests import worlds

EVERY_METRIC = [
    "Hit", "Recall", "MRR", "NDCG", "MAP", "Precision", "GAUC", "ItemCoverage", "AveragePopularity",
    "ShannonEntropy", "GiniIndex", "TailPercentage",
]  # fmt: skip
WITHOUT_LISTS = ["Hit", "Recall", "MRR", "NDCG", "MAP", "Precision", "GAUC"]
NEGATIVE = {"distribution": "uniform", "sample_num": 1}
LEAVE_ONE_OUT = {"split": {"LS": "valid_and_test"}, "order": "TO"}
ALL_MODELS = sorted({*VECTORS, *MODELS})


def trainer_of(name, dataset, /, **more):
    """A trainer with an untrained model, and the data."""
    given = {
        "show_progress": False,
        "state": "INFO",
        "seed": 3,
        "epochs": 1,
        "valid_metric": "Recall@5",
        **more,
    }
    config = Config(name, dataset, config_dict={"topk": [5, 20, 60], **given})
    init_seed(config["seed"], config["reproducibility"])
    train, valid, test = data_preparation(config, create_dataset(config))
    model = get_model(name)(config, train.dataset)
    return again(model, config, train), model, config, (train, valid, test)


def again(model, config, train, **more):
    for key, value in more.items():
        config[key] = value
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    trainer.eval_collector.data_collect(train)
    return trainer


def twins(model, config, train, data, **more):
    """The result by an index and by RecBole's matrix."""
    by_index = again(model, config, train, evaluator="faiss", **more).evaluate(data, load_best_model=False)
    return by_index, again(model, config, train, evaluator="recbole").evaluate(data, load_best_model=False)


def tie_items(model):
    """Each second item becomes a copy of the one before it: equal scores everywhere."""
    for path in ("item_embedding.weight", "item_emb.weight", "tokens.ids.weight", "output_bias"):
        try:
            table = model.get_parameter(path)
        except AttributeError:
            continue
        with torch.no_grad():
            n = len(table) // 2 * 2
            table[1 : n - 1 : 2] = table[2:n:2]


def _few_users(name):
    few = {"user_inter_num_interval": "[20,24]", "metrics": EVERY_METRIC}
    return few | (worlds.small_for(name, None, None, topk=[5, 20, 60]) if name in MODELS else {})


def _without_data(options):
    return {key: value for key, value in options.items() if key not in ("data_path", "dataset")}


@pytest.mark.parametrize("ties", [False, True], ids=["real", "ties"])
@pytest.mark.parametrize("name", ALL_MODELS)
def test_every_metric_of_every_model_is_recboles(tmp_path, monkeypatch, name, ties):
    worlds.at_home(monkeypatch, tmp_path)
    options = _without_data(_few_users(name))
    _, model, config, (train, _, test) = trainer_of(name, "ml-100k", report_both=True, **options)
    if ties:
        tie_items(model)
    for index in ("torch", "faiss_cpu"):
        by_index, by_matrix = twins(model, config, train, test, index=index)
        assert by_index == by_matrix
        assert len(by_index) == (2 if name in {*MODELS} | _sequential() else 1) * (11 * 3 + 1)


def _sequential():
    return {*VECTORS} - {"BPR", "LightGCN", "SimpleX"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL_MODELS)
def test_all_of_ml_100k_after_an_epoch(tmp_path, monkeypatch, name):
    worlds.at_home(monkeypatch, tmp_path)
    options = {"metrics": EVERY_METRIC, "user_inter_num_interval": "[20,60]", "topk": [10, 50, 200]}
    trainer, model, config, (train, _, test) = trainer_of(name, "ml-100k", report_both=True, **options)
    trainer.fit(train, None, saved=False)
    by_index, by_matrix = twins(model, config, train, test)
    # Of a trained model two scores of some user may differ in the last bit only; products of another shape
    # then rank them otherwise (KuaiFormer: averagepopularity@10 of 112.2831 beside 112.2753).
    assert by_index == pytest.approx(by_matrix, rel=1e-3, abs=2e-4)


@pytest.mark.parametrize("ties", [False, True], ids=["real", "ties"])
@pytest.mark.parametrize("name", ["SASRec", "KuaiFormer", "BPR"])
def test_deep_cut_offs_by_counting_are_recboles(tmp_path, monkeypatch, name, ties):
    worlds.at_home(monkeypatch, tmp_path)
    options = _without_data(_few_users(name)) | {
        "metrics": WITHOUT_LISTS,
        "topk": [10, 100, 300],
        "rank_from": 300,
    }
    _, model, config, (train, _, test) = trainer_of(name, "ml-100k", report_both=True, **options)
    if ties:
        tie_items(model)
    counted = []
    count = collector.count_above
    monkeypatch.setattr(collector, "count_above", lambda *a, **k: counted.append(1) or count(*a, **k))
    monkeypatch.setattr(
        collector, "retrieve_readings", _never if name != "BPR" else collector.retrieve_readings
    )
    by_index, by_matrix = twins(model, config, train, test)
    if name == "BPR":  # several positives a user: lists are searched, counting serves GAUC alone
        assert counted
    assert by_index == by_matrix


def _never(*args, **kwargs):
    raise AssertionError("lists were searched")


# ---- the masked reading ------------------------------------------------------------------------------


@pytest.fixture
def repeats(tmp_path, monkeypatch):
    """Users who come back to items they had, the target too; histories longer than the model reads."""
    worlds.at_home(monkeypatch, tmp_path)
    rng = np.random.default_rng(5)
    rows = []
    for user in range(40):
        items = rng.integers(31, size=int(rng.integers(3, 25)))
        if user % 4 == 0:
            items[-1] = items[0]
        rows += [(f"u{user}", f"i{item}", 1_700_000_000 + t) for t, item in enumerate(items)]
    return worlds.write(tmp_path / "data", "again", rows), rows


@pytest.mark.parametrize("evaluator", ["faiss", "recbole"])
@pytest.mark.parametrize("name", ["KuaiFormer", "SASRec"])
@pytest.mark.parametrize("split", [{"LS": "valid_and_test"}, {"RS": [0.6, 0.2, 0.2]}], ids=str)
def test_masked_leaves_out_all_a_user_had_and_never_the_target(repeats, name, evaluator, split):
    """Hits counted by loops over the file."""
    path, rows = repeats
    options = worlds.small(path, "again") if name == "KuaiFormer" else {"data_path": path}
    options = {**options, "MAX_ITEM_LIST_LENGTH": 4, "compression_groups": [], "recent_length": 4}
    options |= {
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "metrics": ["Recall"],
        "topk": [3],
    }
    options |= {"valid_metric": "Recall@3", "evaluate_history": "masked", "report_both": True}
    options |= {"eval_args": {"split": split, "order": "TO", "group_by": "user", "mode": "full"}}
    options |= {"evaluator": evaluator, "window_targets": 2}
    if name == "SASRec":
        for key in ("compression_groups", "recent_length", "window_targets"):
            del options[key]
    trainer, model, _, (_, _, test) = trainer_of(name, "again", **options)
    result = trainer.evaluate(test, load_best_model=False)

    histories = defaultdict(list)
    for user, item, _ in rows:
        histories[user].append(item)
    dataset, hits = test.dataset, {"masked": 0, "kept": 0}
    for row in range(len(dataset)):
        one = dataset[torch.tensor([row])]
        user = dataset.id2token("user_id", int(one["user_id"]))
        target = dataset.id2token("item_id", int(one["item_id"]))
        seen = _seen_before(histories[user], dataset, one, target)
        with torch.no_grad():
            scores = model.full_sort_predict(one)[0]
        ranked = [dataset.id2token("item_id", int(i)) for i in scores[1:].argsort(descending=True) + 1]
        hits["kept"] += target in ranked[:3]
        hits["masked"] += target in [item for item in ranked if item not in seen or item == target][:3]
    assert result["recall@3"] == round(hits["masked"] / len(dataset), 4)
    assert result["recall@3_kept"] == round(hits["kept"] / len(dataset), 4)
    assert hits["masked"] > hits["kept"]


def _seen_before(history, dataset, one, target):
    """Everything before the row's interaction; found by the last four items, which the row carries."""
    length = int(one["item_length"][0])
    recent = [*dataset.id2token("item_id", one["item_id_list"][0, :length])]
    ends = [
        t for t in range(1, len(history))
        if history[t] == target and history[max(0, t - length) : t] == recent
    ]  # fmt: skip
    assert ends
    return {*history[: ends[-1]]}


def test_the_history_of_presplit_files_is_what_they_hold(tmp_path, monkeypatch, caplog):
    worlds.at_home(monkeypatch, tmp_path)
    folder = tmp_path / "data" / "split"
    folder.mkdir(parents=True)
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    for part in ("train", "valid", "test"):
        lines = [f"u{u}\ti{u % 5} i{(u + 1) % 5}\ti{(u + 2) % 5}\n" for u in range(12)]
        (folder / f"split.{part}.inter").write_text(header + "".join(lines))
    options = {"benchmark_filename": ["train", "valid", "test"], "alias_of_item_id": ["item_id_list"]}
    options |= {
        "load_col": {"inter": ["user_id", "item_id_list", "item_id"]},
        "topk": [3],
        "metrics": ["Recall"],
    }
    options |= {"data_path": str(tmp_path / "data"), "evaluate_history": "masked", "valid_metric": "Recall@3"}
    trainer, _, _, (_, _, test) = trainer_of("SASRec", "split", evaluator="faiss", **options)
    with caplog.at_level("INFO"):
        assert trainer.evaluate(test, load_best_model=False) == {"recall@3": 1.0}  # three items are left
    assert "masked leaves out the last MAX_ITEM_LIST_LENGTH items alone" in caplog.text


# ---- what cannot be served ---------------------------------------------------------------------------


@pytest.fixture
def cyclic(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    columns = {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "topk": [5, 20]}
    return {"data_path": worlds.cyclic(tmp_path / "data", n_users=30), **columns}


@pytest.mark.parametrize(
    ("name", "more", "why"),
    [
        ("NeuMF", {}, "NeuMF: its score is not known to be a dot product"),
        ("TransRec", {"train_neg_sample_args": NEGATIVE}, "TransRec: its score"),
        ("BPR", {"metrics": ["AUC"], "valid_metric": "AUC"}, "they need the score of every row"),
        ("SASRec", {"eval_args": {**LEAVE_ONE_OUT, "mode": "uni10"}}, "sampled items"),
    ],
    ids=["NeuMF", "TransRec", "AUC", "sampled"],
)  # fmt: skip
def test_what_no_index_serves_goes_recboles_way_with_one_warning(cyclic, caplog, name, more, why):
    if "AUC" in more.get("metrics", ()):
        pytest.importorskip("sklearn")
    config = {**cyclic, "epochs": 1, "show_progress": False, "valid_metric": "Recall@5", **more}
    if name == "BPR":
        config |= {"threshold": {"timestamp": 1_700_000_500}, "LABEL_FIELD": "label"}
        config["eval_args"] = {"split": {"RS": [8, 1, 1]}, "order": "RO", "group_by": None, "mode": "labeled"}
    with caplog.at_level("WARNING"):
        result = run_recbole(model=name, dataset="cyclic", config_dict={**config, "evaluator": "faiss"})
    warnings = [r.getMessage() for r in caplog.records if "RecBole's way" in r.getMessage()]
    assert len(warnings) == 1
    assert why in warnings[0]
    assert (
        result["test_result"] == run_recbole(model=name, dataset="cyclic", config_dict=config)["test_result"]
    )
    with pytest.raises(SettingsError, match=r"evaluator: faiss cannot serve this run: .*strict: True"):
        run_recbole(
            model=name, dataset="cyclic", config_dict={**config, "evaluator": "faiss", "strict": True}
        )


def test_vectors_that_are_not_the_models_are_an_error(cyclic, monkeypatch):
    trainer, model, _, (_, _, test) = trainer_of("SASRec", "cyclic", evaluator="faiss", **cyclic)
    with torch.no_grad():
        model.item_embedding.weight[3] *= 2000  # scores of one item dwarf the bias of the others
    biased = model.full_sort_predict
    monkeypatch.setattr(model, "full_sort_predict", lambda batch: biased(batch) + torch.arange(38) / 30)
    with pytest.raises(
        ScoreMismatchError, match="SASRec: dot products .* an output bias, a normalisation or"
    ):
        trainer.evaluate(test, load_best_model=False)
    monkeypatch.setattr(model, "full_sort_predict", lambda batch: torch.zeros(len(batch), 39))
    with pytest.raises(ScoreMismatchError, match="scores 39 items, but it has 38 item vectors"):
        trainer.evaluate(test, load_best_model=False)


def test_vectors_that_have_decayed_to_nearly_nothing_are_no_mismatch():
    torch.manual_seed(0)
    interests, items = (torch.nn.functional.normalize(torch.randn(n, 64), dim=-1) for n in (200, 30))
    items[1:20] *= 1e-24  # the squares of their parts are 0 in float32
    exact = (interests.double() @ items.double().T).float()
    exact[:, 0] = -torch.inf  # nobody ranks the padding
    model = SimpleNamespace(full_sort_predict=lambda interaction: exact)
    assert (exact[:, 1:20] != (interests @ items.T)[:, 1:20]).any()  # rounded in another way
    check_scores(model, None, interests=interests[:, None], items=items)
    exact[3, 25] += 1e-3
    with pytest.raises(ScoreMismatchError, match="differ from full_sort_predict by up to 0.001 "):
        check_scores(model, None, interests=interests[:, None], items=items)


class OwnModel(BPR):
    """A model of somebody's own: two methods make it served."""

    def user_vectors(self, interaction):
        return self.get_user_embedding(interaction[self.USER_ID])[:, None]

    def item_vectors(self):
        return self.item_embedding.weight


class Renamed(BPR):
    """Overrides nothing, but might: not served by the name of its parent."""


def test_a_model_of_ones_own_with_two_methods_is_served(cyclic):
    _, _, config, (train, _, test) = trainer_of("BPR", "cyclic", **cyclic)
    by_index, by_matrix = twins(OwnModel(config, train.dataset), config, train, test)
    assert by_index == by_matrix
    assert again(Renamed(config, train.dataset), config, train, evaluator="faiss")._vectors is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"topk": [5, 38]}, r"topk: \[5, 38\] exceeds the catalogue's 37 items"),
        ({"index": "fais"}, "index: 'fais' is not known"),
        ({"evaluator": "fiass"}, r"evaluator: 'fiass' is not known \(did you mean 'faiss'\?\)"),
        ({"evaluate_history": "maskd"}, r"evaluate_history: 'maskd' is not known .did you"),
        ({"index": "torch", "index_factory": "HNSW8"}, "index_factory: 'HNSW8' needs FAISS"),
        ({"index_factory": "HSNW8"}, "index_factory: FAISS cannot build 'HSNW8'"),
        ({"index_factory": "IVF4,Flat", "index_parameters": "nprobe"}, "index_parameters: 'nprobe' does not"),
        ({"index_parameters": "nprobe=4"}, "index_parameters: 'nprobe=4' is for approx"),
        ({"index_spread": "shards", "index": "torch"}, "shards are over GPUs, but index is torch"),
        ({"index_spread": "shards", "use_gpu": False}, "shards are over GPUs, but the model is on"),
        ({"rank_from": 0}, "rank_from: must be at least 1, or ~ for never, got 0"),
        ({"index": "faiss_gpu", "use_gpu": False}, "no GPU support|sees no GPU|model on a GPU"),
        (
            {"report_both": True, "eval_args": {**LEAVE_ONE_OUT, "mode": "uni5"}},
            "masked is a reading of the full ranking; set eval_args mode to full",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_are_named(cyclic, more, message):
    def evaluate():
        options = {**cyclic, "evaluator": "faiss", **more}
        trainer, _, _, (_, _, test) = trainer_of("SASRec", "cyclic", **options)
        trainer.evaluate(test, load_best_model=False)

    with pytest.raises(SettingsError, match=message):
        evaluate()


def test_vectors_that_are_no_numbers_are_named(cyclic):
    trainer, model, _, (_, _, test) = trainer_of("SASRec", "cyclic", evaluator="faiss", **cyclic)
    with torch.no_grad():
        model.item_embedding.weight[3] = torch.nan
    with pytest.raises((SettingsError, ScoreMismatchError), match=r"NaN|nan"):
        trainer.evaluate(test, load_best_model=False)


# ---- how it goes about it ----------------------------------------------------------------------------


def test_the_index_is_of_the_weights_being_evaluated_and_gone_afterwards(cyclic):
    trainer, model, _, (_, _, test) = trainer_of("SASRec", "cyclic", evaluator="faiss", **cyclic)
    before = trainer.evaluate(test, load_best_model=False)
    assert trainer.eval_collector.index is None
    with torch.no_grad():
        model.item_embedding.weight[1:] = model.item_embedding.weight[1:].flip(0)
    assert trainer.evaluate(test, load_best_model=False) != before


def test_users_are_searched_together_however_small_the_batches(cyclic, monkeypatch):
    monkeypatch.setattr(collector, "ROWS_AT_ONCE", 12)
    trainer, model, config, (train, _, test) = trainer_of(
        "BPR", "cyclic", evaluator="faiss", eval_batch_size=1, **cyclic
    )
    searched = []
    retrieve = collector.retrieve_readings

    def counting(index, interests, **more):
        searched.append(len(interests))
        return retrieve(index, interests, **more)

    monkeypatch.setattr(collector, "retrieve_readings", counting)
    result = trainer.evaluate(test, load_best_model=False)
    assert searched == [12, 12, 6]
    assert result == again(model, config, train, evaluator="recbole").evaluate(test, load_best_model=False)


def test_a_broken_off_evaluation_leaves_nothing_behind(cyclic, monkeypatch):
    trainer, _, _, (_, _, test) = trainer_of(
        "SASRec", "cyclic", evaluator="faiss", eval_batch_size=7, **cyclic
    )
    want = trainer.evaluate(test, load_best_model=False)
    monkeypatch.setattr(collector, "ROWS_AT_ONCE", 7)
    calls = []

    def broken(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return retrieve(*args, **kwargs)

    retrieve = collector.retrieve_readings
    with monkeypatch.context() as patch:
        patch.setattr(collector, "retrieve_readings", broken)
        with pytest.raises(KeyboardInterrupt):
            trainer.evaluate(test, load_best_model=False)
    assert trainer.evaluate(test, load_best_model=False) == want


def test_an_approximate_index_carries_its_recall_and_is_never_called_exact(tmp_path, monkeypatch, caplog):
    worlds.at_home(monkeypatch, tmp_path)
    options = {"user_inter_num_interval": "[20,40]", "metrics": ["Recall"], "evaluator": "faiss"}
    trainer, model, config, (train, _, test) = trainer_of("SASRec", "ml-100k", **options)
    exact = trainer.evaluate(test, load_best_model=False)
    more = {"index_factory": "IVF32,Flat", "index_parameters": "nprobe=1"}
    with caplog.at_level("INFO"):
        result = again(model, config, train, **more).evaluate(test, load_best_model=False)
    assert "exact" not in caplog.text
    assert "approximate" in caplog.text
    recalls = [result[f"index_recall@{k}"] for k in (5, 20, 60)]
    assert all(0.02 < recall < 0.98 for recall in recalls)
    assert not any("index_recall" in key for key in exact)
    whole = again(model, config, train, index_parameters="nprobe=32").evaluate(test, load_best_model=False)
    assert [whole[f"index_recall@{k}"] for k in (5, 20, 60)] == [1.0, 1.0, 1.0]
    assert {key: value for key, value in whole.items() if "index" not in key} == exact


def test_index_recall_counts_what_both_lists_hold_up_to_each_k(cyclic):
    """Found lists made by hand against the exact ones: a swap of places counts from the deeper one on."""
    _, _, config, _ = trainer_of("SASRec", "cyclic", **{**cyclic, "topk": [1, 2, 3, 4]})
    items = torch.zeros(9, 1)
    items[:, 0] = torch.arange(9.0)  # exact: 8 7 6 5

    class Made:
        n_items, is_exact, max_k, description = 8, False, None, "made"

        def search(self, queries, *, k):
            ids = torch.tensor([[7, 8, 3, 6], [8, 0, 0, 0]])
            return TopK(ids, torch.where(ids > 0, 10.0 - torch.arange(4), -torch.inf))

    made = collector.RankingCollector(config, readings=("kept",), rank_from=None)
    made.begin(Made(), items)
    users = collector.UserBatch(torch.ones(2, 1, 1), None, {})
    made.eval_batch_collect(users, None, torch.arange(2), torch.ones(2, dtype=torch.long))
    made.get_data_struct()
    want = {
        "index_recall@1": 1 / 2,
        "index_recall@2": 3 / 4,
        "index_recall@3": 3 / 6,
        "index_recall@4": 4 / 8,
    }
    assert made.index_recall() == pytest.approx(want, abs=1e-4)


def test_gaps_of_an_approximate_index_are_no_items_to_coverage(tmp_path, monkeypatch, caplog):
    worlds.at_home(monkeypatch, tmp_path)
    options = {
        "user_inter_num_interval": "[20,30]",
        "metrics": ["ItemCoverage", "TailPercentage", "GiniIndex"],
    }
    options |= {"evaluator": "faiss", "valid_metric": "ItemCoverage@5", "topk": [5, 200]}
    trainer, model, config, (train, _, test) = trainer_of("SASRec", "ml-100k", **options)
    trainer.eval_collector.data_collect(train)
    exact = trainer.evaluate(test, load_best_model=False)
    more = {"index_factory": "IVF64,Flat", "index_parameters": "nprobe:1"}
    with caplog.at_level("WARNING"):
        result = again(model, config, train, **more).evaluate(test, load_best_model=False)
    assert sum("the lists of some users are short" in r.getMessage() for r in caplog.records) == 1
    assert result["index_recall@200"] < 0.5
    for key in ("tailpercentage@200", "giniindex@200"):
        assert result[key] == pytest.approx(
            exact[key], rel=0.3
        )  # gaps counted as items made these .004 and .97


def test_the_log_says_once_which_index_why_and_which_reading(cyclic, caplog):
    trainer, _, _, (train, valid, test) = trainer_of("SASRec", "cyclic", evaluator="faiss", **cyclic)
    with caplog.at_level("INFO"):
        trainer.fit(train, valid, saved=False)
        trainer.evaluate(test, load_best_model=False)
    lines = [r.getMessage() for r in caplog.records if "index:" in r.getMessage()]
    assert lines == ["index: faiss_cpu Flat, exact (the model is on the CPU); history: kept"]


@pytest.mark.parametrize("name", ["BPR", "KuaiFormer"])
def test_checkpoints_without_our_keys_are_evaluated_as_ever(cyclic, name):
    """Written by RecBole alone, or by an earlier version of this package."""
    more = _without_data(worlds.small(None, None)) if name == "KuaiFormer" else {}
    trainer, _, config, (train, _, _) = trainer_of(name, "cyclic", **{**more, **cyclic})
    later = ["compression", "compression_block"] if name == "KuaiFormer" else []
    for key in [*EvaluationSettings.keys(), *later]:
        del config.final_config_dict[key]
    trainer.fit(train, None, saved=True)
    config, model, _, _, _, test = load_data_and_model(trainer.saved_model_file)
    assert config["evaluator"] == ("faiss" if name == "KuaiFormer" else "recbole")
    again = get_trainer(config["MODEL_TYPE"], name)(config, model)
    assert np.isfinite(again.evaluate(test, load_best_model=False)["recall@5"])


def test_recboles_own_evaluation_is_untouched_unless_asked_for(cyclic):
    trainer, _, _, _ = trainer_of("SASRec", "cyclic", **cyclic)
    assert not isinstance(trainer.eval_collector, collector.RankingCollector)
    assert isinstance(trainer, ranking.IndexRanking)
