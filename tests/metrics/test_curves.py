"""Numbers of learning curves: asymptotes, and samples to a threshold."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from fst_bench.metrics import (
    Curve,
    Drift,
    Estimate,
    Ratio,
    Reached,
    asymptote_difference,
    efficiency_ratio,
    fit_asymptote,
    least_kl,
    matched_kl,
    ratios_at,
    samples_to_threshold,
    t_interval,
    token_kl,
)
from fst_bench.metrics.asymptote import curve, jacobian
from fst_bench.metrics.paired_curves import seed_rows

# --- Curves from known sigmoids, and curves that tell nothing about where they end


SEEN = np.arange(0, 3001, 150)


def sigmoid(x: np.ndarray, A: float, B: float, mid: float, r0: float) -> np.ndarray:
    """The formula as the paper writes it, (C_mid / C)^B, apart from C = 0."""
    out = np.full(len(x), r0)
    out[x > 0] = r0 + (A - r0) / (1 + (mid / x[x > 0]) ** B)
    return out


@pytest.mark.parametrize(
    "truth", [(0.9, 2.0, 600.0, 0.05), (0.45, 1.0, 400.0, 0.2), (0.6, 5.0, 1500.0, 0.0), (0.3, 3.0, 900.0, 0.7)]
)
def test_a_known_sigmoid_is_found(truth: tuple[float, float, float, float]) -> None:
    fit = fit_asymptote(SEEN, sigmoid(SEEN, *truth))
    assert (fit.A, fit.B, fit.c_mid, fit.r0) == pytest.approx(truth, rel=0.02, abs=0.003)
    assert fit.residual < 1e-3 and fit.identifiable
    assert fit([truth[2]])[0] == pytest.approx((truth[0] + truth[3]) / 2, abs=0.01)  # half of the rise at C_mid


@pytest.mark.parametrize("seeds", [1, 5])
def test_noise_moves_it_little(seeds: int) -> None:
    rng = np.random.default_rng(1)
    curves = sigmoid(SEEN, 0.8, 2.0, 700.0, 0.1) + rng.normal(0, 0.03, (seeds, len(SEEN)))
    fit = fit_asymptote(SEEN, curves if seeds > 1 else curves[0], r0=0.1)
    assert abs(fit.A - 0.8) < 0.03 and fit.low <= fit.A <= fit.high and fit.high - fit.low < 0.1
    assert fit.identifiable and fit.r0 == 0.1
    noise = curves.mean(0) - sigmoid(SEEN, 0.8, 2.0, 700.0, 0.1)
    assert fit.residual <= np.sqrt((noise**2).mean())  # least squares lies no farther from the data than the truth does


def test_an_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    fits = [
        fit_asymptote(SEEN, sigmoid(SEEN, 0.8, 2.0, 700.0, 0.1) + rng.normal(0, 0.03, (8, len(SEEN))), r0=0.1)
        for _ in range(20)
    ]
    assert sum(fit.low <= 0.8 <= fit.high for fit in fits) >= 17  # at 95 % fewer are a chance of 1 in 60


def test_the_same_seed_is_the_same_fit() -> None:
    curves = sigmoid(SEEN, 0.8, 2.0, 700.0, 0.1) + np.random.default_rng(2).normal(0, 0.03, (3, len(SEEN)))
    assert fit_asymptote(SEEN, curves, seed=3) == fit_asymptote(SEEN, curves, seed=3)
    assert fit_asymptote(SEEN, curves, seed=3).A == fit_asymptote(SEEN, curves, seed=4).A  # the seed is the interval's


def test_a_curve_that_never_bends_has_no_asymptote() -> None:
    line = 0.05 + 0.0001 * SEEN + np.random.default_rng(0).normal(0, 0.01, len(SEEN))
    assert not fit_asymptote(SEEN, line, r0=0.05).identifiable
    slow = sigmoid(SEEN, 0.9, 1.5, 9000.0, 0.05) + np.random.default_rng(0).normal(0, 0.01, len(SEEN))
    assert not fit_asymptote(SEEN, slow, r0=0.05).identifiable


def test_an_asymptote_at_its_bound_is_no_finding() -> None:
    """A curve still rises at 0.78 after all samples; every resample's best A is 1, an interval of no width."""
    x = [float(n) for n in range(40, 1000, 40)]
    rising = [0.04 + 0.107 * math.log1p(n) for n in x]
    fit = fit_asymptote(x, [[a + 0.01 * (-1) ** (i + s) for i, a in enumerate(rising)] for s in range(5)])
    assert fit.A > 0.999 and fit.high - fit.low < 0.05 and not fit.identifiable
    there = [1 - 0.9 * math.exp(-n / 60) for n in x]  # this one gets there
    assert fit_asymptote(x, there).identifiable and fit_asymptote(x, there).A > 0.99


