"""Where a learning curve is heading: the four-parameter sigmoid of ScaleRL (arXiv 2510.13786), which the paper fits.

    R(C) - R0 = (A - R0) / (1 + (C_mid / C)^B)

Fit it to raw accuracies. The paper plots a fit to their running maximum (`numpy.maximum.accumulate`), which is biased
upward the more, the smaller the evaluations.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import least_squares

from fst_bench.metrics.curve import Floats, checked
from fst_bench.metrics.intervals import Estimate, expanded

SLOPES = np.array([0.5, 1.0, 2.0, 4.0, 8.0])
"""Values of B where the search starts; it ends within [0.2, 20]."""
REPS = 200
"""Resamples behind an interval."""
CLOSE = 1e-6
"""Relative change at which least squares stops: A is then good to four digits, more than an accuracy is known to."""
WIDTH = 0.1
"""Widest interval of an identifiable asymptote."""
SEEN = 0.5
"""Least share of the rise that the data of an identifiable asymptote show."""
REACHED = 0.02
"""Largest distance of the fitted curve's end to an asymptote at which the fit was stopped."""


@dataclass(frozen=True)
class Asymptote:
    """A fitted curve, accuracies as shares. `low` and `high` are the 95 % bootstrap interval of A."""

    A: float
    B: float
    c_mid: float
    r0: float
    low: float
    high: float
    identifiable: bool
    """Whether A's interval is at most 0.1 wide, and at least half of the rise to A is in the data.

    C_mid need not be identified for that: a curve may saturate before its first evaluation. An A of 1 or 0 is where the
    fit was stopped, and its interval says nothing: it counts only where the fitted curve gets within 0.02 of it."""
    residual: float
    """Root mean squared distance of the mean curve to the fit."""
    resampled: tuple[float, ...]
    """A in every resample. Fits with one `seed` over the same number of seeds draw the same resamples, so that
    differences of these are paired."""

    @property
    def estimate(self) -> Estimate:
        """A with its interval."""
        return Estimate(self.A, self.low, self.high)

    def __call__(self, samples: ArrayLike) -> Floats:
        """Return the fitted accuracy at sample counts, both (points,)."""
        return self.r0 + (self.A - self.r0) * rise(np.asarray(samples, dtype=np.float64), np.log(self.c_mid), self.B)


def rise(x: Floats, log_mid: float | Floats, slope: float | Floats) -> Floats:
    """Return 1 / (1 + (C_mid / C)^B), which is 0 at C = 0."""
    with np.errstate(divide="ignore"):
        return 1 / (1 + np.exp(np.clip(slope * (log_mid - np.log(x)), -700, 700)))


def fit_asymptote(
    samples: ArrayLike,
    accuracy: ArrayLike,
    r0: float | None = None,
    seed: int = 0,
) -> Asymptote:
    """Return the least-squares fit to accuracies (points,), or to the mean of (seeds, points), A and R0 within [0, 1].

    `samples` are (points,), increasing, in any unit. `r0` fixes R0, the accuracy before learning; otherwise it is
    fitted. The interval resamples the seeds, or with one curve its residuals, and is widened as in `intervals`. Raises
    ValueError for arrays that are not a curve, or that have fewer points than parameters.
    """
    x, y = checked(samples, accuracy, at_least=4 if r0 is None else 3)
    if x[-1] <= 0:
        raise ValueError("a curve needs a sample count above 0")
    if r0 is not None and not 0 <= r0 <= 1:
        raise ValueError(f"r0 is an accuracy, from 0 to 1, got {r0}")
    mean = np.atleast_2d(y).mean(0)
    best = solve(x, mean, r0, None)
    fitted = curve(x, best)
    over_seeds = y.ndim == 2 and len(y) > 1
    n, parameters = len(x), 4 if r0 is None else 3
    residuals = (mean - fitted) * math.sqrt(n / max(1, n - parameters))
    rng = np.random.default_rng(seed)
    tops = []
    for _ in range(REPS):
        again = y[rng.integers(len(y), size=len(y))].mean(0) if over_seeds else fitted + rng.choice(residuals, size=n)
        tops.append(solve(x, again, r0, best)[0])
    top, start, log_mid, slope = best
    interval = expanded(top, tops, len(y) if over_seeds else n, 0.95)
    seen = 1.0 if abs(top - start) < 0.01 else (fitted[-1] - start) / (top - start)
    stopped = not 1e-3 < top < 1 - 1e-3 and abs(top - fitted[-1]) > REACHED
    return Asymptote(
        A=top,
        B=slope,
        c_mid=float(np.exp(log_mid)),
        r0=start,
        low=interval.low,
        high=interval.high,
        identifiable=bool(interval.high - interval.low <= WIDTH and seen >= SEEN and not stopped),
        residual=float(np.sqrt(np.mean((mean - fitted) ** 2))),
        resampled=tuple(tops),
    )


