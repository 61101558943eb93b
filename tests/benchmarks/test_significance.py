"""Tests of significance on cases whose answer is known."""

import json

import numpy as np
import pytest
from scipy import stats

from recbole_kuaiformer.benchmarks.significance import (
    RESAMPLES,
    as_rows,
    bootstrap,
    compared,
    corrected,
    holm,
    user_values,
    wilcoxon,
)
from recbole_kuaiformer.benchmarks.user_ranks import UserRanks, hit, ndcg, reciprocal


def ranks(kept, *, order=None, masked=None):
    n = len(kept)
    order = np.arange(n) if order is None else order
    tokens = np.array([f"u{i}" for i in range(n)])[order]
    held = {"kept": np.array(kept)[order]}
    if masked is not None:
        held["masked"] = np.array(masked)[order]
    return UserRanks(tokens, np.char.add("i", tokens), held)


def test_metrics_of_a_rank():
    places = np.array([1, 3, 4])
    assert hit(places, k=3).tolist() == [1.0, 1.0, 0.0]
    assert ndcg(places, k=3) == pytest.approx([1.0, 0.5, 0.0])  # log2(4) = 2
    assert reciprocal(places, k=3) == pytest.approx([1.0, 1 / 3, 0.0])


def test_ranks_survive_the_file(tmp_path):
    one = ranks([3, 1, 40], masked=[2, 1, 7])
    one.save(tmp_path / "ranks.npz")
    two = UserRanks.load(tmp_path / "ranks.npz")
    assert two.users.tolist() == ["u0", "u1", "u2"]
    assert two.items.tolist() == ["iu0", "iu1", "iu2"]
    assert {name: held.tolist() for name, held in two.ranks.items()} == {
        "kept": [3, 1, 40],
        "masked": [2, 1, 7],
    }


def test_identical_rankings_do_not_differ():
    places = [1, 5, 9, 30]
    for one in corrected(compared({"A": {1: ranks(places)}, "B": {1: ranks(places)}}, dataset="d")):
        assert (one.difference, one.low, one.high) == (0.0, 0.0, 0.0)
        assert one.p_bootstrap == one.p_wilcoxon == one.corrected_bootstrap == one.corrected_wilcoxon == 1.0
        json.dumps(as_rows([one]), allow_nan=False)


def test_a_planted_difference_is_found_whatever_the_order_of_users():
    rng = np.random.default_rng(0)
    worse = rng.integers(1, 40, size=400)
    better = np.where(np.arange(400) % 5 == 0, 1, worse)
    shuffled = rng.permutation(400)
    pair = {"A": {1: ranks(better)}, "B": {1: ranks(worse, order=shuffled)}}
    by_metric = {one.metric: one for one in corrected(compared(pair, dataset="d"))}
    one = by_metric["recall@10"]
    assert one.users == 400
    assert one.difference == pytest.approx((better <= 10).mean() - (worse <= 10).mean())
    assert 0 < one.low < one.difference < one.high
    assert one.corrected_bootstrap < 0.01
    assert one.corrected_wilcoxon < 0.01
    back = {other.metric: other for other in compared({"B": pair["B"], "A": pair["A"]}, dataset="d")}
    assert back["recall@10"].difference == pytest.approx(-one.difference)
    assert back["recall@10"].p_wilcoxon == pytest.approx(one.p_wilcoxon)


def test_equal_and_opposite_differences_are_chance():
    values = np.array([0.5, -0.5] * 50)
    low, high, p = bootstrap(values)
    assert low < 0 < high
    assert p > 0.9
    assert wilcoxon(values) > 0.9


def test_the_interval_is_that_of_resampling_user_by_user():
    rng = np.random.default_rng(3)
    values = rng.choice([0.0, 0.25, -0.5, 1.0], size=120, p=[0.5, 0.2, 0.2, 0.1])
    slow = [values[rng.integers(120, size=120)].mean() for _ in range(RESAMPLES)]
    low, high, _ = bootstrap(values)
    assert (low, high) == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.006)


def test_a_true_zero_is_rejected_as_often_as_it_should():
    rng = np.random.default_rng(5)
    p_values = [
        bootstrap(rng.choice([-1.0, 0.0, 1.0], size=80), resamples=400, seed=i)[2] for i in range(300)
    ]
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.09


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(7).choice([-1.0, 0.0, 1.0], size=20_000, p=[0.08, 0.8, 0.12]),
        np.array([1.0] * 10 + [0.0] * 19_990),
        np.array([0.1, 0.1, 0.1, 0.1, 0.2]),
        np.array([1.0, 0.5]),
    ],
)
def test_a_p_value_beyond_what_resamples_can_count_is_that_of_a_t_test(values):
    t = values.mean() / (values.std(ddof=1) / np.sqrt(len(values)))
    _, _, p = bootstrap(values)
    assert p == pytest.approx(2 * stats.t.sf(t, len(values) - 1))


