"""Settings: every key checked before any data is read, each error names the key."""

import numpy as np
import pytest
from recbole.config import Config

from recbole_kuaiformer.config import AttributeSettings
from recbole_kuaiformer.settings import SettingsError
from tests import worlds


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_interest": 2}, r"n_interest: unknown key \(did you mean 'n_interests'\?\)"),
        ({"temprature": 0.1}, r"temprature: unknown key \(did you mean 'temperature'\?\)"),
        ({"my_own_tag": 1}, r"my_own_tag: unknown key; name keys of your own in extra_keys"),
        ({"n_interests": 0}, "n_interests: must be at least 1, got 0"),
        ({"temperature": 0}, "temperature: must be positive, got 0"),
        ({"temperature": "warm"}, "temperature: must be float, got 'warm'"),
        ({"n_heads": 3}, "n_heads: must be a divisor of hidden_size"),
        ({"n_layers": True}, "n_layers: must be int, got True"),
        (
            {"compression_groups": [4], "recent_length": 8},
            r"\[4\] and recent_length 8 add up to 12 items, but MAX_ITEM",
        ),
        ({"compression_groups": [4, 0]}, "compression_groups: must be sizes of at least 1"),
        ({"recent_length": 2, "compression_groups": [7, 7]}, "window_targets: 4 targets of a window"),
        ({"compression": "geometrc"}, r"compression: 'geometrc' is not known \(did you mean 'geometric'\?\)"),
        (
            {"compression": "geometric"},
            r"compression_groups: \[4, 4\] is not read with compression: geometric",
        ),
        (
            {"compression_end": "newest"},
            "window_targets: 4 targets share newest items, which compression_end",
        ),
        (
            {"compression_end": "newest", "query_init": "recent"},
            "query_init: recent reads the newest items, which compression_end: newest compresses",
        ),
        ({"compression_end": "new"}, "compression_end: 'new' is not known; known: newest, oldest"),
        ({"query_initializer_range": 0.0}, "query_initializer_range: must be positive, or ~, got 0.0"),
        ({"interest_separation": -1.0}, "interest_separation: must be at least 0, got -1.0"),
        ({"compression_block": 0}, "compression_block: must be at least 1, got 0"),
        ({"negatives": "in_bach"}, r"negatives: 'in_bach' is not known \(did you mean 'in_batch'\?\)"),
        (
            {"deduplicate_candidates": True, "negatives": "all"},
            "deduplicate_candidates: needs negatives: in_batch",
        ),
        ({"label_smoothing": 1.0}, r"label_smoothing: must be in \[0, 1\)"),
        ({"streaming_hashes": 2}, "streaming_hashes: several hash functions need streaming_slots"),
        ({"attributes": {"x": {"bukets": 3}}}, r"attributes: x: 'bukets' is not known"),
        ({"attributes": {"x": {"scale": "cubic"}}}, "attributes: x: scale must be uniform or log"),
        (
            {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}},
            "train_neg_sample_args: must be ~ for KuaiFormer",
        ),
    ],
    ids=str,
)
def test_each_bad_key_is_named_before_data_is_read(tmp_path, monkeypatch, given, message):
    worlds.at_home(monkeypatch, tmp_path)
    with pytest.raises(SettingsError, match=message):
        Config("KuaiFormer", "no-such-data", config_dict=worlds.small("nowhere", "no-such-data", **given))


