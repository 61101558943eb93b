"""Exports: the trained model's own answers from raw tokens, and nothing lost when something goes wrong."""

import json
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.quick_start import load_data_and_model, run_recbole

import recbole_kuaiformer.export
import recbole_kuaiformer.recommend
from recbole_kuaiformer.checkpoint import CheckpointError
from recbole_kuaiformer.index.base import IndexUnavailableError
from recbole_kuaiformer.serving import bundle
from recbole_kuaiformer.serving.bundle import ExportError
from recbole_kuaiformer.serving.catalogue import RequestError
from recbole_kuaiformer.serving.retriever import Retriever, build_model
from recbole_kuaiformer.serving.writing import export, extend
from tests import worlds
from tests.reference import retrieval as slow

SEQUENTIAL = ["BERT4Rec", "CORE", "GRU4Rec", "LightSANs", "NARM", "SASRec", "SINE", "STAMP"]
N_ITEMS = 23


def attributed(folder, *, n_users=30, n_items=N_ITEMS, offset=0):
    """Interactions with a device, tags and a watch time; items with a genre, topics and a length."""
    rng = np.random.default_rng(2)
    rows = []
    for user in range(n_users):
        start = int(rng.integers(n_items))
        for t in range(12):
            device, tags = "abc"[t % 3], " ".join(rng.choice(["x", "y", "z"], size=t % 3, replace=False))
            watched = "" if t % 4 == 0 else f"{rng.random() * 90:.2f}"
            row = (
                f"u{user}",
                f"i{(start + t) % n_items + offset}",
                1_700_000_000 + 60 * t,
                device,
                tags,
                watched,
            )
            rows.append(row)
    header = "user_id:token\titem_id:token\ttimestamp:float\tdevice:token\ttags:token_seq\twatched:float"
    items = ["item_id:token\tgenre:token\ttopics:token_seq\tseconds:float"]
    items += [f"i{i + offset}\tg{i % 4}\tt{i % 5} t{i % 3}\t{10 + i}" for i in range(n_items)]
    return worlds.write(folder, "attr", rows, header=header, items=items)


ATTRIBUTES = {
    "device": None, "tags": None, "watched": {"n_buckets": 9, "maximum": 90.0, "scale": "log"},
    "time_gap": {"n_buckets": 5, "maximum": 600.0, "scale": "log"}, "genre": None, "topics": None,
    "seconds": {"n_buckets": 6, "maximum": 40.0, "scale": "uniform"},
}  # fmt: skip


def trained(name, path, dataset, *, into="saved", **more):
    """The checkpoint of an epoch."""
    given = {
        "data_path": path, "epochs": 1, "show_progress": False, "state": "WARNING", "load_col": None,
        "MAX_ITEM_LIST_LENGTH": 16, "topk": [5], "valid_metric": "Recall@5", "checkpoint_dir": into,
    }  # fmt: skip
    given |= worlds.small(path, dataset, epochs=1) if name == "KuaiFormer" else {}
    run_recbole(model=name, dataset=dataset, config_dict={**given, **more})
    return checkpoint_in(into)


def checkpoint_in(folder):
    (file,) = [file for file in Path(folder).glob("*.pth") if not file.stem.endswith("-last")]
    return file


@pytest.fixture(scope="module")
def attr_export(tmp_path_factory):
    """An export of a KuaiFormer that reads attributes on both sides, its checkpoint, and where they lie."""
    home = tmp_path_factory.mktemp("attr")
    with pytest.MonkeyPatch.context() as patch:
        worlds.at_home(patch, home)
        path = attributed(home / "data")
        file = trained(
            "KuaiFormer", path, "attr", attributes=ATTRIBUTES, target_attributes=True, load_col=None
        )
        export(file, "out")
    return home


@pytest.fixture
def out(attr_export, tmp_path, monkeypatch):
    """A copy of that export to work on."""
    import shutil

    worlds.at_home(monkeypatch, tmp_path)
    shutil.copytree(attr_export / "out", tmp_path / "out")
    return tmp_path / "out"


