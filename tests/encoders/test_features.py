"""Eq. 3–5: ids and attributes of every kind become tokens; what is missing has a row of its own."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_kuaiformer.encoders.buckets import bucketize
from recbole_kuaiformer.encoders.features import Attribute, AttributeEmbedding, ItemTokens, VectorProjection

N, D, B, L = 13, 6, 3, 5


@given(
    value=st.floats(-5, 1e6) | st.just(math.nan),
    n_buckets=st.integers(1, 1000),
    maximum=st.floats(0.5, 1e4),
    scale=st.sampled_from(["uniform", "log"]),
)
def test_bucket_is_eq_4(value, n_buckets, maximum, scale):
    got = bucketize(
        torch.tensor([value], dtype=torch.float64), n_buckets=n_buckets, maximum=maximum, scale=scale
    ).item()
    if math.isnan(value):
        assert got == 0
        return
    inside = max(0.0, min(value, maximum))
    share = inside / maximum if scale == "uniform" else math.log1p(inside) / math.log1p(maximum)
    assert abs(got - (min(int(share * n_buckets), n_buckets - 1) + 1)) <= (
        1 if abs(share * n_buckets - round(share * n_buckets)) < 1e-9 else 0
    )
    assert 1 <= got <= n_buckets


def test_an_unknown_scale_is_named():
    unchecked = bucketize.__wrapped__  # the annotation alone would refuse it under test
    with pytest.raises(ValueError, match="'cubic' is not known"):
        unchecked(torch.zeros(1), n_buckets=2, maximum=1.0, scale="cubic")


def test_multi_valued_is_the_mean_of_what_is_there():
    embedding = AttributeEmbedding(Attribute("tags", "multi_valued", "item", 7), size=4)
    table = embedding.table.weight
    got = embedding(torch.tensor([[3, 5, 0], [2, 0, 0], [0, 0, 0]]))
    torch.testing.assert_close(got, torch.stack([(table[3] + table[5]) / 2, table[2], table[0]]))


def test_missing_continuous_values_share_row_0():
    attribute = Attribute(
        "watch_time", "continuous", "interaction", 10, maximum=60.0, scale="uniform", missing_value=0.0
    )
    embedding = AttributeEmbedding(attribute, size=4)
    assert embedding.table.num_embeddings == 11
    got = embedding(torch.tensor([0.0, math.nan, 0.1, 59.0, 1e9]))
    torch.testing.assert_close(got, embedding.table.weight[torch.tensor([0, 0, 1, 10, 10])])


def tokens_with(attributes, *, target_attributes=False, residual=False):
    torch.manual_seed(0)
    values = {"author": torch.randint(0, 4, (N,)), "duration": torch.rand(N) * 300}
    return ItemTokens(
        N,
        hidden_size=D,
        attributes=attributes,
        item_values=values,
        attribute_size=4,
        target_attributes=target_attributes,
        residual=residual,
    )


AUTHOR = Attribute("author", "discrete", "item", 4)
DURATION = Attribute("duration", "continuous", "item", 10, maximum=300.0)
ACTION = Attribute("action", "discrete", "interaction", 3)


@pytest.mark.parametrize(("asked", "found"), [(None, 16**-0.5), (0.02, 0.02)])
def test_items_start_as_far_from_zero_as_asked(asked, found):
    torch.manual_seed(0)
    tokens = ItemTokens(
        2000,
        hidden_size=16,
        attributes=(),
        item_values={},
        attribute_size=4,
        target_attributes=False,
        item_std=asked,
    )
    assert float(tokens.ids.weight[1:].detach().std()) == pytest.approx(found, rel=0.02)


def test_without_attributes_a_token_is_its_id_and_no_mlp_is_built():
    tokens = tokens_with(())
    ids = torch.randint(0, N, (B, L))
    torch.testing.assert_close(tokens(ids, values={}), tokens.ids.weight[ids])
    assert tokens.mlp is None
    assert tokens.ids.weight[0].abs().sum() == 0


def test_a_token_depends_on_each_attribute_and_the_target_side_on_ids_alone():
    tokens = tokens_with((AUTHOR, DURATION, ACTION))
    ids = torch.randint(1, N, (B, L))
    action = torch.randint(0, 2, (B, L))
    before = tokens(ids, values={"action": action})
    assert before.shape == (B, L, D)
    assert not torch.equal(before, tokens(ids, values={"action": action + 1}))
    for name in ("item_author", "item_duration"):
        kept = tokens.get_buffer(name).clone()
        tokens.get_buffer(name).copy_(kept.roll(1))
        assert not torch.equal(before, tokens(ids, values={"action": action})), name
        tokens.get_buffer(name).copy_(kept)
    torch.testing.assert_close(tokens.items(ids[0]), tokens.ids.weight[ids[0]])


def test_target_attributes_reach_the_target_side():
    tokens = tokens_with((AUTHOR, ACTION), target_attributes=True)
    ids = torch.arange(1, N)
    assert (tokens.items(ids) - tokens.ids.weight[ids]).abs().max() > 1e-4
    assert tokens.of_item == ("author",)


def test_residual_tokens_begin_as_ids_on_both_sides_and_learn_what_the_mlp_adds():
    tokens = tokens_with((AUTHOR, ACTION), target_attributes=True, residual=True)
    ids, action = torch.randint(1, N, (B, L)), torch.randint(0, 3, (B, L))
    torch.testing.assert_close(tokens(ids, values={"action": action}), tokens.ids.weight[ids])
    torch.testing.assert_close(tokens.items(ids[0]), tokens.ids.weight[ids[0]])
    step = torch.optim.SGD(tokens.parameters(), lr=1.0)
    for _ in range(2):  # the first moves the last layers, the second what is behind them
        attributes_before = [table.table.weight.detach().clone() for table in tokens.embeddings.values()]
        step.zero_grad()
        (
            tokens(ids, values={"action": action}).square().sum() + tokens.items(ids[0]).square().sum()
        ).backward()
        step.step()
    mixed = tokens.mlp(torch.cat([tokens.ids(ids), tokens.embeddings["author"](tokens.item_author[ids]),
                                  tokens.embeddings["action"](action)], dim=-1))  # fmt: skip
    assert mixed.abs().max() > 1e-3
    torch.testing.assert_close(tokens(ids, values={"action": action}), tokens.ids(ids) + mixed)
    for table, before in zip(tokens.embeddings.values(), attributes_before, strict=True):
        assert not torch.equal(table.table.weight, before)


def test_a_vector_goes_through_its_linear_layer_and_a_missing_one_has_its_own():
    torch.manual_seed(3)
    projection = VectorProjection(Attribute(name="v", kind="vector", source="item", n_values=4), size=D)
    values = torch.randn(B, L, 4)
    values[1, 2] = torch.nan
    values[2, 0, 3] = torch.nan
    out = projection(values)
    weight, bias = projection.linear.weight, projection.linear.bias
    assert torch.equal(out[1, 2], projection.missing)
    torch.testing.assert_close(out[0, 1], weight @ values[0, 1] + bias)
    torch.testing.assert_close(out[2, 0], weight[:, :3] @ values[2, 0, :3] + bias)  # cut short: zeros follow


def test_attributes_may_have_any_name():
    """Those that torch's modules have themselves, or forbid, are told apart."""
    names = ("type", "%type", "cat.main", "cat%2Emain", "values", "plain_name")
    attributes = tuple(Attribute(name, "discrete", "item", 4) for name in names)
    columns = {name: torch.arange(N) % 4 for name in names}
    tokens = ItemTokens(
        N, hidden_size=D, attributes=attributes, item_values=columns, attribute_size=3, target_attributes=True
    )
    ids = torch.tensor([[3, 5]])
    before = tokens(ids, values={})
    assert len({id(tokens.embedding(name)) for name in names}) == len(names)
    for name in names:
        kept = tokens.embedding(name).table.weight.detach().clone()
        with torch.no_grad():
            tokens.embedding(name).table.weight += 1
        assert not torch.equal(tokens(ids, values={}), before), name
        with torch.no_grad():
            tokens.embedding(name).table.weight.copy_(kept)
    assert {"item_plain_name", "embeddings.plain_name.table.weight"} <= tokens.state_dict().keys()
