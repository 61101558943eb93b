"""Each mend of RecBole, on tiny files; each test fails where its mend is left out."""

import subprocess
import sys
import types
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset
from recbole.quick_start import load_data_and_model, run, run_recbole

from recbole_kuaiformer import compat
from tests import worlds

LEAVE_ONE_OUT = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    return tmp_path


def of_recbole(path, name, **more):
    return {
        "data_path": path, "dataset": name, "show_progress": False, "state": "WARNING", "epochs": 1,
        "topk": [5],
        "load_col": None, "valid_metric": "MRR@5", "train_batch_size": 256, "MAX_ITEM_LIST_LENGTH": 8, **more,
    }  # fmt: skip


def test_an_unknown_recbole_is_refused(monkeypatch):
    monkeypatch.setattr(compat.metadata, "version", lambda name: "9.9.9")
    with pytest.raises(ImportError, match=r"recbole 9\.9\.9 is installed, but .* 1\.2\.0 and 1\.2\.1"):
        compat.check_version()


def test_quick_start_imports_in_a_fresh_process_and_no_stand_in_stays():
    code = (
        "import recbole_kuaiformer, sys; from recbole.quick_start import run_recbole;"
        "import torch; ray = sys.modules.get('ray');"
        "print(ray is None or hasattr(ray, '__file__'), torch.is_anomaly_enabled())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_tune_report_speaks_both_dialects(monkeypatch):
    quick_start = sys.modules["recbole.quick_start.quick_start"]
    heard = []
    tune = types.ModuleType("ray.tune")
    monkeypatch.setitem(sys.modules, "ray.tune", tune)
    tune.report = lambda metrics: heard.append(metrics)
    quick_start.tune.report(a=1)
    tune.report = lambda **metrics: heard.append(metrics)
    quick_start.tune.report(a=2)
    monkeypatch.delitem(sys.modules, "ray.tune")
    quick_start.tune.report(a=3)
    assert heard == [{"a": 1}, {"a": 2}]


def test_recboles_own_checkpoints_load_for_recbole_and_for_nobody_else(home):
    path = worlds.cyclic(home / "data", n_users=20)
    config = of_recbole(path, "cyclic", eval_args=LEAVE_ONE_OUT, train_neg_sample_args=None)
    result = run_recbole(model="GRU4Rec", dataset="cyclic", config_dict=config)
    (file,) = (home / "saved").glob("GRU4Rec*.pth")
    assert load_data_and_model(str(file))[0]["model"] == "GRU4Rec"
    assert np.isfinite([*result["test_result"].values()]).all()
    with pytest.raises(Exception, match="(?i)weights"):
        torch.load(file)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"PK\x03\x04cut off"])
def test_an_unreadable_checkpoint_is_named(home, content):
    (home / "bad.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.pth: not a readable checkpoint"):
        load_data_and_model("bad.pth")
    with pytest.raises(FileNotFoundError):
        load_data_and_model("none.pth")


HOLES = (
    "user_id:token\titem_id:token\ttimestamp:float\trating:float\ttags:token_seq\tvec:float_seq\n"
    'u1\ti1\t1\t2.5\ta b\t.5 1.5\nu1\ti2\t2\t\t\t\nu1\t"i""3"\t3\t0.1\tb\t2\nu2\ti1\t1\t4.25\tc\t\n'
    "u2\ti2\t2\t1e-3\ta c\t1\nu2\tNA\t3\t3\ta\t1\n"
)


def test_missing_values_are_filled_and_lists_keep_their_items(home):
    (home / "data" / "holes").mkdir(parents=True)
    (home / "data" / "holes" / "holes.inter").write_text(HOLES)
    dataset = create_dataset(Config("BPR", "holes", config_dict=of_recbole(str(home / "data"), "holes")))
    feat = dataset.inter_feat
    assert not feat["rating"].isna().any()
    assert feat["rating"].iloc[1] == pytest.approx(np.mean([2.5, 0.1, 4.25, 1e-3]))
    assert [len(tags) for tags in feat["tags"]] == [2, 0, 1, 1, 2]
    assert [len(vec) for vec in feat["vec"]] == [2, 0, 1, 0, 1]
    dataset.build()


def test_files_read_as_with_the_python_parser(home):
    (home / "x.inter").write_text(HOLES)
    columns = HOLES.split("\n")[0].split("\t")
    dtype = {column: np.float64 if column.endswith(":float") else str for column in columns}
    common = {"delimiter": "\t", "usecols": columns, "dtype": dtype, "encoding": "utf-8"}
    got = compat._read_csv(home / "x.inter", engine="python", **common)
    want = pd.read_csv(home / "x.inter", engine="python", **common)
    for column in columns:
        expected = want[column].fillna("") if column.endswith("_seq") else want[column]
        assert got[column].fillna("?").tolist() == expected.fillna("?").tolist(), column