def test_answers_are_the_trained_models_own(attr_export, monkeypatch):
    worlds.at_home(monkeypatch, attr_export)
    file = checkpoint_in("saved")
    _, model, dataset, _, _, test = load_data_and_model(str(file))
    model.eval()
    rows = test.dataset[torch.arange(len(test.dataset))]
    with torch.no_grad():
        scores = model.full_sort_predict(rows)
    log, ends = test.dataset.log, rows["log_row"].numpy()
    items = [dataset.id2token("item_id", log.item_ids[log.starts[end] : end]).tolist() for end in ends]
    spans = [slice(log.starts[end], end) for end in ends]
    tags = dataset.field2id_token["tags"]
    attributes = {
        "device": [dataset.id2token("device", log.columns["device"][span]).tolist() for span in spans],
        "tags": [[[tags[i] for i in row if i] for row in log.columns["tags"][span]] for span in spans],
        "watched": [log.columns["watched"][span].tolist() for span in spans],
        "time_gap": [[None, *np.diff(log.timestamps[span]).tolist()] for span in spans],
    }
    retriever = Retriever.load(attr_export / "out")
    result = retriever.recommend(items, k=N_ITEMS, exclude_history=False, attributes=attributes)
    for row in range(len(items)):
        want = {dataset.id2token("item_id", i): float(scores[row, i]) for i in range(1, N_ITEMS + 1)}
        got = dict(zip(result.tokens[row], result.scores[row]))
        assert got == pytest.approx(want, abs=1e-5)
        assert result.scores[row] == sorted(result.scores[row], reverse=True)
    assert result.unknown == [[]] * len(items)
    without = retriever.recommend(items, k=N_ITEMS, exclude_history=False)
    assert without.scores[0] != pytest.approx(
        result.scores[0], abs=1e-4
    )  # missing attributes are read as such


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_recboles_own_sequential_models_are_exported_too(tmp_path, monkeypatch, name):
    worlds.at_home(monkeypatch, tmp_path)
    file = trained(name, worlds.cyclic(tmp_path / "data", n_users=25), "cyclic")
    export(file, "out")
    _, model, dataset, _, _, test = load_data_and_model(str(file))
    model.eval()
    rows = test.dataset[torch.arange(9)]
    with torch.no_grad():
        scores = model.full_sort_predict(rows).view(9, -1)
    tokens = [
        dataset.id2token("item_id", ids[:n]).tolist()
        for ids, n in zip(rows["item_id_list"].numpy(), rows["item_length"].tolist())
    ]
    result = Retriever.load("out").recommend(tokens, k=37, exclude_history=False)
    for row in range(9):
        want = {dataset.id2token("item_id", i): float(scores[row, i]) for i in range(1, 38)}
        assert dict(zip(result.tokens[row], result.scores[row])) == pytest.approx(want, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["KuaiFormer", "SASRec"])
def test_item_floats_are_exported_as_they_came(name, tmp_path, monkeypatch):
    """A missing one is null, not the mean that RecBole trains with; nothing is normalised."""
    worlds.at_home(monkeypatch, tmp_path)
    rows = [(user, item, t) for user in range(9) for t, item in enumerate(range(user, user + 8))]
    items = ["item_id:token\tprice:float\tvector:float_seq"]
    vectors = ["" if i % 4 == 0 else f"{i}.5 {'nan' if i == 5 else 2}" for i in range(16)]
    items += [f"{i}\t{'' if i % 3 == 0 else 10 + i}\t{vectors[i]}" for i in range(16)]
    path = worlds.write(tmp_path / "data", "priced", rows, items=items)
    export(trained(name, path, "priced"), "out")
    catalogue = Retriever.load("out").catalogue
    for token, price, vector in zip(
        catalogue.tokens[1:], catalogue.columns["price"], catalogue.columns["vector"], strict=True
    ):
        i = int(token)
        assert price == (None if i % 3 == 0 else 10 + i)
        assert vector == (None if i % 4 == 0 else [i + 0.5, None if i == 5 else 2.0])


