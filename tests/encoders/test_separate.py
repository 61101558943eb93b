"""Encoders of one target at a time, through the Protocol of several."""

import pytest
import torch
from torch import nn

from recbole_kuaiformer.encoders.separate import SeparatePasses
from tests.bidirectional import BidirectionalEncoder
from tests.encoders.test_baselines import MAKE
from tests.encoders.test_baselines import make as make_packed
from tests.encoders.test_kuaiformer import D, histories_of, padded

K, WIDTH = 3, 9
LENGTHS = [WIDTH, 1, 5, 0, 7]
N_UNSEEN = torch.tensor([[0, 3, 8, 0], [0, 0, 0, 0], [4, 2, 1, 0], [0, 0, 0, 0], [5, 12, 6, 1]])


def make(tokens_at_once=10_000):
    torch.manual_seed(0)
    encoder = BidirectionalEncoder(D, n_layers=2, n_heads=2, n_interests=K, dropout_prob=0.4)
    return SeparatePasses(encoder.double().eval(), tokens_at_once=tokens_at_once)


def one_by_one(encoder, histories):
    """The wrapped encoder on each history cut before its target, without padding."""
    rows = []
    for history, hidden in zip(histories, N_UNSEEN.tolist()):
        cuts = [history[: max(len(history) - n, 0)] for n in hidden]
        inputs = [padded([cut], max(len(cut), 1)) for cut in cuts]
        rows.append(torch.cat([encoder(tokens, valid=valid) for tokens, valid in inputs]))
    return torch.stack(rows)


@pytest.mark.parametrize("tokens_at_once", [1, 20, 10_000])
def test_equals_a_call_on_each_prefix_gradients_included(tokens_at_once):
    model = make(tokens_at_once)
    histories = [history.requires_grad_() for history in histories_of(LENGTHS)]
    weights = torch.randn(5, 4, K, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    tokens, valid = padded(histories, WIDTH)
    sources = [*histories[:3], histories[4], *model.parameters()]
    got = model(tokens, valid=valid, n_unseen=N_UNSEEN)
    want = one_by_one(model.encoder, histories)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
    gradients = (torch.autograd.grad((x * weights).sum(), sources) for x in (got, want))
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens, valid=valid, n_unseen=N_UNSEEN), got, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MAKE)
def test_encoders_of_several_targets_give_the_same_one_by_one(name):
    class OneTarget(nn.Module):
        def __init__(self):
            super().__init__()
            self.packed = make_packed(name)

        def forward(self, tokens, *, valid):
            return self.packed(tokens, valid=valid, n_unseen=valid.new_zeros(len(valid), 1).long())[:, 0]

    model = OneTarget()
    tokens, valid = padded(histories_of(LENGTHS), WIDTH)
    got = SeparatePasses(model, tokens_at_once=30)(tokens, valid=valid, n_unseen=N_UNSEEN)
    want = model.packed(tokens, valid=valid, n_unseen=N_UNSEEN)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-7)


def test_a_target_does_not_depend_on_what_it_must_not_see():
    model = make()
    tokens, valid = padded(histories_of([WIDTH]), WIDTH)
    n_unseen = torch.tensor([[0, 3]])
    before = model(tokens, valid=valid, n_unseen=n_unseen)
    tokens[0, -3:] = torch.randn(3, D, dtype=torch.float64)
    after = model(tokens, valid=valid, n_unseen=n_unseen)
    assert torch.equal(after[0, 1], before[0, 1])
    assert (after[0, 0] - before[0, 0]).abs().max() > 1e-3


class Counting(nn.Module):
    """How many histories, and tokens with padding, each call holds."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, tokens, *, valid):
        self.calls.append(valid.shape)
        return tokens[:, -1:]


def test_targets_that_see_the_same_are_encoded_once_and_parts_are_bounded():
    tokens, valid = padded(histories_of(LENGTHS), WIDTH)
    counting = Counting()
    with torch.no_grad():
        SeparatePasses(counting, tokens_at_once=20)(tokens, valid=valid, n_unseen=N_UNSEEN)
    distinct = sum(len({*row}) for row in N_UNSEEN.tolist())
    assert sum(n for n, _ in counting.calls) == distinct
    assert all(n * width <= 20 for n, width in counting.calls)
    assert max(width for _, width in counting.calls) == WIDTH
    assert len(counting.calls) > 2


def test_a_history_without_an_item_is_one_column_of_padding():
    tokens, valid = padded(histories_of([0, 2]), WIDTH)
    counting = Counting()
    SeparatePasses(counting)(tokens[:1], valid=valid[:1], n_unseen=torch.zeros(1, 1, dtype=torch.long))
    SeparatePasses(counting)(tokens[1:], valid=valid[1:], n_unseen=torch.full((1, 1), 5))
    assert counting.calls == [(1, 1), (1, 1)]


def test_what_is_kept_for_the_gradient_does_not_grow_with_the_targets():
    model = make(tokens_at_once=2 * WIDTH)
    tokens, valid = padded(histories_of([WIDTH] * 4), WIDTH)
    kept = []
    for n_targets in (1, 8):
        storages = {}

        def note(tensor, storages=storages):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            got = model(tokens.requires_grad_(), valid=valid, n_unseen=torch.arange(n_targets).expand(4, -1))
        kept.append(sum(storages.values()))
        got.sum().backward()
    assert kept[1] < 1.5 * kept[0]
