"""HSTU against its slow twin; packed against separate passes; what it may and may not depend on."""

import math

import pytest
import torch

from recbole_kuaiformer.encoders.hstu import HSTUEncoder
from recbole_kuaiformer.layers.hstu_block import time_buckets
from tests.encoders.test_kuaiformer import histories_of, padded
from tests.reference import hstu as reference

D, H, QK, V, L = 12, 2, 5, 3, 9
READINGS = {"positions": (False, False), "times": (True, False), "request": (True, True)}


QUERIES = {"none": {}, "one": {"n_interests": 1}, "learned": {"n_interests": 4},
           "recent": {"n_interests": 3, "query_init": "recent"}}  # fmt: skip


def make(reading, seed=0, **queries):
    torch.manual_seed(seed)
    use_times, use_request_time = READINGS[reading]
    model = HSTUEncoder(
        D, n_layers=2, n_heads=H, qk_size=QK, value_size=V, max_length=L, use_times=use_times,
        use_request_time=use_request_time, dropout_prob=0.5, **queries,
    )  # fmt: skip
    with torch.no_grad():
        for block in model.blocks:
            for parameter in block.parameters():  # at .02 the attention would hardly count
                parameter.normal_(std=0.7)
    return model.double().eval()


def moments(lengths, seed=2):
    """Times of each history's items, and of the request after them: from seconds to weeks apart."""
    generator = torch.Generator().manual_seed(seed)
    gaps = [torch.exp(torch.rand(n + 1, generator=generator) * 14).long() for n in lengths]
    return [(-(gap.flip(0).cumsum(0)).flip(0)).tolist() for gap in gaps]


def batch(histories, when, width):
    tokens, valid = padded(histories, width)
    times = torch.full(valid.shape, 987_654_321)
    for row, moment in enumerate(when):
        if len(moment) > 1:
            times[row, width - len(moment) + 1 :] = torch.tensor(moment[:-1])
    return tokens, valid, {"times": times, "request_times": torch.tensor([m[-1] for m in when])}


def slow(reading, history, when, model, n_interests=0, query_init="learned"):
    use_times, use_request_time = READINGS[reading]
    return reference.hstu(
        history,
        when[:-1] if use_times else [0] * len(history),
        when[-1] if use_request_time else None,
        model.state_dict(),
        n=L + 11,
        n_layers=2,
        n_heads=H,
        qk_size=QK,
        value_size=V,
        n_interests=n_interests,
        recent=query_init == "recent",
    )


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("width", [7, L])
@pytest.mark.parametrize("queries", QUERIES.values(), ids=QUERIES)
def test_packed_targets_equal_the_plain_loops_over_each_prefix(reading, width, queries):
    """Every target of a window, in batches padded to different widths: the divisor is a constant."""
    model = make(reading, **queries)
    histories, when = histories_of([7, 1, 4]), moments([7, 1, 4])
    tokens, valid, more = batch(histories, when, width)
    n_unseen = torch.tensor([[0, 2, 6], [0, 0, 0], [3, 1, 0]])
    got = model(tokens, valid=valid, n_unseen=n_unseen, **more)
    assert got.shape == (3, 3, queries.get("n_interests", 1), D)
    for row, hidden in enumerate(n_unseen.tolist()):
        for p, n in enumerate(hidden):
            seen = len(histories[row]) - n
            want = slow(reading, histories[row][:seen], when[row][: seen + 1], model, **queries)
            torch.testing.assert_close(got[row, p], want, rtol=0, atol=1e-9)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("queries", QUERIES.values(), ids=QUERIES)
def test_a_target_alone_equals_the_same_one_among_others(reading, queries):
    model = make(reading, **queries)
    tokens, valid, more = batch(histories_of([7, 0, 4]), moments([7, 0, 4]), L)
    hidden = torch.tensor([[0, 2], [0, 1], [3, 4]])
    among = model(tokens, valid=valid, n_unseen=hidden, **more)
    alone = [model(tokens, valid=valid, n_unseen=one, **more) for one in hidden.split(1, dim=1)]
    torch.testing.assert_close(torch.cat(alone, dim=1), among, rtol=0, atol=1e-9)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("queries", QUERIES.values(), ids=QUERIES)
def test_what_a_target_must_not_see_and_any_origin_of_time_change_nothing(reading, queries):
    model = make(reading, **queries)
    histories, when = histories_of([7]), moments([7])
    tokens, valid, more = batch(histories, when, 7)
    n_unseen = torch.tensor([[0, 3]])
    before = model(tokens, valid=valid, n_unseen=n_unseen, **more)
    later = {name: value + 12_345 for name, value in more.items()}
    torch.testing.assert_close(model(tokens, valid=valid, n_unseen=n_unseen, **later), before)
    tokens[0, -3:] = torch.randn(3, D, dtype=torch.float64)
    more["times"][0, -2:] += 99  # the first unseen item's time is the request's
    more["request_times"] += 1_000
    after = model(tokens, valid=valid, n_unseen=n_unseen, **more)
    assert torch.equal(after[0, 1], before[0, 1])
    assert not torch.equal(after[0, 0], before[0, 0])


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("queries", QUERIES.values(), ids=QUERIES)
def test_the_time_of_the_request_counts_where_it_is_asked_for_alone(reading, queries):
    model = make(reading, **queries)
    tokens, valid, more = batch(histories_of([6]), moments([6]), 6)
    none = torch.zeros(1, 1, dtype=torch.long)
    before = model(tokens, valid=valid, n_unseen=none, **more)
    more["request_times"] += 10**6
    after = model(tokens, valid=valid, n_unseen=none, **more)
    assert torch.equal(after, before) == (reading != "request")


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("queries", QUERIES.values(), ids=QUERIES)
def test_an_empty_history_is_zero(reading, queries):
    tokens, valid, more = batch(histories_of([0, 2]), moments([0, 2]), 3)
    got = make(reading, **queries)(tokens, valid=valid, n_unseen=torch.tensor([[0], [2]]), **more)
    assert torch.equal(got, torch.zeros_like(got))


@pytest.mark.parametrize(("n_heads", "size"), [(1, 50), (2, 25)])
def test_a_published_layer_has_13_100_parameters(n_heads, size):
    model = HSTUEncoder(
        50, n_layers=3, n_heads=n_heads, qk_size=size, value_size=size, max_length=200, use_times=True,
        use_request_time=False, dropout_prob=0.2,
    )  # fmt: skip
    for block in model.blocks:
        assert sum(parameter.numel() for parameter in block.parameters()) == 13_100


def test_buckets_of_time():
    minute, hour, day, week = 60, 3600, 86_400, 604_800
    seconds = torch.tensor([0, 1, minute, hour, day, week, -week, 2**62])
    assert time_buckets(seconds).tolist() == [0, 0, 13, 27, 37, 44, 44, 128]
    far = [int(math.exp(0.301 * b)) + 1 for b in range(1, 120)]
    assert time_buckets(torch.tensor(far)).tolist() == [reference.bucket(s) for s in far]


@pytest.mark.parametrize(("reading", "missing"), [("times", "items"), ("request", "request")])
def test_times_that_are_needed_and_missing_are_named(reading, missing):
    tokens, valid, more = batch(histories_of([2]), moments([2]), 2)
    del more["times" if missing == "items" else "request_times"]
    with pytest.raises(ValueError, match=f"the time.* of the {missing}"):
        make(reading)(tokens, valid=valid, n_unseen=torch.zeros(1, 1, dtype=torch.long), **more)