def test_no_file_is_unpickled(out, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert Retriever.load(out).recommend([["i3"]], k=2).tokens[0]
    names = {path.name for path in out.rglob("*") if path.is_file() and path.name != bundle.LOCK}
    assert names == {
        "manifest.json", "model.json", "model.safetensors", "items.json", "items.safetensors", "index.faiss",
    }  # fmt: skip


def test_an_export_tells_nothing_of_the_machine_it_was_made_on(out, attr_export):
    for file in out.rglob("*.json"):
        assert str(attr_export) not in file.read_text()
        assert "site-packages" not in file.read_text()


# ---- requests ----------------------------------------------------------------------------------------


def test_unknown_tokens_are_dropped_and_reported(out):
    retriever = Retriever.load(out)
    mixed, clean, none, empty = retriever.recommend(
        [["i1", "??", "i2", "i99"], ["i1", "i2"], ["nobody"], []], k=4
    ).tokens
    result = retriever.recommend([["i1", "??", "i2", "i99"], ["i1", "i2"], ["nobody"], []], k=4)
    assert mixed == clean
    assert none == empty == []
    assert result.unknown == [["??", "i99"], [], ["nobody"], []]
    assert [len(part) for part in (result.scores, result.interests)] == [4, 4]


def test_the_whole_history_stays_out_and_k_beyond_the_catalogue_gives_the_rest(out):
    retriever = Retriever.load(out)
    history = [f"i{i % 20}" for i in range(60)]  # longer than the model reads
    result = retriever.recommend([history], k=1000)
    assert sorted(result.tokens[0]) == ["i20", "i21", "i22"]
    kept = retriever.recommend([history], k=1000, exclude_history=False)
    assert len(kept.tokens[0]) == N_ITEMS
    newest = retriever.recommend([history[-16:]], k=1000, exclude_history=False)
    assert newest.scores[0] == pytest.approx(kept.scores[0], abs=1e-6)


def test_a_huge_k_costs_no_more_than_the_catalogue(out):
    assert len(Retriever.load(out).recommend([["i1"]], k=10**15, exclude_history=False).tokens[0]) == N_ITEMS


def test_histories_may_be_numbers_tuples_arrays_and_generators(out, attr_export, tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    rows = [(user, item, t) for user in range(9) for t, item in enumerate(range(user, user + 8))]
    file = trained("SASRec", worlds.write(tmp_path / "data", "numbers", rows), "numbers")
    export(file, "numbered")
    retriever = Retriever.load("numbered")
    want = retriever.recommend([["3", "4"]], k=4)
    for history in ([3, 4], (3, 4), np.array([3, 4]), torch.tensor([3, 4]), (t for t in ("3", "4"))):
        assert retriever.recommend([history], k=np.int64(4)) == want
    assert retriever.recommend(torch.tensor([[3, 4]]), k=4) == want


def test_whole_numbers_as_pandas_makes_them_are_tokens(attr_export):
    reader = Retriever.load(attr_export / "out")._reader
    reader._vocabulary = {**reader._vocabulary, "device": {"1": 5}}
    assert reader.values("device", [[1, 1.0, "1", None, "2"]], width=6).tolist() == [[5, 5, 5, 0, 0, 0]]


def test_each_item_comes_with_the_interest_that_found_it(out):
    retriever = Retriever.load(out)
    result = retriever.recommend([["i1", "i5", "i9"]], k=8)
    interests = retriever._encode([retriever._reader.read(["i1", "i5", "i9"], row=0)], {})[0]
    for token, score, interest in zip(result.tokens[0], result.scores[0], result.interests[0]):
        vector = retriever.catalogue.vectors[retriever.catalogue.ids[token]]
        assert score == pytest.approx(float(interests[interest] @ vector), abs=1e-6)
        assert score == pytest.approx(float((interests @ vector).max()), abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.05, 50.0])
@pytest.mark.parametrize("column", ["genre", "topics"])
def test_diversity_is_the_greedy_choice(out, weight, column):
    retriever = Retriever.load(out)
    plain = retriever.recommend([["i1", "i5"]], k=20)
    chosen = retriever.recommend([["i1", "i5"]], k=5, diversity=weight, category=column)
    kinds = {f"i{i}": (f"g{i % 4}" if column == "genre" else f"t{i % 5}") for i in range(N_ITEMS)}
    want = slow.diverse(plain.tokens[0], plain.scores[0], k=5, categories=kinds, weight=weight)
    assert chosen.tokens[0] == want
    if weight == 50.0:
        assert len({kinds[token] for token in chosen.tokens[0]}) == (4 if column == "genre" else 5)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"histories": "i1,i2"}, "histories: a list of lists of tokens is needed"),
        ({"histories": ["i1", "i2"]}, "histories: a list of lists of tokens is needed"),
        ({"k": 0}, "k: must be at least 1, got 0"),
        ({"k": 2.0}, "k: must be an integer, got 2.0"),
        ({"histories": None}, "histories: a list of lists of tokens is needed, got None"),
        ({"histories": [["i1"], 7]}, "histories: a list of lists of tokens is needed, got 7 as number 1"),
        ({"histories": [["i1", 2.5]]}, "histories: number 0 holds 2.5; tokens are strings or whole numbers"),
        ({"histories": [["i1", None]]}, "histories: number 0 holds None"),
        ({"diversity": None}, "diversity: must be a finite number"),
        ({"category": "gnre"}, "category: no column 'gnre' in the export"),
        ({"attributes": {"tags": [["x"]]}}, "a value of 'tags' is a list of tokens .*, got 'x'"),
        ({"attributes": {"watched": ["1"]}}, "'watched' needs one value for each item of history 0, got the"),
        ({"attributes": {"device": [[["a"]]]}}, "a value of 'device' is a token .*, got ..a"),
        ({"diversity": -1.0}, "diversity: must be a finite number"),
        ({"diversity": 1.0}, r"category: diversity needs a column of the items, one of \['genre', 'topics'"),
        ({"diversity": 1.0, "category": "gnre"}, "category: no column 'gnre' in the export"),
        ({"attributes": {"wached": [[1.0]]}}, "attributes: 'wached' is not read by the model; it reads"),
        ({"attributes": {"watched": []}}, "attributes: 'watched' has lists for 0 histories, but there are 1"),
        ({"attributes": {"watched": [[]]}}, "'watched' needs one value for each item of history 0, got 0"),
        ({"attributes": {"watched": [["long"]]}}, "attributes: 'watched' takes numbers .*, got 'long'"),
    ],
    ids=str,
)  # fmt: skip
def test_requests_that_cannot_be_answered_are_named(out, request_, message):
    request_ = {"histories": [["i1"]], **request_}
    with pytest.raises(RequestError, match=message):
        Retriever.load(out).recommend(request_.pop("histories"), **request_)