def test_a_curve_that_is_saturated_from_the_start_has_one() -> None:
    y = np.where(SEEN > 0, 0.85, 0.1) + np.random.default_rng(0).normal(0, 0.02, len(SEEN))
    fit = fit_asymptote(SEEN, y, r0=0.1)
    assert fit.identifiable and pytest.approx(0.85, abs=0.02) == fit.A  # though C_mid may be anywhere below 150
    flat = fit_asymptote(SEEN, np.full(len(SEEN), 0.4))
    assert flat.identifiable and pytest.approx(0.4, abs=1e-3) == flat.A


@pytest.mark.parametrize(
    ("x", "y", "more", "complaint"),
    [
        ([0, 1, 2], [0.1, 0.2, 0.3], {}, "at least 4 points"),
        ([0, 1], [0.1, 0.2], {"r0": 0.1}, "at least 3 points"),
        ([0, 1, 2, 3], [0.1, 0.2, np.nan, 0.4], {}, r"accuracy \(2,\) is nan"),
        ([0, 1, 2, 3], [[0.1, 0.2, 0.3, 0.4], [0.1, np.inf, 0.3, 0.4]], {}, r"accuracy \(1, 1\) is inf"),
        ([0, 1, 2, 3], [0.1, 0.2, 0.3, 0.4], {"r0": 7.0}, "r0 is an accuracy"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x: list, y: list, more: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        fit_asymptote(x, y, **more)


def test_a_difference_is_paired_by_seed() -> None:
    """A seed's share in both curves is not part of their difference."""
    rng = np.random.default_rng(2)
    shared = rng.normal(0, 0.05, (6, 1))
    a, b = (sigmoid(SEEN, top, 2.0, 700.0, 0.1) + shared + rng.normal(0, 0.005, (6, len(SEEN))) for top in (0.8, 0.7))
    first, second = fit_asymptote(SEEN, a), fit_asymptote(SEEN, b)
    difference = asymptote_difference(first, second, 6)
    assert difference.value == pytest.approx(0.1, abs=0.02) and difference.clear
    assert difference.low <= 0.1 <= difference.high
    assert difference.high - difference.low < 0.5 * (first.high - first.low)
    same = asymptote_difference(first, first, 6)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_the_derivatives_are_those_of_the_curve() -> None:
    x, p, h = np.array([0.0, 3.0, 50.0, 700.0, 9000.0]), (0.8, 0.1, 5.0, 1.7), 1e-6
    for i in range(4):
        up, down = (tuple(v + sign * h * (j == i) for j, v in enumerate(p)) for sign in (1, -1))
        assert jacobian(x, p)[:, i] == pytest.approx((curve(x, up) - curve(x, down)) / (2 * h), abs=1e-7)


# --- Samples to a threshold


X = [0, 100, 200, 300, 400, 500]


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        # the means are .1 at 0, .15 at 50, .35 at 150, .55 at 250: .5 is three quarters of the way from 150 to 250
        ([0.1, 0.2, 0.5, 0.6, 0.7, 0.8], Reached(225.0, 225.0)),
        ([0.1, 0.8, 0.0, 0.1, 0.7, 0.9], Reached(375.0, 375.0)),  # the lone peak at 100 does not count
        ([0.1, 0.2, 0.3, 0.4, 0.4, 0.5], Reached(None, 500.0)),
        ([0.6, 0.3, 0.3, 0.4, 0.4, 0.4], Reached(0.0, 0.0)),  # had it before learning
        ([0.1, 0.9, 0.9, 0.9, 0.9, 0.9], Reached(50.0, 50.0)),  # a mean that is exactly there
        ([0.2, 1.0, 1.0, 1.0, 1.0, 1.0], Reached(37.5, 37.5)),  # .2 at 0, .6 at 50
    ],
)
def test_a_threshold_is_reached_by_two_evaluations(accuracy: list[float], expected: Reached) -> None:
    found = samples_to_threshold(X, accuracy, 0.5)
    assert (found.samples, found.after) == pytest.approx((expected.samples, expected.after))


def test_it_is_shown_with_its_censoring() -> None:
    assert (str(Reached(1200.0, 1000.0)), str(Reached(None, 5040.0))) == ("1,200", ">5,040")


@given(st.lists(st.floats(0, 1), min_size=3, max_size=12), st.floats(0, 1))
def test_a_higher_threshold_never_comes_sooner(accuracy: list[float], threshold: float) -> None:
    x = list(range(len(accuracy)))

    def when(t: float) -> float:
        reached = samples_to_threshold(x, accuracy, t).samples
        return math.inf if reached is None else reached

    assert when(threshold) <= when(min(1.0, threshold + 0.1))
    at = when(threshold)
    if 0.5 <= at < math.inf:
        after = math.ceil(at + 0.5)  # the later evaluation of the mean that is first there
        assert accuracy[after] + accuracy[after - 1] >= 2 * threshold - 1e-9


def test_ratios_keep_what_censoring_leaves() -> None:
    assert efficiency_ratio(Reached(1200.0, 1100.0), Reached(400.0, 300.0)) == Ratio(3.0, "exactly")
    assert efficiency_ratio(Reached(None, 1200.0), Reached(400.0, 300.0)) == Ratio(3.0, "at least")
    assert efficiency_ratio(Reached(600.0, 500.0), Reached(None, 1200.0)) == Ratio(0.5, "at most")
    assert efficiency_ratio(Reached(None, 1200.0), Reached(None, 1200.0)) == Ratio(None, "unknown")
    with pytest.raises(ValueError, match="other curve has no samples"):
        efficiency_ratio(Reached(600.0, 500.0), Reached(0.0, 0.0))


@pytest.mark.parametrize(
    ("samples", "accuracy", "complaint"),
    [
        ([0, 1], [0.1, math.nan], r"accuracy \(1,\) is nan"),
        ([0, 2, 2], [0.1, 0.2, 0.3], "2 is followed by 2"),
        ([0, 1], [0.1], r"got \(2,\) and \(1,\)"),
        ([-1, 1], [0.1, 0.2], "negative: -1"),
        ([0], [0.1], "at least 2 points"),
    ],
)
def test_what_is_no_curve_is_refused(samples: list, accuracy: list, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        samples_to_threshold(samples, accuracy, 0.5)


# --- test_drift


def test_two_tokens_by_hand() -> None:
    # p = (1/2, 1/2), q = (1/4, 3/4)
    # KL(p||q) = .5 ln 2 + .5 ln (2/3) = .143841; KL(q||p) = .25 ln .5 + .75 ln 1.5 = .130812
    p, q = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, math.log(3)], [5.0, 5.0]])
    assert token_kl(p, q, [2]).answers == pytest.approx([0.143841], abs=1e-6)
    assert token_kl(q, p, [2]).answers == pytest.approx([0.130812], abs=1e-6)
    assert token_kl(p, q, [1, 1]).answers == pytest.approx([0.143841, 0.0], abs=1e-6)