def asymptote_difference(a: Asymptote, b: Asymptote, seeds: int) -> Estimate:
    """Return a.A - b.A with the interval of the paired resamples.

    Both fits are over the same `seeds` seeds: row i of both is the same one.
    """
    return expanded(a.A - b.A, [x - y for x, y in zip(a.resampled, b.resampled, strict=True)], seeds, 0.95)


Parameters = tuple[float, float, float, float]
"""(A, R0, log C_mid, B)."""


def curve(x: Floats, p: Parameters) -> Floats:
    top, start, log_mid, slope = p
    return start + (top - start) * rise(x, log_mid, slope)


def jacobian(x: Floats, p: Parameters) -> Floats:
    """Return the curve's derivatives by A, R0, log C_mid and B: (points, 4)."""
    top, start, log_mid, slope = p
    g = rise(x, log_mid, slope)
    bend = (top - start) * g * (1 - g)
    # at 0 the curve is R0 whatever C_mid and B, and bend is 0
    away = np.log(np.where(x > 0, x, 1)) - log_mid
    return np.stack([g, 1 - g, -slope * bend, away * bend], 1)


def solve(x: Floats, y: Floats, r0: float | None, near: Parameters | None) -> Parameters:
    """Return the least-squares solution, searched from the best points of a grid.

    With `near` the search starts once, from the better of it and the grid's best.
    """
    positive = x[x > 0]
    low, high = np.log(positive[0]) - 3, np.log(positive[-1]) + 2
    best = grid(x, y, r0, np.linspace(low, high, 12))
    starts = [min((near, best[0]), key=lambda p: float(np.sum((curve(x, p) - y) ** 2)))] if near else best[:5]
    free = [0, 1, 2, 3] if r0 is None else [0, 2, 3]
    bounds = np.array([[0.0, 0.0, low, 0.2], [1.0, 1.0, high, 20.0]])[:, free]

    def full(p: Floats) -> Parameters:
        a, s, m, b = p if r0 is None else (p[0], r0, p[1], p[2])
        return float(a), float(s), float(m), float(b)

    def slopes(p: Floats) -> Floats:
        return jacobian(x, full(p))[:, free]

    near_enough = {"ftol": CLOSE, "xtol": CLOSE, "gtol": CLOSE}
    fits = [
        least_squares(
            lambda p: curve(x, full(p)) - y,
            np.clip(np.array(start)[free], *bounds),
            jac=slopes,
            bounds=tuple(bounds),
            **near_enough,
        )
        for start in starts
    ]
    return full(min(fits, key=lambda fit: float(fit.cost)).x)


def grid(x: Floats, y: Floats, r0: float | None, mids: Floats) -> list[Parameters]:
    """Return grid points of (C_mid, B), best first, each with its best A and R0: the model is linear in those two."""
    mid, slope = (values.ravel() for values in np.meshgrid(mids, SLOPES, indexing="ij"))
    g = rise(x, mid[:, None], slope[:, None])
    h = 1 - g
    if r0 is None:
        gg, gh, hh = (g * g).sum(1) + 1e-9, (g * h).sum(1), (h * h).sum(1) + 1e-9
        det = gg * hh - gh * gh
        top, start = (hh * (g @ y) - gh * (h @ y)) / det, (gg * (h @ y) - gh * (g @ y)) / det
    else:
        start = np.full(len(mid), r0)
        top = (g * (y - r0 * h)).sum(1) / ((g * g).sum(1) + 1e-9)
    top, start = np.clip(top, 0, 1), np.clip(start, 0, 1)
    errors = ((start[:, None] * h + top[:, None] * g - y) ** 2).sum(1)
    return [(float(top[i]), float(start[i]), float(mid[i]), float(slope[i])) for i in np.argsort(errors, kind="stable")]