# ---- damage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "altered", "missing"])
@pytest.mark.parametrize(
    "name", ["model.json", "model.safetensors", "items.json", "items.safetensors", "index.faiss"]
)
def test_every_damaged_file_is_named(out, name, damage):
    (file,) = out.glob(f"*/{name}")
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[:-7])
    elif damage == "altered":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        file.unlink()
    said = {"cut": r"\d+ bytes, but the manifest says", "altered": "its SHA-256 is not", "missing": "missing"}
    with pytest.raises(ExportError, match=rf"{name}: {said[damage]}"):
        Retriever.load(out)


def test_what_is_no_export_is_named(out, tmp_path):
    with pytest.raises(ExportError, match="gone: no such folder"):
        Retriever.load(tmp_path / "gone")
    (tmp_path / "half" / ".20260101T000000-00000000.part").mkdir(parents=True)
    with pytest.raises(
        ExportError, match=r"manifest\.json: missing; .*half is no export, or its writing was"
    ):
        Retriever.load(tmp_path / "half")
    (out / "manifest.json").write_text("{")
    with pytest.raises(ExportError, match=r"manifest\.json: not JSON"):
        Retriever.load(out)
    (out / "manifest.json").write_text("{}")
    with pytest.raises(ExportError, match=r"manifest\.json: not of format recbole_kuaiformer-export/1"):
        Retriever.load(out)


@pytest.mark.parametrize("key", ["version", "files", "index", "n_items", "n_model_items"])
@pytest.mark.parametrize("value", [None, 3.5])
def test_a_manifest_with_a_damaged_entry_is_named(out, key, value):
    manifest = bundle.read_manifest(out)
    manifest[key] = value
    (out / "manifest.json").write_text(json.dumps(manifest))
    for use in (Retriever.load, lambda folder: extend(folder, ["a"], torch.ones(1, 16))):
        with pytest.raises(ExportError, match=rf"manifest\.json: its entry '{key}' is missing or damaged"):
            use(out)


