"""The encoder against its slow twin, packed against separate passes, and its symmetries."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from recbole_kuaiformer.encoders.item_compression import ITEMS_AT_ONCE, fit_layout, geometric_groups
from recbole_kuaiformer.encoders.kuaiformer import KuaiFormerEncoder
from tests.reference import encoder as reference

D, K, H = 12, 3, 2
# Blocks of at most 3: groups of one block, of several, and with a partial oldest block.
LAYOUTS = [((), 9), ((4, 2), 5), ((3, 3, 2), 4), ((1, 5), 3), ((11, 6, 2), 4)]
BLOCK = 3


def make(groups, recent, *, query_init="learned", ffn=False, seed=0, block=BLOCK, end="oldest"):
    torch.manual_seed(seed)
    return (
        KuaiFormerEncoder(
            D,
            n_layers=2,
            n_heads=H,
            inner_size=None,
            n_interests=K,
            query_init=query_init,
            query_std=None,
            compression_groups=groups,
            recent_length=recent,
            compression_block=block,
            compression_ffn=ffn,
            compression_end=end,
            hidden_dropout_prob=0.5,
            attn_dropout_prob=0.3,
        )
        .double()
        .eval()
    )


def padded(histories, width):
    tokens = torch.full((len(histories), width, D), 1e3, dtype=torch.float64)
    valid = torch.zeros(len(histories), width, dtype=torch.bool)
    for row, history in enumerate(histories):
        if len(history):
            tokens[row, width - len(history) :] = history
            valid[row, width - len(history) :] = True
    return tokens, valid


def histories_of(lengths, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, D, generator=generator, dtype=torch.float64) for n in lengths]


@pytest.mark.parametrize(("groups", "recent"), LAYOUTS)
@pytest.mark.parametrize("ffn", [False, True])
@pytest.mark.parametrize("end", ["oldest", "newest"])
def test_equals_the_plain_loops_of_eq_6_to_8(groups, recent, ffn, end):
    model = make(groups, recent, ffn=ffn, end=end)
    width = sum(groups) + recent
    histories = histories_of([width, 1, recent, min(recent + 1, width)])
    tokens, valid = padded(histories, width)
    got = model(tokens, valid=valid, n_unseen=torch.zeros(len(histories), 1, dtype=torch.long))[:, 0]
    for row, history in enumerate(histories):
        want = reference.kuaiformer(
            history,
            model.state_dict(),
            groups=groups,
            recent_length=recent,
            block_size=BLOCK,
            n_layers=2,
            n_heads=H,
            end=end,
        )
        torch.testing.assert_close(got[row], want, rtol=0, atol=1e-6)


def test_queries_begin_as_large_as_asked():
    for asked, std in ((None, D**-0.5), (0.002, 0.002)):
        torch.manual_seed(0)
        encoder = KuaiFormerEncoder(
            D, n_layers=1, n_heads=H, inner_size=None, n_interests=500, query_init="learned", query_std=asked,
            compression_groups=(), recent_length=4, compression_block=4, compression_ffn=False,
            compression_end="oldest", hidden_dropout_prob=0.0, attn_dropout_prob=0.0,
        )  # fmt: skip
        assert float(encoder.queries.detach().std()) == pytest.approx(std, rel=0.03)


def test_which_end_is_compressed_matters_where_there_are_groups_alone():
    tokens, valid = padded(histories_of([9, 5, 2]), 11)
    unseen = torch.zeros(3, 1, dtype=torch.long)
    oldest, newest = (
        make((4, 2), 5, end=end)(tokens, valid=valid, n_unseen=unseen) for end in ("oldest", "newest")
    )
    assert (oldest[0] - newest[0]).abs().max() > 0.01
    torch.testing.assert_close(oldest[1:], newest[1:])  # five items and fewer are kept as they are


@pytest.mark.parametrize(("groups", "recent"), LAYOUTS)
@pytest.mark.parametrize("query_init", ["learned", "recent"])
def test_packed_targets_equal_separate_passes(groups, recent, query_init):
    model = make(groups, recent, query_init=query_init).float()
    width = sum(groups) + recent
    histories = histories_of([width, recent, 2])
    tokens, valid = padded(histories, width)
    tokens = tokens.float()
    for row, history in enumerate(histories):
        hidden = torch.arange(min(recent, len(history)))
        packed = model(tokens[row : row + 1], valid=valid[row : row + 1], n_unseen=hidden[None])[0]
        for p, n in enumerate(hidden.tolist()):
            # The history cut before the target, with the groups where they were: fewer recent items.
            shorter = make(groups, recent - n, query_init=query_init).float()
            shorter.load_state_dict(model.state_dict())
            cut = width - n
            alone = shorter(
                tokens[row : row + 1, :cut],
                valid=valid[row : row + 1, :cut],
                n_unseen=torch.zeros(1, 1, dtype=torch.long),
            )[0, 0]
            assert (packed[p] - alone).abs().max() <= 1e-5


@pytest.mark.parametrize("query_init", ["learned", "recent"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_padding_and_neighbours_in_the_batch_change_nothing(query_init, data):
    groups, recent = data.draw(st.sampled_from(LAYOUTS))
    width = sum(groups) + recent
    length = data.draw(st.integers(0, width))
    (history,) = histories_of([length], seed=length)
    model = make(groups, recent, query_init=query_init)
    none = torch.zeros(1, 1, dtype=torch.long)
    tokens, valid = padded([history], max(length, 1))
    alone = model(tokens, valid=valid, n_unseen=none)
    extra = data.draw(st.integers(max(length, 1), width))
    others = histories_of([extra, 0], seed=9)
    tokens, valid = padded([history, *others], extra)
    together = model(tokens, valid=valid, n_unseen=none.expand(3, 1))
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-6)
    assert torch.isfinite(together).all()


def test_a_target_does_not_depend_on_what_it_must_not_see():
    model = make((4, 2), 5)
    (history,) = histories_of([11])
    tokens, valid = padded([history], 11)
    n_unseen = torch.tensor([[0, 3]])
    before = model(tokens, valid=valid, n_unseen=n_unseen)
    tokens[0, -3:] = torch.randn(3, D, dtype=torch.float64)
    after = model(tokens, valid=valid, n_unseen=n_unseen)
    torch.testing.assert_close(after[0, 1], before[0, 1], rtol=0, atol=0)
    assert (after[0, 0] - before[0, 0]).abs().max() > 1e-3


def test_queries_are_causal_among_themselves():
    model = make((), 6)
    (history,) = histories_of([6])
    tokens, valid = padded([history], 6)
    none = torch.zeros(1, 1, dtype=torch.long)
    before = model(tokens, valid=valid, n_unseen=none)[0, 0]
    with torch.no_grad():
        model.queries[1] += 1.0
    after = model(tokens, valid=valid, n_unseen=none)[0, 0]
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)
    assert (after[2] - before[2]).abs().max() > 1e-6


def test_every_parameter_gets_a_gradient():
    model = make((4, 2), 5, ffn=True).train()
    tokens, valid = padded(histories_of([11, 3]), 11)
    model(tokens, valid=valid, n_unseen=torch.tensor([[0, 2], [1, 0]])).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_a_history_that_does_not_fit_is_refused():
    model = make((4, 2), 5)
    tokens, valid = padded(histories_of([12]), 12)
    with pytest.raises(ValueError, match=r"12 items does not fit compression_groups \[4, 2\]"):
        model(tokens, valid=valid, n_unseen=torch.zeros(1, 1, dtype=torch.long))


@settings(max_examples=50, deadline=None)
@given(
    groups=st.lists(st.integers(1, 9), max_size=5).map(tuple),
    recent=st.integers(1, 9),
    longest=st.integers(1, 60),
)
def test_a_layout_cut_short_keeps_the_newest_items(groups, recent, longest):
    cut, cut_recent = fit_layout(groups, recent_length=recent, max_length=longest)
    assert sum(cut) + cut_recent == min(longest, sum(groups) + recent)
    assert cut_recent == min(recent, longest)
    if cut:
        assert cut[1:] == groups[len(groups) - len(cut) + 1 :]


@settings(max_examples=50, deadline=None)
@given(n_items=st.integers(0, 100_000))
def test_geometric_groups_double_going_back_and_grow_in_number_like_the_logarithm(n_items):
    oldest, *others = geometric_groups(n_items) or (0,)
    assert oldest + sum(others) == n_items
    newest_first = others[::-1]
    assert newest_first == [16 * 2 ** (number // 2) for number in range(len(newest_first))]
    assert oldest <= 16 * 2 ** (len(newest_first) // 2)
    assert len(newest_first) <= 2 * math.log2(1 + n_items / 32) + 1


def flops(layout, *, length):
    """Of one history's encoding at the default width and depth, attention included."""
    groups, recent = layout
    model = KuaiFormerEncoder(
        64, n_layers=4, n_heads=2, inner_size=None, n_interests=4, query_init="learned",
        query_std=None, compression_groups=groups, recent_length=recent, compression_block=64,
        compression_ffn=False, compression_end="oldest", hidden_dropout_prob=0.0, attn_dropout_prob=0.0,
    )  # fmt: skip
    tokens, valid = torch.zeros(1, length, 64), torch.ones(1, length, dtype=torch.bool)
    # The counter knows no formula for the fused kernel of a CPU.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(tokens, valid=valid, n_unseen=torch.zeros(1, 1, dtype=torch.long))
    return counter.get_total_flops()


