"""Fields of every type and source, from the files' text into batches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import load_data_and_model, run_recbole
from recbole.utils import get_model, init_seed

import recbole_kuaiformer  # noqa: F401
from recbole_kuaiformer.serving.catalogue import RequestError
from recbole_kuaiformer.serving.retriever import Retriever
from recbole_kuaiformer.serving.writing import export
from recbole_kuaiformer.settings import SettingsError
from tests import worlds

HEADER = "user_id:token\titem_id:token\ttimestamp:float\ttags:token_seq\tplace:float_seq\tunread:token"
LOAD = {"inter": ["user_id", "item_id", "timestamp", "tags", "place"], "item": ["item_id", "vector", "tones"]}


@pytest.fixture
def rows():
    rng = np.random.default_rng(6)
    return [
        (
            f"u{n % 11}", f"i{rng.integers(17)}", 978300000 + n,
            " ".join(f"t{tag}" for tag in rng.integers(0, 5, rng.integers(0, 4))),
            " ".join(f"{x:.2f}" for x in rng.random(int(rng.integers(0, 4)))), "x",
        )
        for n in range(120)
    ]  # fmt: skip


@pytest.fixture
def path(tmp_path, monkeypatch, rows):
    worlds.at_home(monkeypatch, tmp_path)
    items = ["item_id:token\tvector:float_seq\ttones:token_seq\tunread:float"]
    items += [f"i{n}\t{'' if n % 4 == 0 else f'{n} -1.5 {n / 8}'}\tlow high{n}\t1" for n in range(17)]
    return worlds.write(tmp_path / "data", "fields", rows, header=HEADER, items=items)


def dataset_of(path, **more):
    given = worlds.small(path, "fields", load_col=LOAD, **more)
    config = Config("KuaiFormer", "fields", config_dict=given)
    init_seed(config["seed"], True)
    return config, create_dataset(config)


ATTRIBUTES = {"tags": None, "place": None, "vector": None, "tones": None}


def test_lists_of_tokens_and_of_numbers_come_out_as_written(path, rows):
    config, dataset = dataset_of(path, attributes=ATTRIBUTES, normalize_all=True)
    train, _, test = data_preparation(config, dataset)
    assert "unread" not in dataset.field2type
    of_user = {}
    for user, *rest in rows:
        of_user.setdefault(user, []).append(rest)
    for loader in (train, test):
        split = loader.dataset
        batch = split[torch.arange(len(split))]
        for row, user in enumerate(split.id2token("user_id", batch["user_id"].numpy())):
            n = int(batch["item_length"][row])
            own = of_user[user][:n]
            assert [*split.id2token("item_id", batch["item_id_list"][row, :n].numpy())] == [
                one[0] for one in own
            ]
            for place, (_, _, tags, numbers, _) in enumerate(own):
                ids = batch["tags_list"][row, place].numpy()
                assert [*split.id2token("tags", ids[ids > 0])] == tags.split()
                values = batch["place_list"][row, place].numpy()
                written = np.array([float(x) for x in numbers.split()], dtype=np.float32)
                assert np.array_equal(values[: len(written)], written)
                assert np.isnan(values[len(written) :]).all()
                assert len(values) == 3


def test_vectors_of_items_come_raw_and_missing_ones_as_nan(path):
    config, dataset = dataset_of(path, attributes=ATTRIBUTES, normalize_all=True)
    dataset.build()
    model = get_model("KuaiFormer")(config, dataset)
    vectors = model.tokens.get_buffer("item_vector")
    for n in range(17):
        vector = vectors[dataset.token2id("item_id", f"i{n}")]
        if n % 4 == 0:
            assert vector.isnan().all()
        else:
            assert vector.tolist() == [n, -1.5, n / 8]
    assert vectors.shape == (18, 3)
    assert vectors[0].isnan().all()


def test_a_model_learns_with_vectors_of_both_sources(path):
    config, dataset = dataset_of(path, attributes=ATTRIBUTES, target_attributes=True)
    train, *_ = data_preparation(config, dataset)
    model = get_model("KuaiFormer")(config, train.dataset)
    model.calculate_loss(next(iter(train))).backward()
    for name in ("place", "vector"):
        projection = model.tokens.embeddings[name]
        for part in (projection.linear.weight, projection.missing):
            assert torch.isfinite(part.grad).all()
            assert part.grad.abs().sum() > 0


def test_a_vector_takes_no_options(path):
    config, dataset = dataset_of(path, attributes={"vector": {"n_buckets": 3}})
    with pytest.raises(SettingsError, match="attributes: vector: a vector attribute takes no options"):
        get_model("KuaiFormer")(config, dataset)


def test_an_export_answers_as_the_model_does_from_vectors_given_as_lists(path):
    given = worlds.small(
        path, "fields", load_col=LOAD, attributes=ATTRIBUTES, target_attributes=True, epochs=1,
        checkpoint_dir="saved",
    )  # fmt: skip
    run_recbole(model="KuaiFormer", dataset="fields", config_dict=given)
    (file,) = [file for file in Path("saved").glob("*.pth") if not file.stem.endswith("-last")]
    export(file, "out")
    _, model, dataset, _, _, test = load_data_and_model(str(file))
    model.eval()
    batch = test.dataset[torch.arange(len(test.dataset))]
    with torch.no_grad():
        scores = model.full_sort_predict(batch)
    log, tags = test.dataset.log, dataset.field2id_token["tags"]
    spans = [slice(log.starts[end], end) for end in batch["log_row"].numpy()]
    items = [dataset.id2token("item_id", log.item_ids[span]).tolist() for span in spans]
    places = [[row[~np.isnan(row)].tolist() or None for row in log.columns["place"][span]] for span in spans]
    named = [[[tags[i] for i in row if i] for row in log.columns["tags"][span]] for span in spans]
    retriever = Retriever.load("out")
    answer = retriever.recommend(
        items, k=17, exclude_history=False, attributes={"place": places, "tags": named}
    )
    for row, (tokens, found) in enumerate(zip(answer.tokens, answer.scores)):
        want = [float(scores[row, dataset.token2id("item_id", token)]) for token in tokens]
        assert found == pytest.approx(want, abs=1e-5)
    with pytest.raises(RequestError, match="'place' is a vector of 3 numbers, got 4"):
        retriever.recommend(items[:1], k=3, attributes={"place": [[[1, 2, 3, 4]] * len(items[0])]})
    new = retriever.vectors_from_attributes({"vector": [[1.0, 2.0, 3.0], None], "tones": [["low"], []]})
    assert torch.isfinite(new).all()