@pytest.mark.parametrize("damage", ["manifest", "format", "items.json", "interrupted"])
def test_exporting_again_mends_what_is_damaged(attr_export, out, monkeypatch, capsys, damage):
    file = checkpoint_in(attr_export / "saved")
    if damage == "manifest":
        (out / "manifest.json").write_text("{")
    elif damage == "format":
        (out / "manifest.json").write_text('{"format": "another"}')
    elif damage == "interrupted":
        (out / "manifest.json").unlink()  # broken off before the swap: a version lies there, and no manifest
    else:
        (*out.glob("*/items.json"),)[0].write_text("[")
    with pytest.raises(ExportError):
        Retriever.load(out)
    assert recbole_kuaiformer.export.main(["--checkpoint", str(file), "--out", str(out)]) == 0
    assert ("was damaged: items added to it" in capsys.readouterr().out) == (damage != "interrupted")
    assert Retriever.load(out).recommend([["i1"]], k=2).tokens[0]


def test_writing_that_breaks_off_leaves_the_old_version(out, monkeypatch):
    before = Retriever.load(out).version

    def fail(path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        bundle.write(out, files={"model.json": fail}, facts={})
    assert Retriever.load(out).version == before
    assert len([path for path in out.iterdir() if path.name != bundle.LOCK]) == 2


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ExportError, match="holds other files"):
        bundle.check_folder(tmp_path)
    with pytest.raises(ExportError, match=r"thesis\.tex: a file; name a folder"):
        bundle.check_folder(tmp_path / "thesis.tex")


# ---- new items and newer checkpoints -----------------------------------------------------------------


def test_an_added_item_is_found_left_out_and_unknown_to_the_model(out):
    before = Retriever.load(out)
    interests = before._encode([before._reader.read(["i1", "i5"], row=0)], {})[0]
    extend(out, ["new"], 3 * interests[:1], columns={"genre": ["g9"]})
    after = Retriever.load(out)
    result = after.recommend([["i1", "i5"]], k=3)
    assert result.tokens[0][0] == "new"
    assert result.scores[0][0] == pytest.approx(1.0, abs=1e-5)  # brought to the length of the others
    assert result.interests[0][0] == 0
    had = after.recommend([["i1", "new", "i5"]], k=30)
    assert "new" not in had.tokens[0]
    assert had.unknown == [["new"]]
    assert len(had.tokens[0]) == N_ITEMS - 2
    assert after.catalogue.columns["genre"][-1] == "g9"
    assert after.catalogue.columns["seconds"][-1] is None
    assert "new" not in before.recommend([["i1", "i5"]], k=30).tokens[0]  # a reader keeps its view


def test_vectors_from_attributes_are_the_models_own_without_the_id(out):
    retriever = Retriever.load(out)
    model = retriever.model
    vectors = retriever.vectors_from_attributes(
        {"genre": ["g1", "g77"], "topics": [["t1", "t2"], []], "seconds": [12.0, None]}
    )
    assert vectors.shape == retriever.catalogue.vectors[:2].shape
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    number = retriever.catalogue.ids["i5"]
    with torch.no_grad():
        model.tokens.ids.weight[number] = 0
        alone = model.item_vectors(torch.tensor([number]))
    same = retriever.vectors_from_attributes({"genre": ["g1"], "topics": [["t0", "t2"]], "seconds": [15.0]})
    torch.testing.assert_close(same, alone)
    extend(out, ["a", "b"], vectors)
    assert {"a", "b"} <= {*Retriever.load(out).recommend([["i1"]], k=30).tokens[0]}
    with pytest.raises(RequestError, match="values: 'seconds' is missing; the model reads"):
        retriever.vectors_from_attributes({"genre": ["g1"]})
    with pytest.raises(RequestError, match="values: 'titel' is not read by the model; the model reads"):
        retriever.vectors_from_attributes({"genre": [], "topics": [], "seconds": [], "titel": []})
    with pytest.raises(RequestError, match="values: 'genre' needs one value for each new item, got 'g1'"):
        retriever.vectors_from_attributes({"genre": "g1", "topics": [["t1"]], "seconds": [1]})
    with pytest.raises(RequestError, match="a value of 'topics' is a list of tokens"):
        retriever.vectors_from_attributes({"genre": ["g1"], "topics": ["t1"], "seconds": [1]})
    with pytest.raises(RequestError, match="as many values of each attribute"):
        retriever.vectors_from_attributes({"genre": ["g1"], "topics": [], "seconds": [1]})


