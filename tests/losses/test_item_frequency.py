"""Streaming frequencies against a slow twin and against published behaviour."""

import copy

import pytest
import torch

from recbole_kuaiformer.losses.item_frequency import CountFrequency, StreamingFrequency
from tests.reference import losses as reference


def test_counts_are_shares_without_padding():
    q = CountFrequency(torch.tensor([9, 1, 0, 3]))(128)
    torch.testing.assert_close(q, torch.tensor([0.0, 0.25, 0.0, 0.75]))
    with pytest.raises(ValueError, match="no frequencies to count"):
        CountFrequency(torch.tensor([5, 0, 0]))


def test_equals_algorithm_2_step_by_step_repeats_counting_once():
    torch.manual_seed(0)
    frequency = StreamingFrequency(11, rate=0.2, initial_gap=30.0, n_hashes=1, n_slots=None)
    steps = [torch.randint(0, 11, (5,)) for _ in range(60)]
    for ids in steps:
        frequency.observe(ids)
    gaps = reference.streaming([set(ids.tolist()) - {0} for ids in steps], 11, rate=0.2, initial_gap=30.0)
    want = torch.tensor([0.0] + [1 / max(gap, 1.0) for gap in gaps[1:]])
    torch.testing.assert_close(frequency.inclusion_probability(), want)


@pytest.mark.parametrize(
    ("rate", "n_hashes", "n_slots", "published"),
    [
        (0.1, 1, 5000, 0.159),
        (0.01, 1, 5000, 0.110),
        (0.001, 1, 5000, 0.322),
        (0.01, 2, 2500, 0.069),
        (0.01, 1, None, 0.034),
    ],
)
def test_error_after_10_000_steps(rate, n_hashes, n_slots, published):
    """1000 items, q ∝ i², batches of 128 without replacement, gaps start at 100: Σ|p̂ − Bq| / 2B."""
    torch.manual_seed(0)
    n_items, batch = 1000, 128
    q = torch.arange(1, n_items + 1.0) ** 2
    q = q / q.sum()
    frequency = StreamingFrequency(
        n_items + 1, rate=rate, initial_gap=100.0, n_hashes=n_hashes, n_slots=n_slots
    )
    for _ in range(20):
        keys = (
            q.log() - torch.rand(500, n_items).log().neg().log()
        )  # Gumbel: top 128 is a draw without repeats
        for ids in keys.topk(batch, dim=1).indices + 1:
            frequency.observe(ids)
    error = float((frequency.inclusion_probability()[1:] - batch * q).abs().sum()) / (2 * batch)
    assert abs(error - published) < 0.02, error


def test_evaluation_moves_nothing_and_a_checkpoint_keeps_all():
    torch.manual_seed(0)
    frequency = StreamingFrequency(50, rate=0.1, initial_gap=9.0, n_hashes=2, n_slots=13)
    frequency.observe(torch.tensor([1, 2, 2]))
    before = copy.deepcopy(frequency.state_dict())
    frequency.eval()
    frequency.observe(torch.tensor([3]))
    for name, value in frequency.state_dict().items():
        assert torch.equal(value, before[name]), name
    other = StreamingFrequency(50, rate=0.1, initial_gap=9.0, n_hashes=2, n_slots=13)
    other.load_state_dict(before)
    for one in (frequency.train(), other):
        one.observe(torch.tensor([3, 4]))
    torch.testing.assert_close(other(16), frequency(16))


def test_per_draw_probability_inverts_inclusion_and_stays_finite_when_saturated():
    frequency = StreamingFrequency(4, rate=1.0, initial_gap=8.0, n_hashes=1, n_slots=None)
    for _ in range(3):
        frequency.observe(torch.tensor([1, 1, 1]))
    q = frequency(5)
    assert 0 < q[1] < 1
    torch.testing.assert_close(1 - (1 - q[2]) ** 5, torch.tensor(1 / 8))
    assert q[0] == 0


@pytest.mark.parametrize("bad", [{"rate": 0.0}, {"initial_gap": 0.5}, {"n_hashes": 2}, {"n_slots": 0}])
def test_arguments_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="got|slots"):
        StreamingFrequency(5, **{"rate": 0.1, "initial_gap": 9.0, "n_hashes": 1, "n_slots": None, **bad})
