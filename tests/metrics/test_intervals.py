"""Against scipy's bootstrap and t-interval, and against coverage counted in simulation."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fst_bench import metrics
from fst_bench.metrics import paired_difference, stratified_bootstrap, t_interval
from fst_bench.metrics.curve import checked
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


def test_a_p_value_is_scipys() -> None:
    values = [0.1, 0.3, -0.05, 0.2, 0.15]
    assert metrics.p_value(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert metrics.p_value([0.0, 0.0]) == 1 and metrics.p_value([0.2, 0.2]) == 0
    assert math.isnan(metrics.p_value([0.2])) and math.isnan(metrics.p_value([0.2, math.nan]))


def test_holm_by_hand() -> None:
    # of four: .01 <= .05 / 4, .015 <= .05 / 3, .03 > .05 / 2, and so .04 is not rejected either, though below .05
    assert metrics.holm([0.03, 0.01, 0.04, 0.015]) == [False, True, False, True]
    assert metrics.holm([0.04]) == [True] and metrics.holm([]) == []
    assert metrics.holm([0.04, math.nan]) == [True, False], "what was not tested is not corrected for"


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_no_more_than_each_test_and_no_less_than_bonferroni(p: list[float]) -> None:
    for value, rejected in zip(p, metrics.holm(p), strict=True):
        assert (value <= 0.05 / len(p)) <= rejected <= (value <= 0.05)


SERIES: dict[str, Callable[[Any], Any]] = {
    "tuple": tuple,
    "numpy": np.array,
    "pandas": pd.Series,
    "torch": torch.tensor,
}


@pytest.mark.parametrize("kind", SERIES)
def test_every_metric_takes_whatever_holds_numbers(kind: str) -> None:
    """One table of them all: lists, tuples, numpy, pandas and torch hold the same numbers."""
    x, y, like = [1.0, 2.0, 4.0, 8.0, 16.0], [0.125, 0.25, 0.5, 0.5, 0.625], SERIES[kind]
    assert metrics.t_interval(like(y)) == metrics.t_interval(y)
    assert metrics.difference(like(x), like(y)) == metrics.difference(x, y)
    assert metrics.samples_to_threshold(like(x), like(y), 0.5) == metrics.Reached(6.0, 6.0)
    assert [part.tolist() for part in checked(like(x), like(y))] == [x, y]  # as for a fit, which takes seconds
    both, plain = {"a": like(y), "b": like(x)}, {"a": y, "b": x}
    assert metrics.stratified_bootstrap(both, reps=20) == metrics.stratified_bootstrap(plain, reps=20)
    assert metrics.paired_difference(both, both, reps=20) == metrics.paired_difference(plain, plain, reps=20)
    assert list(wilson(like(y), like(x))[0]) == list(wilson(np.array(y), np.array(x))[0])
    curves = [
        metrics.Curve("m", hold([0, 1]), hold(x), {"problems": [hold(x)] * 2}, [hold(y)] * 2, [hold(x)] * 2)
        for hold in (list, like)
    ]
    assert metrics.matched_kl(*curves) == metrics.matched_kl(curves[0], curves[0])
    assert metrics.ratios_at(*curves, 0.5) == metrics.ratios_at(curves[0], curves[0], 0.5)
    logits = [like(x), like(y)]
    assert metrics.token_kl(logits, logits[::-1], like([1, 1])) == metrics.token_kl(
        torch.tensor([x, y]), torch.tensor([y, x]), [1, 1]
    )


def test_a_table_of_scores_is_scores_by_its_columns() -> None:
    table = {"a": [0.5, 0.25, 1.0], "b": [0.5, 0.75, 0.0]}
    found = metrics.stratified_bootstrap(pd.DataFrame(table), reps=20)
    assert found == metrics.stratified_bootstrap(table, reps=20)


def test_another_shape_or_no_numbers_are_named() -> None:
    for broken, complaint in (
        (lambda: metrics.t_interval([]), r"values are \(n,\) with n at least 1, got \(0,\)"),
        (lambda: metrics.t_interval([[1.0], [2.0]]), r"got \(2, 1\)"),
        (lambda: metrics.difference(["a"], [1.0]), "scores before are no array of numbers"),
        (lambda: metrics.samples_to_threshold([1, 2], [[1, 2]], 0.5), r"one curve are \(points,\), got \(1, 2\)"),
        (lambda: metrics.stratified_bootstrap(pd.DataFrame()), "no scores"),
        (lambda: metrics.stratified_bootstrap({"a": [[1, 2], [3]]}), "scores of a are no array of numbers"),
    ):
        with pytest.raises(ValueError, match=complaint):
            broken()


def test_a_ratio_of_whole_counts() -> None:
    never, ever = metrics.Reached(None, 200), metrics.Reached(100, 50)
    assert metrics.efficiency_ratio(ever, never) == metrics.Ratio(0.5, "at most")
    assert metrics.efficiency_ratio(never, ever) == metrics.Ratio(2.0, "at least")
