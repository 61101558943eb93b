"""Categories of items, loaded by RecBole or read from the file beside."""

import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset

from recbole_kuaiformer.benchmarks.item_categories import VALUES, categories_of
from recbole_kuaiformer.data.atomic_files import DataError
from recbole_kuaiformer.settings import SettingsError
from tests import worlds

INTER = ["user_id", "item_id", "timestamp"]


def world(tmp_path, monkeypatch, *, item=None, text=None):
    """24 items, whose kind is their letter; their columns of ``item`` are loaded."""
    tmp_path.mkdir(exist_ok=True)
    worlds.at_home(monkeypatch, tmp_path)
    path = worlds.two_kinds(tmp_path / "data", n_users=20)
    if text is not None:
        (tmp_path / "data" / "twofold" / "twofold.item").write_text(text)
    load_col = {"inter": INTER} | ({"item": ["item_id", *item]} if item else {})
    given = worlds.small(path, "twofold", load_col=load_col, attributes={})
    dataset = create_dataset(Config("KuaiFormer", config_dict=given))
    dataset.build()  # splits, and makes tensors of the features
    return dataset


def by_token(dataset, categories):
    return {str(dataset.id2token("item_id", i)): int(categories[i]) for i in range(1, len(categories))}


def same_partition(one, other):
    assert one.keys() == other.keys()
    return len({*one.values()}) == len({*other.values()}) == len({(one[item], other[item]) for item in one})


def test_which_of_several_values_counts(tmp_path, monkeypatch):
    dataset = world(tmp_path, monkeypatch, item=["kind", "tags"])
    kinds = categories_of(dataset, "kind").tolist()
    by_value = {name: categories_of(dataset, "tags", value=name).tolist() for name in VALUES}
    assert by_value["last"] == by_value["most_common"]
    assert len(set(by_value["first"][1:])) == 5
    assert len(set(zip(by_value["last"][1:], kinds[1:]))) == 2  # the letter, under another number


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("field", ["kind", "tags"])
def test_a_field_that_is_not_loaded_is_read_from_the_file(tmp_path, monkeypatch, field, value):
    loaded = world(tmp_path / "one", monkeypatch, item=["kind", "tags"])
    plain = world(tmp_path / "other", monkeypatch)
    assert plain.item_feat is None
    want = by_token(loaded, categories_of(loaded, field, value=value))
    got = by_token(plain, categories_of(plain, field, value=value))
    assert same_partition(want, got)
    assert int(categories_of(plain, field, value=value)[0]) == 0


def test_items_without_a_value_or_a_row_have_no_category_and_others_are_left_out(tmp_path, monkeypatch):
    rows = ["item_id:token\tkind:token\ttags:token_seq", "a1\tx\t", "a2\t\tp q", "nobody\ty\tq", "a3\tx\tq"]
    dataset = world(tmp_path, monkeypatch, text="\n".join(rows) + "\n")
    kinds = by_token(dataset, categories_of(dataset, "kind"))
    assert kinds["a1"] == kinds["a3"] > 0
    assert {item for item in kinds if kinds[item]} == {"a1", "a3"}
    tags = by_token(dataset, categories_of(dataset, "tags"))
    assert {item for item in tags if tags[item]} == {"a2", "a3"}
    assert tags["a2"] != tags["a3"]
    last = by_token(dataset, categories_of(dataset, "tags", value="last"))
    assert last["a2"] == last["a3"]


@pytest.mark.parametrize("item", [["kind", "price"], None])
@pytest.mark.parametrize(
    ("field", "message"),
    [("price", "holds numbers"), ("colour", "item has no field 'colour'; there are")],
)
def test_a_field_that_is_no_category_is_an_error(tmp_path, monkeypatch, item, field, message):
    dataset = world(tmp_path, monkeypatch, item=item)
    with pytest.raises(SettingsError, match=message):
        categories_of(dataset, field)


def test_a_file_that_is_not_there_or_not_recboles_is_named(tmp_path, monkeypatch):
    dataset = world(tmp_path, monkeypatch)
    file = tmp_path / "data" / "twofold" / "twofold.item"
    file.write_text("item_id\tkind\na1\tx\n")
    with pytest.raises(DataError, match="twofold.item: the header names a column 'item_id' of type ''"):
        categories_of(dataset, "kind")
    file.unlink()
    with pytest.raises(SettingsError, match="twofold.item has no field 'item_id'; there is no such file"):
        categories_of(dataset, "kind")


def test_no_category_at_all_is_zeros(tmp_path, monkeypatch):
    dataset = world(tmp_path, monkeypatch, text="item_id:token\ttags:token_seq\nnobody\tx\n")
    assert torch.equal(categories_of(dataset, "tags"), torch.zeros(dataset.item_num, dtype=torch.int64))


@pytest.mark.parametrize("field", ["kind", "tags"])
def test_the_file_is_read_as_recbole_reads_it(tmp_path, monkeypatch, field):
    """The first of two rows of an item, NA for nothing, separators at the ends of lines."""
    head = "item_id:token\tkind:token\ttags:token_seq\tprice:float"
    rows = [head, "a1\tp\tq r s\t1\t", "a1\tx\ty\t1\t", "a2\tNA\ts\t1\t", "a3\tp\tq\t1\t", "a4\tx\ty\t1\t"]
    rows += [
        f"{letter}{i}\tz\tz\t1\t"
        for letter in "ab"
        for i in range(12)
        if letter == "b" or i not in (1, 2, 3, 4)
    ]
    text = "\n".join(rows) + "\n"
    loaded = world(tmp_path / "one", monkeypatch, item=["kind", "tags"], text=text)
    plain = world(tmp_path / "other", monkeypatch, text=text)
    for value in VALUES:
        want = by_token(loaded, categories_of(loaded, field, value=value))
        got = by_token(plain, categories_of(plain, field, value=value))
        assert same_partition(want, got)
        assert {item for item in want if want[item] == 0} == {item for item in got if got[item] == 0}


def test_a_file_with_stray_quotes_is_refused(tmp_path, monkeypatch):
    text = 'item_id:token\tkind:token\na1\t"Love, p\na2\tx\na3\ty\n'
    dataset = world(tmp_path, monkeypatch, text=text)
    with pytest.raises(SettingsError, match="twofold.item cannot be read"):
        categories_of(dataset, "kind")