def test_per_token_is_pooled_and_per_answer_is_summed() -> None:
    drift = Drift([0.6, 0.1], [2, 8])
    assert drift.per_token == pytest.approx(0.07)  # (.6 + .1) / 10, not the mean of .3 and .0125
    assert drift.per_answer == pytest.approx(0.35)


def test_the_least_kl_is_that_of_two_coins() -> None:
    # (3 + .5) / 4 and (1 + .5) / 4 = .875 and .375: .875 ln(7/3) + .125 ln(1/5)
    assert least_kl(1.0, 1 / 3, 3) == pytest.approx(0.875 * math.log(7 / 3) + 0.125 * math.log(1 / 5))
    assert least_kl(0.3, 0.3, 192) == 0 and math.isfinite(least_kl(1.0, 0.0, 192))


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1), st.booleans()), min_size=1, max_size=8))
def test_no_kl_of_answers_is_below_the_least(answers: list[tuple[float, float, bool]]) -> None:
    """Two distributions over some answers, of which some are right, in the limit of many samples."""
    p, q = (np.array([a[i] for a in answers]) for i in (0, 1))
    p, q = p / p.sum(), q / q.sum()
    right = np.array([a[2] for a in answers])
    many = 10**9
    assert rel_entr(p, q).sum() >= least_kl(float(p[right].sum()), float(q[right].sum()), many) - 1e-6


def test_against_an_independent_sum_over_the_vocabulary() -> None:
    torch.manual_seed(0)
    p, q = torch.randn(12, 50) * 3, torch.randn(12, 50) * 3
    exact = rel_entr(softmax(p.double().numpy(), -1), softmax(q.double().numpy(), -1)).sum(-1)
    drift = token_kl(p, q, [5, 3, 4])
    assert drift.answers == pytest.approx([exact[:5].sum(), exact[5:8].sum(), exact[8:].sum()], rel=1e-5)
    assert token_kl(p, p, [12]).answers == [0.0]
    assert drift.per_token == pytest.approx(exact.mean(), rel=1e-5)


def test_an_impossible_token_counts_nothing() -> None:
    p, q = torch.tensor([[0.0, -1e9, 0.0]]), torch.tensor([[0.0, 0.0, 0.0]])
    assert token_kl(p, q, [1]).answers == pytest.approx([math.log(1.5)], abs=1e-6)  # (1/2, 0, 1/2) against thirds