def test_keys_of_ones_own_pass_when_named(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    given = worlds.small("nowhere", "x", my_own_tag=1, extra_keys=["my_own_tag"])
    assert Config("KuaiFormer", "x", config_dict=given)["my_own_tag"] == 1


def test_precedence_is_command_line_dict_file_dataset_model_overall(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    (tmp_path / "mine.yaml").write_text(
        "n_layers: 3\nn_heads: 1\ndropout_test: 1\n".replace("dropout_test: 1\n", "")
    )
    monkeypatch.setattr("sys.argv", ["x", "--n_layers=7"])
    config = Config(
        "KuaiFormer", "ml-1m", config_file_list=["mine.yaml"], config_dict={"n_layers": 5, "n_heads": 4}
    )
    assert config["n_layers"] == 7
    assert config["n_heads"] == 4
    assert config["MAX_ITEM_LIST_LENGTH"] == 200  # properties/dataset over properties/model
    assert config["n_interests"] == 4
    assert config["eval_batch_size"] == 256
    assert config["learning_rate"] == 0.001  # RecBole's


def test_recboles_models_keep_recboles_defaults(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    sasrec = Config("SASRec", "ml-100k")
    assert sasrec["train_neg_sample_args"]["distribution"] == "none"
    assert sasrec["eval_batch_size"] == 4096
    assert sasrec["normalize_all"] is True
    bpr = Config("BPR", "ml-100k")
    assert bpr["train_neg_sample_args"]["distribution"] == "uniform"
    on_our_file = Config("SASRec", "kuairand-pure")
    assert "watch_time" in on_our_file["load_col"]["inter"]
    assert "attributes" not in on_our_file
    with pytest.raises(ValueError, match="should be None when the loss_type is CE"):
        Config("SASRec", "ml-100k", config_dict={"train_neg_sample_args": {"distribution": "uniform"}})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target_horizon": 0}, "target_horizon: must be at least 1, or ~, got 0"),
        ({"target_horizon": None}, "target_horizon: ~ .* needs target_horizon_seconds"),
        (
            {"target_horizon_seconds": 5.0},
            r"target_horizon_seconds: 5\.0 changes nothing .* set",
        ),
        ({"target_horizon": 4, "target_horizon_seconds": 0.0}, "target_horizon_seconds: must be positive"),
        (
            {"stochastic_length_alpha": 2.5},
            r"stochastic_length_alpha: must be in \(0, 2\], or ~ for none",
        ),
        ({"stochastic_length_choice": "newest"}, "stochastic_length_choice: 'newest' is not known"),
    ],
)
def test_what_windows_cannot_do_is_named(tmp_path, monkeypatch, given, message):
    worlds.at_home(monkeypatch, tmp_path)
    with pytest.raises(SettingsError, match=message):
        Config("KuaiFormer", "x", config_dict=worlds.small("nowhere", "x", **given))


@pytest.mark.parametrize("nothing", ["~", "null"])
def test_the_files_signs_for_nothing_work_on_the_command_line_too(nothing):
    values = {
        "initializer_range": nothing, "attributes": {}, "attribute_size": 4, "target_attributes": False,
        "attribute_fusion": "mlp",
    }  # fmt: skip
    assert AttributeSettings.read(values).initializer_range is None
    with pytest.raises(SettingsError, match=f"attribute_size: must be int, got '{nothing}'"):
        AttributeSettings.read({**values, "attribute_size": nothing})


@pytest.mark.parametrize(
    "given",
    [
        {"learning_rate": 0}, {"learning_rate": np.float32(0.01)}, {"stopping_step": 1e6},
        {"stopping_step": -1},
        {"eval_step": 2.0}, {"eval_step": 0}, {"epochs": np.int64(2)}, {"epochs": 0}, {"topk": [np.int64(5)]},
        {"topk": 5}, {"metrics": "Recall"}, {"MAX_ITEM_LIST_LENGTH": None}, {"valid_metric": "loss"},
    ],
    ids=str,
)  # fmt: skip
def test_what_recboles_models_train_with_is_not_refused(tmp_path, monkeypatch, given):
    worlds.at_home(monkeypatch, tmp_path)
    Config("BPR", "ml-100k", config_dict=given)


def test_an_epoch_may_be_chosen_by_either_reading(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    given = {"valid_metric": "Recall@10_masked", "report_both": True}
    assert Config("KuaiFormer", "ml-100k", config_dict=given)["valid_metric"] == "Recall@10_masked"
