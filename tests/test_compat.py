"""Each mend of RecBole, on tiny files; each test fails where its mend is left out."""

import io
import pickle
import subprocess
import sys
import types
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recbole.config import Config
from recbole.data import create_dataset
from recbole.quick_start import load_data_and_model, run, run_recbole
from recbole.trainer import HyperTuning, Trainer

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
        compat.apply()


def test_a_missing_recbole_is_named(monkeypatch):
    monkeypatch.setattr(compat.metadata, "version", _not_found)
    with pytest.raises(ImportError, match=r"recbole is not installed: pip install"):
        compat.check_version()


def _not_found(name):
    raise compat.metadata.PackageNotFoundError(name)


def test_names_that_numpy_dropped_are_back():
    names = {
        "float_": "float64",
        "complex_": "complex128",
        "unicode_": "str_",
        "bool": "bool_",
        "int": "int_",
    }
    for gone, today in names.items():
        assert getattr(np, gone) is getattr(np, today)


def test_quick_start_imports_in_a_fresh_process_and_no_stand_in_stays():
    code = (
        "import recbole_kuaiformer, sys; from recbole.quick_start import run_recbole;"
        "import torch, recbole.model.sequential_recommender; ray = sys.modules.get('ray');"
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
    with pytest.raises(pickle.UnpicklingError, match="(?i)weights"):
        torch.load(file)


def _half_a_checkpoint():
    whole = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.arange(99.0)}}, whole)
    return whole.getvalue()[: whole.tell() // 2]


# Torch takes a text for a pickle, whose opcodes then fail in their own ways.
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint at all",
        b"hello",
        b"user_id:token\titem_id:token\nu1\ti1\n",
        b"PK\x03\x04cut off",
        _half_a_checkpoint(),
    ],
    ids=["empty", "text", "key error", "index error", "cut zip", "half"],
)
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


def test_an_item_without_a_row_gets_padding_and_means(home):
    rows = [(user, item, time) for user in "uv" for time, item in enumerate("abc")]
    header = "item_id:token\tkind:token\tprice:float\ttags:token_seq\tvec:float_seq"
    path = worlds.write(home / "data", "few", rows, items=[header, "a\tbook\t2\tx y\t1 2", "b\t\t\t\t"])
    config = of_recbole(path, "few", filter_inter_by_user_or_item=False)
    dataset = create_dataset(Config("BPR", "few", config_dict=config))
    ids = dataset.token2id("item_id", ["a", "b", "c"])
    items = dataset.item_feat.set_index("item_id")
    assert items["kind"].loc[ids].tolist() == [dataset.token2id("kind", "book"), 0, 0]
    assert items["price"].tolist() == [2.0] * 4
    assert [len(tags) for tags in items["tags"].loc[ids]] == [2, 0, 0]
    dataset.build()
    assert dataset.item_feat["vec"].shape == (4, 2)
    assert not any(torch.isnan(column.float()).any() for column in dataset.item_feat.interaction.values())