@pytest.mark.parametrize(
    ("tokens", "vectors", "columns", "message"),
    [
        (["i3"], torch.ones(1, 16), {}, "tokens: 'i3' is in the export already"),
        (["a", "a"], torch.ones(2, 16), {}, "tokens: 'a' is in the export already, or given twice"),
        ([], torch.ones(0, 16), {}, "tokens: none given"),
        (["[PAD]"], torch.ones(1, 16), {}, r"tokens: '\[PAD\]' cannot name an item"),
        (["a"], torch.ones(1, 16), {"genre": [{}]}, "columns: 'genre' takes strings, numbers and lists"),
        (["a"], torch.ones(1, 15), {}, r"vectors: 1 tokens need a shape of \(1, 16\), got \(1, 15\)"),
        (["a"], torch.full((1, 16), torch.nan), {}, "vectors: hold NaN"),
        (["a"], torch.zeros(1, 16), {}, "vectors: one is zero"),
        (["a"], torch.ones(1, 16), {"gnre": ["x"]}, "columns: no column 'gnre'"),
        (["a"], torch.ones(1, 16), {"genre": []}, "columns: 'genre' has 0 values for 1 items"),
    ],
)
def test_additions_that_do_not_fit_are_named_and_change_nothing(out, tokens, vectors, columns, message):
    before = bundle.read_manifest(out)
    with pytest.raises(RequestError, match=message):
        extend(out, tokens, vectors, columns=columns)
    assert bundle.read_manifest(out) == before


def test_writers_wait_for_each_other_and_lose_nothing(out):
    """Four threads add six items each, all at once."""
    errors = []

    def add(writer):
        for number in range(6):
            try:
                extend(out, [f"w{writer}-{number}"], torch.ones(1, 16))
            except Exception as error:
                errors.append(error)

    writers = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not errors
    catalogue = Retriever.load(out).catalogue
    assert {*catalogue.tokens[N_ITEMS + 1 :]} == {f"w{w}-{n}" for w in range(4) for n in range(6)}


def test_the_version_before_stays_and_older_ones_and_remains_go(out):
    (out / ".20260101T000000-00000000.part").mkdir()
    versions = [bundle.read_manifest(out)["version"]]
    for number in range(5):
        versions.append(extend(out, [f"n{number}"], torch.ones(1, 16)))
        assert {path.name for path in out.iterdir() if path.is_dir()} == {*versions[-2:]}


def test_readers_see_one_version_or_the_other_while_it_is_refreshed(out):
    """A thread adds an item again and again; whatever is loaded meanwhile fits together."""
    n_versions, stop, seen, errors = 12, threading.Event(), [], []

    def load():
        while not stop.is_set():
            try:
                retriever = Retriever.load(out, index="torch")
                seen.append(len(retriever.catalogue.tokens))
                assert len(retriever.catalogue.vectors) == len(retriever.catalogue.tokens)
                assert retriever.index.n_items == len(retriever.catalogue.tokens) - 1
            except bundle.StaleExportError:  # overtaken again and again: allowed, and says so
                pass
            except Exception as error:
                errors.append(error)

    reader = threading.Thread(target=load)
    reader.start()
    for number in range(20 * n_versions):  # a busy machine may let the reader finish late
        extend(out, [f"n{number}"], torch.ones(1, 16))
        if number >= n_versions and len({*seen}) > 1:
            break
    stop.set()
    reader.join()
    assert not errors
    assert len({*seen}) > 1


