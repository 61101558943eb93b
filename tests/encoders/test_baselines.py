"""The baselines' encoders against their slow twins; packed against separate passes; routing's own laws."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from recbole_kuaiformer.encoders.causal import CausalEncoder
from recbole_kuaiformer.encoders.comirec import ComiRecDREncoder, ComiRecSAEncoder
from recbole_kuaiformer.encoders.mind import MINDEncoder, interest_counts
from recbole_kuaiformer.encoders.pinnerformer import PinnerFormerEncoder
from recbole_kuaiformer.layers.capsule_routing import route, shares, squash
from tests.encoders.test_kuaiformer import D, histories_of, padded
from tests.reference import encoder as blocks
from tests.reference import multi_interest as reference
from tests.reference.pinnerformer import pinnerformer

K, L = 5, 11
MAKE = {
    "SA": lambda: ComiRecSAEncoder(D, n_interests=K, max_length=L),
    "DR": lambda: ComiRecDREncoder(D, n_interests=K, max_length=L, n_rounds=3, shared_transform=False),
    "DR, shared": lambda: ComiRecDREncoder(D, n_interests=K, max_length=L, n_rounds=3, shared_transform=True),
    "MIND": lambda: MINDEncoder(D, n_interests=K, max_length=L, n_rounds=3),
    "causal": lambda: CausalEncoder(
        D, n_layers=2, n_heads=2, inner_size=None, hidden_dropout_prob=0.5, attn_dropout_prob=0.2
    ),
    "PinnerFormer": lambda: PinnerFormerEncoder(
        D,
        n_layers=2,
        n_heads=2,
        inner_size=None,
        max_length=L,
        hidden_dropout_prob=0.5,
        attn_dropout_prob=0.2,
    ),
}


def make(name, seed=0):
    torch.manual_seed(seed)
    return MAKE[name]().double().eval()


def slow(name, history, model):
    state = model.state_dict()
    if name == "SA":
        return reference.comirec_sa(history, state)
    if name.startswith("DR"):
        return reference.comirec_dr(history, state["transform"], 3)
    if name == "MIND":
        return reference.mind(history, state["transform.weight"], state["initial_logits"], 3)
    if name == "PinnerFormer":
        return pinnerformer(history, state, n_layers=2, n_heads=2)
    return _causal(history, state)


def _causal(history, state):
    rows = [*history]
    for layer in range(2):
        rows = blocks.block(
            rows, range(len(rows)), lambda i, j: j <= i, blocks.part(state, f"blocks.{layer}."), 2
        )
    return blocks.layer_norm_rms(rows[-1], state["norm.weight"])[None]


@pytest.mark.parametrize("name", MAKE)
def test_equals_the_plain_loops(name):
    model = make(name)
    histories = histories_of([L, 1, 4, 7])
    tokens, valid = padded(histories, L)
    got = model(tokens, valid=valid, n_unseen=torch.zeros(4, 1, dtype=torch.long))[:, 0]
    for row, history in enumerate(histories):
        torch.testing.assert_close(got[row], slow(name, history, model), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", MAKE)
def test_packed_targets_equal_separate_passes(name):
    model = make(name)
    histories = histories_of([L, 3, 8], seed=4)
    tokens, valid = padded(histories, L)
    for row, history in enumerate(histories):
        hidden = torch.arange(len(history))
        packed = model(tokens[row : row + 1], valid=valid[row : row + 1], n_unseen=hidden[None])[0]
        for p, n in enumerate(hidden.tolist()):
            want = slow(name, history[: len(history) - n], model)
            torch.testing.assert_close(packed[p], want, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", MAKE)
def test_a_target_alone_equals_the_same_one_among_others(name):
    model = make(name)
    tokens, valid = padded(histories_of([L, 0, 3, 8], seed=4), L)
    hidden = torch.tensor([[0, 3], [0, 1], [2, 3], [1, 0]])
    among = model(tokens, valid=valid, n_unseen=hidden)
    alone = [model(tokens, valid=valid, n_unseen=one) for one in hidden.split(1, dim=1)]
    torch.testing.assert_close(torch.cat(alone, dim=1), among, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["causal", "PinnerFormer"])
def test_of_a_target_alone_the_last_block_is_computed_at_one_place(name):
    model = make(name)
    tokens, valid = padded(histories_of([L, L]), L)
    spent = []
    for n_targets in (1, 2):
        with FlopCounterMode(display=False) as counter:
            model(tokens, valid=valid, n_unseen=torch.zeros(2, n_targets, dtype=torch.long))
        spent.append(counter.get_total_flops())
    assert spent[0] < 0.7 * spent[1]  # one block of two, and keys and values of the other


@pytest.mark.parametrize("name", MAKE)
def test_padding_means_nothing_and_an_empty_history_is_zero(name):
    model = make(name)
    histories = histories_of([4, 0, 2])
    narrow, wide = padded(histories, 5), padded(histories, L)
    none = torch.zeros(3, 1, dtype=torch.long)
    got = [model(tokens, valid=valid, n_unseen=none) for tokens, valid in (narrow, wide)]
    torch.testing.assert_close(got[0], got[1], rtol=0, atol=1e-10)
    assert (got[0][1] == 0).all()
    torch.testing.assert_close(model(wide[0], valid=wide[1], n_unseen=none), got[1], rtol=0, atol=0)


def test_each_behaviour_divides_itself_among_the_interests():
    """Σ_k c_tk = 1 at every real position: the softmax runs over interests, not over positions."""
    torch.manual_seed(0)
    seen = torch.tensor([[[True, True, True, False], [True, False, False, False]]])
    present = torch.tensor([[[True, True, True], [True, True, False]]])
    divided = shares(torch.randn(1, 2, 4, 3), seen=seen, present=present)
    torch.testing.assert_close(divided.sum(-1), seen.float())
    assert (divided[0, 1, :, 2] == 0).all()


def test_gradient_flows_through_the_last_round_only():
    torch.manual_seed(1)
    votes = torch.randn(1, 4, 3, D, dtype=torch.float64, requires_grad=True)
    seen, present = torch.ones(1, 1, 4, dtype=torch.bool), torch.ones(1, 1, 3, dtype=torch.bool)
    logits = torch.randn(1, 1, 4, 3, dtype=torch.float64)
    route(votes, seen=seen, present=present, logits=logits, n_rounds=3).sum().backward()
    got, votes.grad = votes.grad, None
    fixed = votes.detach()
    for _ in range(2):
        capsules = squash(torch.einsum("bplk,blkd->bpkd", logits.softmax(-1), fixed))
        logits = logits + torch.einsum("blkd,bpkd->bplk", fixed, capsules)
    squash(torch.einsum("bplk,blkd->bpkd", logits.softmax(-1), votes)).sum().backward()
    torch.testing.assert_close(got, votes.grad)


def test_squash_keeps_direction_and_zero():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    torch.testing.assert_close(squash(vectors), torch.tensor([[3.0, 4.0], [0.0, 0.0]]) * 25 / 26 / 5)


def test_minds_number_of_interests():
    lengths = torch.tensor([1, 2, 3, 4, 7, 8, 15, 16, 63, 64, 10**6])
    assert interest_counts(lengths, n_interests=5).tolist() == [1, 1, 1, 2, 2, 3, 3, 4, 5, 5, 5]
    model = make("MIND")
    (history,) = histories_of([5])
    tokens, valid = padded([history], 5)
    found = model(tokens, valid=valid, n_unseen=torch.zeros(1, 1, dtype=torch.long))[0, 0]
    assert len({tuple(row) for row in found.tolist()}) == 2  # log2 5, rounded down
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])
