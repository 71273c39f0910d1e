"""Curves from known sigmoids, and curves that tell nothing about where they end."""

import math

import numpy as np
import pytest

from fst_bench.metrics import asymptote_difference, fit_asymptote
from fst_bench.metrics.asymptote import curve, jacobian

X = np.arange(0, 3001, 150)


def sigmoid(x: np.ndarray, A: float, B: float, mid: float, r0: float) -> np.ndarray:
    """The formula as the paper writes it, (C_mid / C)^B, apart from C = 0."""
    out = np.full(len(x), r0)
    out[x > 0] = r0 + (A - r0) / (1 + (mid / x[x > 0]) ** B)
    return out


@pytest.mark.parametrize(
    "truth", [(0.9, 2.0, 600.0, 0.05), (0.45, 1.0, 400.0, 0.2), (0.6, 5.0, 1500.0, 0.0), (0.3, 3.0, 900.0, 0.7)]
)
def test_a_known_sigmoid_is_found(truth: tuple[float, float, float, float]) -> None:
    fit = fit_asymptote(X, sigmoid(X, *truth))
    assert (fit.A, fit.B, fit.c_mid, fit.r0) == pytest.approx(truth, rel=0.02, abs=0.003)
    assert fit.residual < 1e-3 and fit.identifiable
    assert fit([truth[2]])[0] == pytest.approx((truth[0] + truth[3]) / 2, abs=0.01)  # half of the rise at C_mid


@pytest.mark.parametrize("seeds", [1, 5])
def test_noise_moves_it_little(seeds: int) -> None:
    rng = np.random.default_rng(1)
    curves = sigmoid(X, 0.8, 2.0, 700.0, 0.1) + rng.normal(0, 0.03, (seeds, len(X)))
    fit = fit_asymptote(X, curves if seeds > 1 else curves[0], r0=0.1)
    assert abs(fit.A - 0.8) < 0.03 and fit.low <= fit.A <= fit.high and fit.high - fit.low < 0.1
    assert fit.identifiable and fit.r0 == 0.1
    noise = curves.mean(0) - sigmoid(X, 0.8, 2.0, 700.0, 0.1)
    assert fit.residual <= np.sqrt((noise**2).mean())  # least squares lies no farther from the data than the truth does


def test_an_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    fits = [
        fit_asymptote(X, sigmoid(X, 0.8, 2.0, 700.0, 0.1) + rng.normal(0, 0.03, (8, len(X))), r0=0.1) for _ in range(20)
    ]
    assert sum(fit.low <= 0.8 <= fit.high for fit in fits) >= 17  # at 95 % fewer are a chance of 1 in 60


def test_the_same_seed_is_the_same_fit() -> None:
    curves = sigmoid(X, 0.8, 2.0, 700.0, 0.1) + np.random.default_rng(2).normal(0, 0.03, (3, len(X)))
    assert fit_asymptote(X, curves, seed=3) == fit_asymptote(X, curves, seed=3)
    assert fit_asymptote(X, curves, seed=3).A == fit_asymptote(X, curves, seed=4).A  # the seed is the interval's


def test_a_curve_that_never_bends_has_no_asymptote() -> None:
    line = 0.05 + 0.0001 * X + np.random.default_rng(0).normal(0, 0.01, len(X))
    assert not fit_asymptote(X, line, r0=0.05).identifiable
    slow = sigmoid(X, 0.9, 1.5, 9000.0, 0.05) + np.random.default_rng(0).normal(0, 0.01, len(X))
    assert not fit_asymptote(X, slow, r0=0.05).identifiable


def test_an_asymptote_at_its_bound_is_no_finding() -> None:
    """A curve still rises at 0.78 after all samples; every resample's best A is 1, an interval of no width."""
    x = [float(n) for n in range(40, 1000, 40)]
    rising = [0.04 + 0.107 * math.log1p(n) for n in x]
    fit = fit_asymptote(x, [[a + 0.01 * (-1) ** (i + s) for i, a in enumerate(rising)] for s in range(5)])
    assert fit.A > 0.999 and fit.high - fit.low < 0.05 and not fit.identifiable
    there = [1 - 0.9 * math.exp(-n / 60) for n in x]  # this one gets there
    assert fit_asymptote(x, there).identifiable and fit_asymptote(x, there).A > 0.99


def test_a_curve_that_is_saturated_from_the_start_has_one() -> None:
    y = np.where(X > 0, 0.85, 0.1) + np.random.default_rng(0).normal(0, 0.02, len(X))
    fit = fit_asymptote(X, y, r0=0.1)
    assert fit.identifiable and pytest.approx(0.85, abs=0.02) == fit.A  # though C_mid may be anywhere below 150
    flat = fit_asymptote(X, np.full(len(X), 0.4))
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
    a, b = (sigmoid(X, top, 2.0, 700.0, 0.1) + shared + rng.normal(0, 0.005, (6, len(X))) for top in (0.8, 0.7))
    first, second = fit_asymptote(X, a), fit_asymptote(X, b)
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