ODD_ROWS = [
    'u\t"i""3"\t1', '"two words"\ti\t"1.5"', "u\ta\"b\t1", "u\tNA\tNA", "u\t\t", "u", "u\tnull\tnan",
    " u \t 01\t 2", "u\t1.0\t0.3", "u\té\t1e-320", "u\t#\t1700000000123.25",
    '"a\tb"\ti\t-inf', '"a\nb"\ti\t1e400', "\n\nu\ti\t3\n", "u\ti\t1_000", "u\ti\t3\r",
    "u\tx\ty", "u\ti\t1\tmore", 'u\t"open\t1', "u\ti\t1,5", "u\ti\t0x10",
    pytest.param(
        "u\t1.0\t0.30000000000000004",
        marks=pytest.mark.skipif(pd.__version__ < "3", reason="pandas 2's Python parser has .3 for it"),
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ODD_ROWS)
def test_an_odd_row_is_read_or_refused_as_by_the_python_parser(home, row):
    columns = ["user_id:token", "item_id:token", "price:float"]
    (home / "x.inter").write_text("\n".join(["\t".join(columns), "u\ti\t1", row, "v\tj\t0.1"]), newline="")
    dtype = {columns[0]: str, columns[1]: str, columns[2]: np.float64}
    common = {"delimiter": "\t", "usecols": columns, "dtype": dtype, "encoding": "utf-8", "engine": "python"}
    assert _read(compat.read_csv, home / "x.inter", common) == _read(pd.read_csv, home / "x.inter", common)


def test_numbers_are_read_to_the_last_bit(home):
    """As the Python parser of pandas 3 reads them; that of pandas 2 has .3 for the first."""
    numbers = ["0.30000000000000004", "0.1", "1700000000123.25", "1e-320", "9007199254740993", "3.4028235e38"]
    (home / "x.inter").write_text("\n".join(["price:float", *numbers]))
    table = compat.read_csv(
        home / "x.inter", delimiter="\t", engine="python", dtype={"price:float": np.float64}
    )
    assert table["price:float"].tolist() == [float(number) for number in numbers]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.lists(st.text('ab" \r-01_', min_size=1, max_size=4), min_size=3, max_size=3),
        min_size=1,
        max_size=4,
    )
)
def test_stray_quotes_lose_no_row_that_the_python_parser_keeps_or_refuses(home, rows):
    columns = ["user_id:token", "item_id:token", "kind:token"]
    text = "\n".join("\t".join(row) for row in [columns, *rows]) + "\n"
    (home / "x.inter").write_bytes(text.encode())
    common = {
        "delimiter": "\t",
        "usecols": columns,
        "dtype": dict.fromkeys(columns, str),
        "encoding": "utf-8",
    }
    common |= {"engine": "python", "index_col": False}
    ours = {key: value for key, value in common.items() if key != "index_col"}
    assert _read(compat.read_csv, home / "x.inter", ours) == _read(pd.read_csv, home / "x.inter", common)


def _read(read_csv, path, common):
    try:
        frame = read_csv(path, **common)
    except ValueError as error:
        return str(error)
    return frame.astype(object).where(frame.notna(), "missing").to_numpy().tolist()


@pytest.mark.parametrize("n_loaded", [2, 3])
@pytest.mark.parametrize("separator", ["\t", "|", "::"])
def test_a_separator_at_the_end_of_each_line_shifts_no_column(home, separator, n_loaded):
    columns = ["user_id:token", "item_id:token", "price:float"]
    rows = [separator.join(row) + separator for row in [("u", "i", "1"), ("v", "j", "2")]]
    (home / "x.inter").write_text("\n".join([separator.join(columns), *rows]))
    frame = compat.read_csv(
        home / "x.inter", delimiter=separator, engine="python", usecols=columns[:n_loaded]
    )
    assert frame.to_numpy().tolist() == [["u", "i", 1.0][:n_loaded], ["v", "j", 2.0][:n_loaded]]


