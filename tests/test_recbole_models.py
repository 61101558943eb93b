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


def test_models_of_a_knowledge_graph_train_beside_ours(tmp_path, monkeypatch):
    """Their loader has no ``dataset``."""
    worlds.at_home(monkeypatch, tmp_path)
    path = worlds.cyclic(tmp_path / "data", n_users=30)
    folder = tmp_path / "data" / "cyclic"
    triples = [f"e{i}\tr{i % 2}\te{(i + 1) % 37}" for i in range(37)]
    (folder / "cyclic.kg").write_text(
        "\n".join(["head_id:token\trelation_id:token\ttail_id:token", *triples])
    )
    links = [f"i{i}\te{i}" for i in range(37)]
    (folder / "cyclic.link").write_text("\n".join(["item_id:token\tentity_id:token", *links]))
    columns = {
        "inter": ["user_id", "item_id"], "kg": ["head_id", "relation_id", "tail_id"],
        "link": ["item_id", "entity_id"],
    }  # fmt: skip
    given = {"data_path": path, "epochs": 1, "show_progress": False, "state": "WARNING", "load_col": columns}
    result = run_recbole(model="CFKG", dataset="cyclic", config_dict=given)
    assert np.isfinite(result["test_result"]["recall@10"])
