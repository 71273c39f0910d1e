"""Against scipy's bootstrap and t-interval, and against coverage counted in simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from fst_bench.metrics import paired_difference, stratified_bootstrap, t_interval
from fst_bench.metrics.intervals import wilson


def test_the_t_interval_by_hand() -> None:
    # mean 3, standard deviation sqrt(2.5), t(.975, 4) = 2.7764: 2.7764 * sqrt(2.5) / sqrt(5) = 1.9632
    found = t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.value, found.half) == pytest.approx((3.0, 1.9632), abs=1e-4) and found.clear
    assert (found.low + found.high) / 2 == pytest.approx(3.0)
    one = t_interval([0.5])
    assert one.value == 0.5 and math.isnan(one.low) and math.isnan(one.half) and not one.clear


def test_wilson_against_published_values_and_scipy() -> None:
    low, high = wilson(np.array([0.0, 15 / 148, 1.0]), np.array([20, 148, 20]))
    # the middle one: Newcombe 1998, table I, 15 of 148
    np.testing.assert_allclose(low, [0.0, 0.0624, 0.8389], atol=2e-4)
    np.testing.assert_allclose(high, [0.1611, 0.1605, 1.0], atol=2e-4)
    for right, n in ((0, 64), (13, 64), (64, 64), (77, 192)):
        theirs = stats.binomtest(right, n).proportion_ci(method="wilson")
        assert wilson(right / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_it_is_scipys_percentile_bootstrap_at_the_widened_level() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.2, 30)
    ours = stratified_bootstrap({"a": values}, reps=20_000)
    level = 1 - 2 * stats.norm.cdf(math.sqrt(30 / 29) * stats.t.ppf(0.025, 29))
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", confidence_level=level, random_state=1
    )
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.003)


def test_for_a_mean_of_few_seeds_it_is_near_the_t_interval() -> None:
    values = np.array([0.42, 0.55, 0.48, 0.61, 0.5])
    ours = stratified_bootstrap({"a": values}, reps=20_000)
    half = stats.t.ppf(0.975, 4) * values.std(ddof=1) / math.sqrt(5)
    assert (ours.high - ours.low) / 2 == pytest.approx(half, rel=0.25)


@pytest.mark.parametrize("seeds", [5, 12])
def test_coverage_over_seeds_and_problems(seeds: int) -> None:
    """Seeds, problems and their pairs all vary: the true mean of two tasks lies inside at least as often as said."""
    rng, inside, runs = np.random.default_rng(0), 0, 150
    for _ in range(runs):
        run = rng.normal(0, 0.1, seeds)  # a good seed is good on both tasks
        scores = {t: 0.5 + run[:, None] + rng.normal(0, 0.1, 20) + rng.normal(0, 0.2, (seeds, 20)) for t in ("a", "b")}
        estimate = stratified_bootstrap(scores, reps=400)
        inside += estimate.low <= 0.5 <= estimate.high
    assert 0.9 * runs <= inside <= 0.995 * runs


def test_a_seed_is_one_run_over_all_tasks() -> None:
    """Where a seed is good on one task and as bad on the other, their average does not vary."""
    run = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
    opposite = stratified_bootstrap({"a": 0.5 + run, "b": 0.5 - run})
    assert opposite.high - opposite.low == pytest.approx(0.0)
    alike = stratified_bootstrap({"a": 0.5 + run, "b": 0.5 + run})
    assert alike.high - alike.low > 0.2


def test_tasks_weigh_alike_whatever_their_number_of_problems() -> None:
    assert stratified_bootstrap({"a": np.ones((3, 2)), "b": np.zeros((3, 50))}).value == 0.5


def test_pairing_takes_out_what_both_share() -> None:
    rng = np.random.default_rng(0)
    run, problem = rng.normal(0, 0.2, 5), rng.normal(0, 0.2, 40)
    b = {"a": 0.4 + run[:, None] + problem + rng.normal(0, 0.02, (5, 40))}
    a = {"a": b["a"] + 0.05 + rng.normal(0, 0.02, (5, 40))}
    difference = paired_difference(a, b)
    assert difference.clear and difference.low < 0.05 < difference.high
    one = stratified_bootstrap(a)
    assert difference.high - difference.low < 0.2 * (one.high - one.low)
    back = paired_difference(b, a)
    assert back.value == pytest.approx(-difference.value) and back.clear
    assert not paired_difference(a, a).clear


def test_any_statistic_and_a_seed() -> None:
    scores = {"a": np.random.default_rng(0).random((5, 30))}
    worst = stratified_bootstrap(scores, lambda s: float(s["a"].mean(1).min()), seed=1)
    assert worst.value == scores["a"].mean(1).min()
    assert worst == stratified_bootstrap(scores, lambda s: float(s["a"].mean(1).min()), seed=1)
    assert worst != stratified_bootstrap(scores, lambda s: float(s["a"].mean(1).min()), seed=2)


def test_one_number_has_no_interval_and_one_seed_that_of_its_problems() -> None:
    assert math.isnan(stratified_bootstrap({"a": [0.5]}).low) and not stratified_bootstrap({"a": [0.5]}).clear
    one = stratified_bootstrap({"a": np.random.default_rng(0).random((1, 100))})
    assert 0.05 < one.high - one.low < 0.2


@pytest.mark.parametrize(
    ("a", "b", "complaint"),
    [
        ({"a": [0.1, math.nan]}, None, "score of a, seed row 1, problem 0 is nan"),
        ({"a": [0.1, 0.2], "b": [0.1]}, None, "b has 1 seeds, a has 2"),
        ({}, None, "no scores"),
        ({"a": [[]]}, None, "scores of a are"),
        ({"a": [0.1]}, {"b": [0.1]}, "only one side has the task a"),
        ({"a": [0.1]}, {"a": [0.1], "c": [0.2]}, "only one side has the task c"),
        ({"a": [0.1, 0.2]}, {"a": [0.1, 0.2, 0.3]}, r"a has \(2, 1\) .* and \(3, 1\)"),
    ],
)
def test_what_does_not_fit_is_named(a: dict, b: dict | None, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        stratified_bootstrap(a) if b is None else paired_difference(a, b)
