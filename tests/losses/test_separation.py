"""The term that keeps interests apart, against plain loops; and what descending it does."""

from itertools import permutations

import pytest
import torch

from recbole_kuaiformer.losses.separation import mean_squared_cosine


def test_it_is_the_mean_over_rows_and_pairs():
    interests = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cosines = [
        torch.nn.functional.cosine_similarity(row[i], row[j], dim=0)
        for row in interests
        for i, j in permutations(range(4), 2)
    ]
    want = sum(float(cosine) ** 2 for cosine in cosines) / len(cosines)
    assert float(mean_squared_cosine(interests)) == pytest.approx(want)
    assert float(mean_squared_cosine(7 * interests)) == pytest.approx(want)  # lengths do not count
    assert torch.autograd.gradcheck(mean_squared_cosine, interests[:2].requires_grad_())


def test_descending_it_turns_near_interests_to_right_angles():
    generator = torch.Generator().manual_seed(1)
    interests = torch.randn(8, 1, 6, generator=generator) + 0.1 * torch.randn(8, 3, 6, generator=generator)
    interests.requires_grad_()
    before = float(mean_squared_cosine(interests).detach())
    optimizer = torch.optim.Adam([interests], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        mean_squared_cosine(interests).backward()
        optimizer.step()
    assert before > 0.9
    assert float(mean_squared_cosine(interests).detach()) < 0.01


def test_copies_are_no_pairs():
    interests = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(3))
    with_copies = torch.cat([interests, interests[:, :1]], dim=1)
    first, second, third = interests.unbind(1)
    pairs = [
        torch.nn.functional.cosine_similarity(a, b, dim=-1).square().mean()
        for a, b in ((first, second), (first, third), (second, third))
    ]
    want = (2 * pairs[0] + 2 * pairs[1] + pairs[2]) / 5  # the copy of the first is a pair with the others
    assert float(mean_squared_cosine(with_copies)) == pytest.approx(float(want), rel=1e-5)


def test_copies_and_single_interests_have_no_gradient():
    one = torch.randn(4, 1, 6, generator=torch.Generator().manual_seed(2), requires_grad=True)
    for interests in (one.expand(-1, 3, -1), one):
        term = mean_squared_cosine(interests)
        assert float(term.detach()) == 0
        (gradient,) = torch.autograd.grad(term, one)
        assert gradient.abs().max() < 1e-6
