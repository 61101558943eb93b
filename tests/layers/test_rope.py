"""Rotary positions: only differences of positions matter, and lengths are kept."""

import pytest
import torch

from recbole_kuaiformer.layers.attention import Attention
from recbole_kuaiformer.layers.rope import rotate, rotation_table
from tests.reference.encoder import turned


def test_equals_the_plane_by_plane_twin():
    vectors = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    positions = torch.randint(-4, 300, (2, 5))
    cos, sin = rotation_table(positions, head_size=8)
    got = rotate(vectors, cos=cos.double(), sin=sin.double())
    for b, h, t in torch.cartesian_prod(*map(torch.arange, vectors.shape[:3])).tolist():
        want = turned(vectors[b, h, t], positions[b, t].item())
        torch.testing.assert_close(got[b, h, t], want, rtol=0, atol=1e-4)


def test_scores_depend_on_differences_alone():
    query, key = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)

    def score(i, j):
        a = rotate(query, **dict(zip(("cos", "sin"), rotation_table(torch.tensor([[i]]), head_size=8))))
        b = rotate(key, **dict(zip(("cos", "sin"), rotation_table(torch.tensor([[j]]), head_size=8))))
        return (a * b).sum()

    torch.testing.assert_close(score(3, 11), score(103, 111), rtol=0, atol=1e-4)
    assert (score(3, 11) - score(3, 12)).abs() > 1e-4


def test_odd_widths_are_refused():
    with pytest.raises(ValueError, match="even width"):
        rotation_table(torch.zeros(1, 1, dtype=torch.long), head_size=5)
    with pytest.raises(ValueError, match="hidden_size 12 does not divide into n_heads 4"):
        Attention(12, n_heads=4, dropout_prob=0.0)
