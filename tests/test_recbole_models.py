"""RecBole's own models come back to life, and take their place beside ours."""

import numpy as np
import pytest
from recbole.quick_start import objective_function, run_recbole

from tests import worlds

REVIVED = [
    "SASRec", "GRU4Rec", "BERT4Rec", "SINE", "BPR", "NeuMF", "LightGCN", "DeepFM", "SASRecF", "ItemKNN",
    "Pop",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("model", REVIVED)
def test_two_epochs_on_ml_100k(tmp_path, monkeypatch, model):
    worlds.at_home(monkeypatch, tmp_path)
    few = {"epochs": 2, "show_progress": False, "state": "WARNING", "user_inter_num_interval": "[20,25]"}
    if model == "DeepFM":
        few["metrics"], few["valid_metric"] = ["AUC"], "AUC"
    result = run_recbole(model=model, dataset="ml-100k", config_dict=few)
    assert np.isfinite([*result["test_result"].values()]).all()


def test_sasrec_runs_by_its_name_alone(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    path = worlds.cyclic(tmp_path / "data", n_users=20)
    given = {"data_path": path, "epochs": 1, "show_progress": False, "state": "WARNING", "load_col": None}
    result = run_recbole(model="SASRec", dataset="cyclic", config_dict=given)
    assert np.isfinite(result["test_result"]["recall@10"])


def test_objective_function_serves_our_model(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    path = worlds.cyclic(tmp_path / "data", n_users=20)
    given = worlds.small(path, "cyclic", model="KuaiFormer", epochs=1)
    result = objective_function(config_dict=given, saved=False)
    assert result["model"] == "KuaiFormer"
