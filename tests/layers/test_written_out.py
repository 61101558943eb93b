"""Layers whose gradient is written out, against autograd of the plain formula; dropout against its law."""

import pytest
import torch
from torch.nn.functional import rms_norm, silu

from recbole_kuaiformer.layers.attention import Attention
from recbole_kuaiformer.layers.dropout import LEVELS, Dropout
from recbole_kuaiformer.layers.feed_forward import FeedForward
from recbole_kuaiformer.layers.llama_block import LlamaBlock
from recbole_kuaiformer.layers.rms_norm import RMSNorm
from recbole_kuaiformer.layers.rope import rotate, rotation_table
from recbole_kuaiformer.layers.visibility import attention_bias, causal_visibility, group_visibility


def values(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(mine, plain, *inputs):
    """Equal outputs, and equal gradients of a weighted sum of them."""
    results = []
    for function in (mine, plain):
        output = function()
        weighted = (values(*output.shape, seed=9) * output).sum()
        results.append((output, *torch.autograd.grad(weighted, inputs)))
    for one, other in zip(*results):
        torch.testing.assert_close(one, other)


def test_rms_norm_equals_torchs():
    norm = RMSNorm(6).double()
    with torch.no_grad():
        norm.weight.copy_(values(6, seed=1))
    x = (1e-3 * values(2, 3, 6)).requires_grad_()  # small enough for eps to count
    same(lambda: norm(x), lambda: rms_norm(x, (6,), norm.weight, 1e-6), x, norm.weight)
    assert [*norm.state_dict()] == ["weight"]


def test_swiglu_equals_the_formula():
    layer = FeedForward(6, inner_size=5).double()
    x = values(2, 3, 6).requires_grad_()

    def plain():
        gate, up = layer.gate_up(x).chunk(2, dim=-1)
        return layer.down(silu(gate) * up)

    same(lambda: layer(x), plain, x, *layer.parameters())


def test_rotation_equals_the_formula():
    cos, sin = (part.double() for part in rotation_table(torch.tensor([[3, 0, 7], [1, 2, 5]]), head_size=6))
    wide = values(2, 3, 4, 6)  # heads come as a view of the projection, not contiguous
    heads = wide.transpose(1, 2).requires_grad_()

    def plain():
        first, second = heads.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    same(lambda: rotate(heads, cos=cos, sin=sin), plain, heads)


def test_attention_of_the_last_tokens_is_the_end_of_attention_of_all():
    attention = Attention(8, n_heads=2, dropout_prob=0.0).double()
    x = values(3, 7, 8).requires_grad_()
    valid = torch.ones(3, 7, dtype=torch.bool)
    valid[1, :4] = False
    bias = attention_bias(causal_visibility(valid))
    rotation = tuple(part.double() for part in rotation_table(torch.arange(7)[None], head_size=4))
    same(
        lambda: attention(x, bias=bias[:, :, 5:], rotation=rotation),
        lambda: attention(x, bias=bias, rotation=rotation)[:, 5:],
        x,
        *attention.parameters(),
    )


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_dropout_drops_with_its_probability_and_keeps_the_mean(p):
    torch.manual_seed(4)
    x = torch.full((301, 997), 3.0, requires_grad=True)
    dropped = Dropout(p)(x)
    n, zeros = x.numel(), int((dropped == 0).sum())
    assert abs(zeros - n * p) < 5 * (n * p * (1 - p)) ** 0.5
    kept = dropped[dropped != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 3 / (1 - round(p * LEVELS) / LEVELS)))
    dropped.sum().backward()
    torch.testing.assert_close(x.grad * 3, dropped.detach())
    neighbours = (dropped[:, 1:] == 0) & (dropped[:, :-1] == 0)  # of one 64-bit draw, mostly
    assert abs(float(neighbours.float().mean()) - p * p) < 0.01


def test_dropout_is_torchs_generator_and_nothing_in_evaluation():
    layer, x = Dropout(0.4), values(5, 3)
    torch.manual_seed(1)
    first = layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)
    assert not torch.equal(layer(x), first)
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


@pytest.mark.parametrize("inner_size", [0, 5])
def test_a_weighted_sum_over_a_block_is_the_block_and_then_the_sum(inner_size):
    shape = {"n_heads": 2, "inner_size": inner_size, "hidden_dropout_prob": 0.3, "attn_dropout_prob": 0.2}
    block = LlamaBlock(8, **shape).double().eval()
    x = values(3, 7, 8).requires_grad_()
    there = torch.ones(3, 7, dtype=torch.bool)
    there[1, :4] = False
    weights = values(3, 7, seed=2).abs() * there
    given = {
        "bias": attention_bias(group_visibility(there)),
        "rotation": tuple(part.double() for part in rotation_table(torch.arange(7)[None], head_size=4)),
    }
    same(
        lambda: block.pooled(x, weights=weights, **given),
        lambda: (weights[..., None] * block(x, **given)).sum(1),
        x,
        *block.parameters(),
    )
    for p, q in ((0.3, 0.0), (0.0, 0.2)):
        shape |= {"hidden_dropout_prob": p, "attn_dropout_prob": q}
        block = LlamaBlock(8, **shape).double()
        dropped = block.pooled(x, weights=weights, **given)
        assert not torch.allclose(dropped, block.pooled(x, weights=weights, **given))


@pytest.mark.parametrize("p", [1 - 2**-18, 1.0, 2**-18])
def test_a_probability_beyond_the_levels_is_torchs_dropout(p):
    torch.manual_seed(2)
    dropped = Dropout(p)(torch.ones(50, 20))
    torch.manual_seed(2)
    assert torch.equal(dropped, torch.nn.functional.dropout(torch.ones(50, 20), p))


def test_rms_norm_of_bfloat16_is_as_precise_as_torchs():
    x, norm = values(50, 64).bfloat16(), RMSNorm(64).bfloat16()
    exact = rms_norm(x.double(), (64,), eps=1e-6)
    assert norm(x).dtype == torch.bfloat16
    assert (norm(x) - exact).abs().max() <= (rms_norm(x, (64,), eps=1e-6) - exact).abs().max() * 2
    assert norm(x[0]).shape == (64,)