def test_files_read_as_with_the_python_parser(home):
    (home / "x.inter").write_text(HOLES)
    columns = HOLES.split("\n")[0].split("\t")
    dtype = {column: np.float64 if column.endswith(":float") else str for column in columns}
    common = {"delimiter": "\t", "usecols": columns, "dtype": dtype, "encoding": "utf-8"}
    got = compat.read_csv(home / "x.inter", engine="python", **common)
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
    def objective(config_dict=None, config_file_list=None):
        score = -abs(config_dict["x"] - 2)
        return {
            "model": "m", "best_valid_score": score, "valid_score_bigger": True,
            "best_valid_result": {"s": score}, "test_result": {"s": score},
        }  # fmt: skip

    # So many draws that one of three values is missed once in 10^8 runs.
    tuning = HyperTuning(
        objective, params_dict={"choice": {"x": [1, 2, 3]}}, algo=algo, max_evals=50, early_stop=50
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
def test_two_processes_train_on_cpu(home, model):
    path, (port,) = worlds.cyclic(home / "data", n_users=20), worlds.free_ports(1)
    config = of_recbole(path, "cyclic") if model == "BPR" else worlds.small(path, "cyclic", epochs=1)
    config |= {"evaluator": "faiss", "report_both": True, "gpu_id": "0,1"}
    result = run(model, "cyclic", config_dict=config, nproc=2, port=port)["test_result"]
    assert np.isfinite([*result.values()]).all()
    assert ("recall@5_masked" in result) == (model == "KuaiFormer")


def test_every_rank_evaluates_the_file_of_rank_0(home, monkeypatch):
    """Each rank names its file by its own clock; here this rank is told rank 0's name."""

    def told(names, src):
        names[src] = "of_rank_0.pth"

    monkeypatch.setattr(torch.distributed, "broadcast_object_list", told)
    trainer = Trainer.__new__(Trainer)
    trainer.config, trainer.device = {"single_spec": False}, torch.device("cpu")
    trainer.saved_model_file, trainer.eval_collector = "of_this_rank.pth", None
    with pytest.raises(FileNotFoundError, match=r"of_rank_0\.pth"):
        trainer.evaluate(["a batch"])


def test_a_directory_that_another_process_made_meanwhile_is_no_error(home, monkeypatch):
    from recbole.utils import logger, utils

    monkeypatch.setattr(utils.os.path, "exists", lambda path: False)  # as seen before the other made it
    for module in (logger, utils):
        module.ensure_dir("log")
        module.ensure_dir("log")
    assert (home / "log").is_dir()


# float32 steps by 64 s here, and by 66 s in milliseconds, where a step falls before the last row.
@pytest.mark.parametrize(("unit", "changed"), [(1, 1), (1000, 0)], ids=["seconds", "milliseconds"])
@pytest.mark.parametrize("model", ["SASRec", "KuaiFormer"])
def test_five_rows_come_out_in_the_order_of_their_times(home, model, unit, changed, caplog):
    seconds = [978300760, 978300780, 978300761, 978300800, 978300790]
    rows = [("u", item, time * unit) for item, time in zip("abcde", seconds)]
    with caplog.at_level("INFO"):
        dataset = in_time_order(home, model, rows)
    assert last_history_and_target(dataset) == "acbed"
    if model == "KuaiFormer":
        assert "".join(dataset.id2token("item_id", dataset.log.item_ids)) == "acbed"
    assert "".join(dataset.id2token("item_id", dataset.inter_feat["item_id"])) == "cbed"
    notices = [record for record in caplog.records if "float32 order would move" in record.getMessage()]
    assert len(notices) == 1
    assert f"give {changed} of 1 users another last item" in notices[0].getMessage()


@pytest.mark.parametrize("model", ["SASRec", "KuaiFormer"])
def test_rows_of_one_time_keep_the_order_of_the_file(home, model, caplog):
    times = [978300761, 978300760, 978300760, 978300761, 978300760]
    rows = [(user, item, time) for item, time in zip("daebc", times) for user in "uv"]
    with caplog.at_level("INFO"):
        dataset = in_time_order(home, model, rows)
    assert last_history_and_target(dataset) == "aecdb"
    in_order = worlds.write(home / "data", "sorted", [("u", item, 60 * t) for t, item in enumerate("abcde")])
    caplog.clear()
    with caplog.at_level("INFO"):
        in_time_order(home, model, None, path=in_order, name="sorted")
    assert not [record for record in caplog.records if "float32" in record.getMessage()]


def in_time_order(home, model, rows, *, path=None, name="five"):
    path = path or worlds.write(home / "data", name, rows)
    config = of_recbole(path, name) if model == "SASRec" else worlds.small(path, name)
    dataset = create_dataset(Config(model, name, config_dict={**config, "state": "INFO"}))
    dataset.build()
    return dataset


def last_history_and_target(dataset):
    row = dataset[np.array([len(dataset) - 1])]
    history = row["item_id_list"][0][: int(row["item_length"][0])]
    return "".join(dataset.id2token("item_id", [*history.tolist(), int(row["item_id"][0])]))