def test_a_newer_checkpoint_is_swapped_in_and_added_items_are_reported(tmp_path, monkeypatch, capsys):
    worlds.at_home(monkeypatch, tmp_path)
    old = trained("SASRec", attributed(tmp_path / "old"), "attr", into="a")
    return_code = recbole_kuaiformer.export.main(["--checkpoint", str(old), "--out", "out"])
    assert return_code == 0
    before = Retriever.load("out")
    extend("out", ["i24", "mine"], torch.ones(2, 64))
    new = trained("SASRec", attributed(tmp_path / "new", offset=5), "attr", into="b")
    capsys.readouterr()
    assert recbole_kuaiformer.export.main(["--checkpoint", str(new), "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert "1 items added earlier are unknown to this checkpoint and left out: mine" in said
    after = Retriever.load("out")
    assert {*after.catalogue.ids} == {f"i{i + 5}" for i in range(N_ITEMS)}
    assert before.recommend([["i1"]], k=2).tokens[0]  # still answers from its own version


@pytest.mark.parametrize("name", ["SASRec", "KuaiFormer"])
@pytest.mark.parametrize("change", ["order", "more"])
def test_a_dataset_changed_since_training_is_refused(tmp_path, monkeypatch, name, change):
    """RecBole numbers items as they first appear: other files, other numbers, wrong recommendations."""
    worlds.at_home(monkeypatch, tmp_path)
    path = worlds.cyclic(tmp_path / "data", n_users=20)
    file = trained(name, path, "cyclic")
    inter = tmp_path / "data" / "cyclic" / "cyclic.inter"
    head, *rows = inter.read_text().splitlines()
    rows = rows[::-1] if change == "order" else [*rows, "u0\tbrand-new\t1700009999"]
    inter.write_text("\n".join([head, *rows]) + "\n")
    with pytest.raises(CheckpointError, match=r"\.pth: the dataset's files are not those it was trained on"):
        export(file, "out")
    assert not Path("out").exists()


def test_export_from_another_folder_needs_the_data_path(tmp_path, monkeypatch, capsys):
    worlds.at_home(monkeypatch, tmp_path)
    worlds.cyclic(tmp_path / "data", n_users=20)
    file = trained("KuaiFormer", "data", "cyclic").resolve()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    arguments = ["--checkpoint", str(file), "--out", "out"]
    assert recbole_kuaiformer.export.main(arguments) == 2
    assert "Set --data_path to the folder" in capsys.readouterr().err
    assert recbole_kuaiformer.export.main([*arguments, "--data_path", "../data"]) == 0
    assert Retriever.load("out").recommend([["i3"]], k=2).tokens[0]


def test_a_checkpoint_without_a_fingerprint_is_exported_with_a_warning(tmp_path, monkeypatch, caplog):
    worlds.at_home(monkeypatch, tmp_path)
    file = trained("KuaiFormer", worlds.cyclic(tmp_path / "data", n_users=20), "cyclic")
    state = torch.load(file, weights_only=True)
    del state["config"]["final"]["dataset_fingerprint"]
    torch.save(state, file, pickle_protocol=2)
    with caplog.at_level("WARNING"):
        export(file, "out")
    assert "tells nothing of the files it was trained on" in caplog.text


def test_five_rows_are_enough_to_export(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    rows = [(f"u{user}", f"i{t}", t) for user in range(3) for t in range(4)]
    export(
        trained(
            "KuaiFormer",
            worlds.write(tmp_path / "data", "tiny", rows),
            "tiny",
            topk=[2],
            valid_metric="NDCG@2",
        ),
        "out",
    )
    assert Retriever.load("out").recommend([["i0"]], k=9).tokens[0]


# ---- approximate indexes, other backends -------------------------------------------------------------


def test_an_approximate_index_is_written_read_and_extended(attr_export, tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, attr_export)
    file = checkpoint_in("saved")
    folder = tmp_path / "hnsw"
    manifest = export(file, folder, factory="HNSW8", parameters="efSearch=64")
    assert not manifest["index"]["exact"]
    retriever = Retriever.load(folder)
    assert not retriever.index.is_exact
    exact = Retriever.load(folder, index="torch")
    assert exact.index.is_exact
    near = retriever.recommend([["i1", "i2"]], k=5)
    assert len({*near.tokens[0]} & {*exact.recommend([["i1", "i2"]], k=5).tokens[0]}) >= 3
    extend(folder, ["new"], torch.ones(1, 16))
    assert Retriever.load(folder).index.n_items == N_ITEMS + 1
    with pytest.raises(ValueError, match="index: 'nope' is not known; known: auto, torch"):
        Retriever.load(folder, index="nope")


def test_without_faiss_an_exact_export_is_written_and_served(attr_export, tmp_path, monkeypatch):
    import sys

    worlds.at_home(monkeypatch, attr_export)
    file = checkpoint_in("saved")
    monkeypatch.setitem(sys.modules, "faiss", None)
    export(file, tmp_path / "flat")
    retriever = Retriever.load(tmp_path / "flat")
    assert retriever.index.description == "torch on cpu"
    assert retriever.recommend([["i1"]], k=3).tokens[0]
    with pytest.raises(IndexUnavailableError, match="faiss"):
        export(file, tmp_path / "hnsw", factory="HNSW8")
    assert not (tmp_path / "hnsw").exists()


# ---- the command line --------------------------------------------------------------------------------


def test_recommend_prints_a_table_a_person_can_read(out, capsys):
    assert recbole_kuaiformer.recommend.main(["--export", str(out), "--history", "i1, i2,??", "-k", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rank", "item", "score", "interest", "genre", "topics", "seconds"]
    for rank, line in enumerate(lines[1:4], start=1):
        cells = line.split()
        number = int(cells[1][1:])
        assert int(cells[0]) == rank
        assert cells[4:] == [f"g{number % 4}", f"t{number % 5}", f"t{number % 3}", f"{10.0 + number}"]
    assert lines[4] == "not known to the model and left out: ??"


def test_recommend_says_when_nothing_is_left_and_keeps_its_lines(out, capsys):
    everything = ",".join(f"i{number}" for number in range(N_ITEMS))
    assert recbole_kuaiformer.recommend.main(["--export", str(out), "--history", everything]) == 0
    assert (
        capsys.readouterr().out
        == "every item is in the history already (--keep_history lets them come again)\n"
    )
    assert recbole_kuaiformer.recommend.main(["--export", str(out), "--history", "x,y"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "nothing of the history is known, so there is nothing to recommend from",
        "not known to the model and left out: x, y",
    ]
    extend(out, ["tab\tand\nline"], torch.ones(1, 16), columns={"genre": ["a\tb\x1b[31m"]})
    assert recbole_kuaiformer.recommend.main(["--export", str(out), "--history", "i1", "-k", "99"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + N_ITEMS
    assert not any("\t" in line or "\x1b" in line for line in lines)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("export", ["--checkpoint", "dict.pth", "--out", "x"], "dict.pth: not a checkpoint of RecBole or of"),
        ("export", ["--checkpoint", "list.pth", "--out", "x"], "list.pth: not a checkpoint of RecBole or of"),
        ("export", ["--checkpoint", "dict.pth", "--out", "dict.pth"], "dict.pth: a file; name a folder"),
        ("export", ["--checkpoint", "dict.pth", "--out", "dict.pth/x"], "dict.pth"),
        ("export", ["--checkpoint", "none.pth", "--out", "x"], "none.pth: no such checkpoint"),
        ("recommend", ["--export", "none", "--history", "i1"], "none: no such folder"),
        ("recommend", ["--export", "out", "--history", "i1", "-k", "0"], "k: must be at least 1"),
        (
            "recommend",
            ["--export", "out", "--history", "i1", "--diversity", "1"],
            "category: diversity needs",
        ),
    ],
)
def test_mistakes_are_one_line(out, capsys, command, arguments, message):
    torch.save({"a": 1}, "dict.pth")
    torch.save([1, 2], "list.pth")
    main = {"export": recbole_kuaiformer.export.main, "recommend": recbole_kuaiformer.recommend.main}[command]
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert message in said[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("BPR", "model: BPR knows users by id, not by history"),
        ("FPMC", "model: the score of FPMC is not known to be a dot product"),
        ("HSTU", "use_times: this HSTU reads times of history or request; a request gives items alone"),
        ("KuaiFormer", "request_gap: this KuaiFormer reads times .* train with request_gap: ~ to serve it"),
    ],
)
def test_models_that_cannot_be_served_from_histories_are_refused(tmp_path, monkeypatch, name, message):
    worlds.at_home(monkeypatch, tmp_path)
    sampled = {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}
    gap = {"request_gap": {"n_buckets": 4, "maximum": 600.0, "scale": "log"}}
    more = {"HSTU": {}, "KuaiFormer": gap}.get(name, sampled)
    file = trained(name, worlds.cyclic(tmp_path / "data", n_users=20), "cyclic", **more)
    with pytest.raises(ExportError, match=message):
        export(file, "out")
    assert not Path("out").exists()


def test_the_manifest_says_what_was_used(out):
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["model"] == "KuaiFormer"
    assert manifest["n_items"] == manifest["n_model_items"] == N_ITEMS
    assert {"python", "torch", "recbole", "safetensors"} <= {*manifest["versions"]}


def test_an_export_from_before_some_keys_were_there_takes_their_defaults(out):
    (file,) = out.rglob("*model*.json")
    about = json.loads(file.read_text())
    for key in ("target_horizon", "compression_block", "scores_at_once", "sequences"):
        assert key in about["config"]
        del about["config"][key]
    want = Retriever.load(out)
    again = build_model(about, state=want.model.state_dict())
    torch.testing.assert_close(again.item_vectors(), want.model.item_vectors())