def test_lightgcn_builds_its_graph(home):
    path = worlds.cyclic(home / "data", n_users=20)
    result = run_recbole(model="LightGCN", dataset="cyclic", config_dict=of_recbole(path, "cyclic"))
    assert np.isfinite(result["test_result"]["recall@5"])


def test_coverage_metrics_and_counts_survive_the_collector(home):
    path = worlds.cyclic(home / "data", n_users=20)
    metrics = ["Recall", "ItemCoverage", "GiniIndex", "AveragePopularity", "ShannonEntropy", "TailPercentage"]
    config = of_recbole(path, "cyclic", metrics=metrics, valid_metric="Recall@5")
    result = run_recbole(model="Pop", dataset="cyclic", config_dict=config)["test_result"]
    assert 0 < result["itemcoverage@5"] <= 1
    assert result["averagepopularity@5"] > 0
    assert Counter(result.keys()).total() == len(metrics)


@pytest.mark.parametrize("algo", ["exhaustive", "random", "bayes"])
def test_hyper_tuning_finds_the_best_of_three(home, algo):
    from recbole.trainer import HyperTuning

    def objective(config_dict=None, config_file_list=None):
        score = -abs(config_dict["x"] - 2)
        return {
            "model": "m", "best_valid_score": score, "valid_score_bigger": True,
            "best_valid_result": {"s": score}, "test_result": {"s": score},
        }  # fmt: skip

    tuning = HyperTuning(
        objective, params_dict={"choice": {"x": [1, 2, 3]}}, algo=algo, max_evals=12, early_stop=12
    )
    tuning.run()
    assert tuning.params2result[tuning.params2str({"x": 2})]["best_valid_score"] == 0
    assert max(r["best_valid_score"] for r in tuning.params2result.values()) == 0


def test_a_download_that_succeeded_is_no_error(home, monkeypatch):
    module = sys.modules["recbole.data.dataset.dataset"]
    written = worlds.cyclic(home / "elsewhere", n_users=9)

    def extract(source, folder):
        text = (home / "elsewhere" / "cyclic" / "cyclic.inter").read_text()
        (home / "data" / "ml-10m" / "ml-10m.inter").write_text(text)

    monkeypatch.setattr(module, "decide_download", lambda url: True)
    monkeypatch.setattr(module, "download_url", lambda url, folder: written)
    monkeypatch.setattr(module, "extract_zip", extract)
    monkeypatch.setattr(module, "rename_atomic_files", lambda *names: None)
    monkeypatch.setattr(module.os, "unlink", lambda name: None)
    dataset = create_dataset(Config("BPR", "ml-10m", config_dict=of_recbole(str(home / "data"), "ml-10m")))
    assert dataset.user_num == 10


@pytest.mark.parametrize("model", ["BPR", "KuaiFormer"])
def test_two_processes_train_on_cpu(home, model, unused_port):
    path = worlds.cyclic(home / "data", n_users=20)
    config = of_recbole(path, "cyclic") if model == "BPR" else worlds.small(path, "cyclic", epochs=1)
    result = run(model, "cyclic", config_dict={**config, "gpu_id": "0,1"}, nproc=2, port=unused_port)
    assert np.isfinite([*result["test_result"].values()]).all()


def test_a_directory_that_another_process_made_meanwhile_is_no_error(home, monkeypatch):
    from recbole.utils import logger, utils

    monkeypatch.setattr(utils.os.path, "exists", lambda path: False)  # as seen before the other made it
    for module in (logger, utils):
        module.ensure_dir("log")
        module.ensure_dir("log")
    assert (home / "log").is_dir()


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return str(probe.getsockname()[1])


@pytest.mark.parametrize("model", ["SASRec", "KuaiFormer"])
def test_five_rows_come_out_in_the_order_of_their_times(home, model, caplog):
    seconds = [978300760, 978300780, 978300761, 978300800, 978300790]
    rows = [("u", item, time) for item, time in zip("abcde", seconds)]
    path = worlds.write(home / "data", "five", rows)
    config = of_recbole(path, "five") if model == "SASRec" else worlds.small(path, "five")
    with caplog.at_level("INFO"):
        dataset = create_dataset(Config(model, "five", config_dict={**config, "state": "INFO"}))
        dataset.build()
    targets = dataset.id2token("item_id", dataset.inter_feat["item_id"])
    assert "".join(targets) == "cbed"
    notices = [record for record in caplog.records if "float32 order would move" in record.getMessage()]
    assert len(notices) == 1
    assert "1 of 1 users another last item" in notices[0].getMessage()