def test_arithmetic_grows_well_below_the_length_with_geometric_groups():
    short, long = (flops((geometric_groups(n - 48), 48), length=n) for n in (256, 10_000))
    assert long / short < 0.45 * 10_000 / 256


def test_256_compressed_items_cost_little_more_than_64_plain_ones():
    """The paper reports +10 %, and 6x without compression."""
    paper = ((64, 64, 16, 16, 16, 16, 16), 48)
    assert flops(paper, length=256) < 1.15 * flops(((), 64), length=64)


@pytest.mark.parametrize("length", [30, 272, 336])
def test_a_short_history_costs_what_a_layout_of_its_length_costs(length):
    short, long = (flops((geometric_groups(max(n - 48, 0)), 48), length=length) for n in (length, 10_000))
    assert short == long


def test_the_papers_groups_are_one_block_each_to_the_last_bit():
    groups = (64, 64, 16, 16, 16, 16, 16)
    tokens, valid = padded(histories_of([256, 131, 60]), 256)
    none = torch.zeros(3, 1, dtype=torch.long)
    blocks, whole = (
        make(groups, 48, block=block)(tokens, valid=valid, n_unseen=none) for block in (64, 10_000)
    )
    assert torch.equal(blocks, whole)


def test_a_group_taken_part_by_part_without_gradients_is_the_same():
    groups, recent = (11, 6, 2), 4
    model = make(groups, recent)
    n_rows = ITEMS_AT_ONCE["cpu"] // sum(groups) * 2 + 5
    tokens, valid = padded(histories_of([sum(groups) + recent - row % 9 for row in range(n_rows)]), 23)
    none = torch.zeros(n_rows, 1, dtype=torch.long)
    at_once = model(tokens, valid=valid, n_unseen=none)
    with torch.no_grad():
        in_parts = model(tokens, valid=valid, n_unseen=none)
    torch.testing.assert_close(in_parts, at_once, rtol=0, atol=1e-10)


def test_the_papers_layout_is_55_tokens():
    model = make((64, 64, 16, 16, 16, 16, 16), 48)
    tokens, valid = padded(histories_of([256]), 256)
    history, filled = model._compress(tokens, valid=valid)
    assert history.shape == (1, 55, D)
    assert filled.all()


def test_60_items_are_48_tokens_and_a_partial_group_of_12():
    model = make((64, 64, 16, 16, 16, 16, 16), 48)
    tokens, valid = padded(histories_of([60]), 256)
    _, filled = model._compress(tokens, valid=valid)
    assert filled[0].tolist() == [False] * 6 + [True] + [True] * 48
