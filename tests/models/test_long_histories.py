"""compression: geometric: histories of a thousand items and more, from the file to the served answer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.quick_start import load_data_and_model, run_recbole
from recbole.utils import get_model

from recbole_kuaiformer.serving.retriever import Retriever
from recbole_kuaiformer.serving.writing import export
from recbole_kuaiformer.settings import SettingsError
from tests import worlds

N_ITEMS = 31


def one_long_log(folder, *, length):
    """One user with ``length`` interactions, and 20 users with 9 to 28; next item = item + 1."""
    rng, rows = np.random.default_rng(0), []
    for user, n in enumerate([length, *range(9, 29)]):
        start = int(rng.integers(N_ITEMS))
        rows += [(f"u{user}", f"i{(start + t) % N_ITEMS}", 1_700_000_000 + 60 * t) for t in range(n)]
    return worlds.write(folder, "long", rows)


def given(path, *, length, **more):
    small = worlds.small(path, "long", epochs=1, MAX_ITEM_LIST_LENGTH=length, window_targets=48)
    del small["compression_groups"], small["recent_length"]
    return {**small, "compression": "geometric", **more}


NEWEST = {"compression_end": "newest", "window_targets": 1}


@pytest.mark.parametrize(("length", "more"), [(1024, {}), (4096, {}), (10_000, {}), (128, NEWEST)])
def test_long_histories_are_trained_evaluated_exported_and_served(tmp_path, monkeypatch, length, more):
    worlds.at_home(monkeypatch, tmp_path)
    path = one_long_log(tmp_path / "data", length=length + 50)
    result = run_recbole(model="KuaiFormer", dataset="long", config_dict=given(path, length=length, **more))
    assert np.isfinite([*result["test_result"].values()]).all()
    (file,) = [file for file in Path("saved").glob("*.pth") if not file.stem.endswith("-last")]
    export(file, "out")
    _, model, dataset, *_ = load_data_and_model(str(file))
    model.eval()
    ids = torch.randint(1, N_ITEMS + 1, (1, length + 7), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        scores = model.full_sort_predict(_history(ids))[0, 1:].sort(descending=True).values
    history = dataset.id2token("item_id", ids[0]).tolist()
    answer = Retriever.load("out").recommend([history], k=5, exclude_history=False)
    assert answer.scores[0] == pytest.approx(scores[:5].tolist(), abs=1e-5)


@pytest.mark.parametrize("length", [1024, 10_000])
def test_the_oldest_item_that_fits_counts_and_the_one_before_it_does_not(tmp_path, monkeypatch, length):
    worlds.at_home(monkeypatch, tmp_path)
    path = one_long_log(tmp_path / "data", length=90)
    config = Config("KuaiFormer", "long", config_dict=given(path, length=length))
    train, _, _ = data_preparation(config, create_dataset(config))
    model = get_model("KuaiFormer")(config, train.dataset).double().eval()
    ids = torch.randint(1, N_ITEMS, (1, length + 3), generator=torch.Generator().manual_seed(2))
    other = {place: ids.clone() for place in (2, 3)}
    for place, changed in other.items():
        changed[0, place] += 1
    with torch.no_grad():
        before, beyond, oldest = (model.interests(_history(x)) for x in (ids, other[2], other[3]))
    assert torch.equal(beyond, before)
    assert not torch.equal(oldest, before)


def test_an_answer_with_the_newest_items_compressed_does_not_depend_on_the_rest_of_the_batch(
    tmp_path, monkeypatch
):
    worlds.at_home(monkeypatch, tmp_path)
    path = one_long_log(tmp_path / "data", length=90)
    config = Config("KuaiFormer", "long", config_dict=given(path, length=256, **NEWEST))
    train, _, _ = data_preparation(config, create_dataset(config))
    model = get_model("KuaiFormer")(config, train.dataset).double().eval()
    lengths = torch.tensor([250, 3, 100, 49])
    ids = torch.randint(1, N_ITEMS, (4, 250), generator=torch.Generator().manual_seed(3))
    ids[torch.arange(250) >= lengths[:, None]] = 0
    with torch.no_grad():
        together = model.interests(Interaction({"item_id_list": ids, "item_length": lengths}))
        alone = [model.interests(_history(row[None, :n])) for row, n in zip(ids, lengths.tolist())]
    torch.testing.assert_close(together, torch.cat(alone))


def test_the_newest_48_items_stay_as_they_are_unless_recent_length_says_otherwise(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    path = one_long_log(tmp_path / "data", length=90)
    for recent, groups in ((None, (32, 32, 16, 16)), (64, (16, 32, 16, 16)), (200, ())):
        config = Config("KuaiFormer", "long", config_dict=given(path, length=144, recent_length=recent))
        train, _, _ = data_preparation(config, create_dataset(config))
        encoder = get_model("KuaiFormer")(config, train.dataset).encoder
        assert encoder.groups == groups
        assert encoder.recent_length == min(recent or 48, 144)


def test_windows_must_lie_among_the_recent_items(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    with pytest.raises(SettingsError, match="window_targets: 48 targets .* recent_length is 20"):
        Config("KuaiFormer", "long", config_dict=given("nowhere", length=1024, recent_length=20))


def _history(ids):
    return Interaction({"item_id_list": ids, "item_length": torch.tensor([ids.shape[1]])})