@pytest.mark.parametrize("tokens", [[2, 2], [3, 0], []])
def test_tokens_that_do_not_add_up_are_refused(tokens: list[int]) -> None:
    with pytest.raises(ValueError, match="logits are"):
        token_kl(torch.zeros(3, 4), torch.zeros(3, 4), tokens)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        token_kl(torch.full((3, 4), math.nan), torch.zeros(3, 4), [3])


# --- ratios at a threshold and KL at matched accuracy, worked by hand on curves of a few points


def steps(accuracy: list[list[float]], rollouts: float) -> Curve:
    y = np.array(accuracy)
    x = np.arange(y.shape[1]) * 10.0
    every = np.tile(x, (len(y), 1))
    return Curve("m", list(range(len(y))), x, {"problems": every, "rollouts": rollouts * every}, y, y.copy())


def test_the_ratio_by_hand() -> None:
    rl = steps([[0.0, 0.0, 0.2, 0.4, 0.4, 0.4], [0.0, 0.0, 0.0, 0.0, 0.4, 0.4]], rollouts=8)
    fst = steps([[0.0, 0.4, 0.4, 0.4, 0.4, 0.4], [0.0, 0.0, 0.4, 0.4, 0.4, 0.4]], rollouts=16)
    # to .2: rl's means pass it at 20 (.1 at 15, .3 at 25) and at 35; fst's are there at 5 and at 15
    found = ratios_at(fst, rl, 0.2)
    assert set(found) == {"problems", "rollouts"}  # tokens were not recorded
    by_hand = math.exp((math.log(20 / 5) + math.log(35 / 15)) / 2)
    assert found["problems"].estimate.value == pytest.approx(by_hand) and found["problems"].bound == "exactly"
    logs = t_interval([math.log(4), math.log(7 / 3)])
    assert found["problems"].estimate.low == pytest.approx(math.exp(logs.low))
    assert found["rollouts"].estimate.value == pytest.approx(by_hand / 2)
    assert ratios_at(fst, fst, 0.2)["rollouts"].estimate == Estimate(1.0, 1.0, 1.0)


def test_a_curve_that_never_gets_there_gives_a_bound() -> None:
    slow = steps([[0.0, 0.1, 0.2, 0.2], [0.0, 0.2, 0.6, 0.6]], rollouts=8)
    fast = steps([[0.0, 0.6, 0.6, 0.6]] * 2, rollouts=8)
    # to .5 the fast one is at 0 + 10 * (.5 - .3) / .3 + 5 = 11.67; the slow one never, in 30, and at 18.3 and 30
    at_least = ratios_at(fast, slow, 0.5)["problems"]
    assert at_least.bound == "at least" and math.isnan(at_least.estimate.low)
    first, second = (30 / (5 + 10 * 2 / 3), (15 + 10 * 0.5) / (5 + 10 * 2 / 3))
    assert at_least.estimate.value == pytest.approx(math.sqrt(first * second))
    at_most = ratios_at(slow, fast, 0.5)["problems"]
    assert at_most.bound == "at most" and at_most.estimate.value == pytest.approx(1 / math.sqrt(first * second))
    assert ratios_at(slow, slow, 0.5) == {}, "of the first seed nothing is known"
    assert ratios_at(fast, steps([[0.6, 0.6, 0.6, 0.6]] * 2, 8), 0.5) == {}, "there before learning"
    assert ratios_at(fast.rows([]), slow.rows([]), 0.5) == {}


def test_kl_at_matched_accuracy_by_hand() -> None:
    rl = steps([[0.0, 0.2, 0.4, 0.5]] * 2, rollouts=8)  # the KL of these made-up curves is their accuracy
    fst = steps([[0.0, 0.3, 0.6, 0.9]] * 2, rollouts=8)
    fst.kl[:] = fst.accuracy / 10
    # matched at .5, rl's highest: rl is there with .5, fst first at .6 with .06
    lower = matched_kl(fst, rl)
    assert (lower.value, lower.low, lower.high) == pytest.approx((1 - 0.06 / 0.5,) * 3)
    assert matched_kl(rl, fst).value == pytest.approx(1 - 0.5 / 0.06)
    fst.kl[:] = 0
    assert np.isnan(matched_kl(rl, fst).value)


def test_only_the_seeds_of_both_are_paired() -> None:
    rl = steps([[0.0, 0.2], [0.0, 0.4], [0.0, 0.6]], rollouts=8)
    fst = Curve("fst", [2, 7, 0], rl.problems, rl.spent, rl.accuracy[::-1], rl.kl)
    ours, theirs = seed_rows(fst, rl)
    assert ours.seeds == theirs.seeds == [2, 0]
    assert ours.accuracy[:, 1].tolist() == [0.6, 0.2] and theirs.accuracy[:, 1].tolist() == [0.6, 0.2]