def test_more_users_who_are_better_are_no_weaker_evidence():
    p_values = [bootstrap(np.array([1.0] * k + [0.0] * (2_000 - k)))[2] for k in range(1, 20)]
    assert p_values == sorted(p_values, reverse=True)


def test_few_users_are_not_called_different_more_often_than_they_should():
    rng = np.random.default_rng(13)
    p_values = [bootstrap(rng.normal(size=10), resamples=1_000, seed=i)[2] for i in range(1_000)]
    assert np.mean(np.array(p_values) < 0.001) < 0.006  # 6 where 1 is expected


def test_a_p_value_that_can_be_counted_is_near_the_t_tests_and_never_below_it():
    rng = np.random.default_rng(17)
    beyond = []
    for shift in (0.0, 0.05, 0.1, 0.15, 0.2):
        values = rng.normal(loc=shift, size=200)
        exact = stats.ttest_1samp(values, 0).pvalue
        low, high, p = bootstrap(values)
        assert exact <= p < exact + 0.03
        beyond.append(p > exact)
        assert (low > 0) == (p < 0.05) or abs(p - 0.05) < 0.03
    assert any(beyond)  # the count has a part in it


def test_all_users_better_by_the_same_is_no_division_by_zero():
    low, high, p = bootstrap(np.full(20, 0.25))
    assert (low, high) == (0.25, 0.25)
    assert p < 0.001


def test_wilcoxon_is_of_the_users_that_differ():
    differences = np.array([0.0, 1.0, 2.0, -0.5, 0.0, 3.0])
    assert wilcoxon(differences) == stats.wilcoxon([1.0, 2.0, -0.5, 3.0]).pvalue == 0.25


def test_holm_against_a_literal_example():
    # Sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and no smaller than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_correction_is_over_all_comparisons():
    rng = np.random.default_rng(1)
    held = {
        name: {1: ranks(rng.integers(1, 30, size=50), masked=rng.integers(1, 30, size=50))} for name in "ABC"
    }
    found = corrected(compared(held, dataset="d"))
    assert len(found) == 3 * 2 * 3
    smallest = min(found, key=lambda one: one.p_wilcoxon)
    assert smallest.corrected_wilcoxon == pytest.approx(min(1.0, 18 * smallest.p_wilcoxon))


def test_seeds_are_averaged_for_each_user_before():
    values = user_values([ranks([1, 30]), ranks([30, 30])], reading="kept", metric="recall@10")
    assert values == {("u0", "iu0"): 0.5, ("u1", "iu1"): 0.0}


def test_models_meet_on_their_common_users_and_readings():
    found = compared({"A": {1: ranks([1, 2, 3], masked=[1, 1, 1])}, "B": {1: ranks([1, 2])}}, dataset="d")
    assert {(one.history, one.users) for one in found} == {("kept", 2)}


def test_a_pair_is_tested_over_as_many_seeds_of_each():
    rng = np.random.default_rng(11)
    places = [rng.integers(1, 30, size=200) for _ in range(4)]
    three = dict(enumerate(map(ranks, places[:3]), start=1))
    once = {2: ranks(places[3])}
    (hits,) = (one for one in compared({"A": three, "B": once}, dataset="d") if one.metric == "recall@10")
    assert hits.seeds == 1
    assert hits.difference == pytest.approx((places[1] <= 10).mean() - (places[3] <= 10).mean())
    (hits,) = (
        one
        for one in compared({"A": three, "B": {**once, 3: ranks(places[0])}}, dataset="d")
        if one.metric == "recall@10"
    )
    assert hits.seeds == 2
    assert hits.difference == pytest.approx(
        (
            (places[1] <= 10).mean()
            + (places[2] <= 10).mean()
            - (places[3] <= 10).mean()
            - (places[0] <= 10).mean()
        )
        / 2
    )


def test_a_seed_without_a_reading_is_not_averaged_in_it():
    with_both, kept_alone = ranks([1, 30, 2], masked=[1, 2, 3]), ranks([9, 9, 9])
    found = compared({"A": {1: with_both, 2: kept_alone}, "B": {1: with_both}}, dataset="d")
    assert {(one.history, one.seeds) for one in found} == {("kept", 1), ("masked", 1)}
    assert all(one.difference == 0 for one in found)
