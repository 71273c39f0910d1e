"""Two learning curves, compared over the seeds that both have: sample efficiency, and KL at matched accuracy."""

import math
from dataclasses import dataclass

import numpy as np

from fst_bench.metrics.curve import Floats, floats
from fst_bench.metrics.efficiency import Reached, efficiency_ratio, samples_to_threshold
from fst_bench.metrics.intervals import Estimate, expanded

AXES = ("problems", "rollouts", "tokens")
"""Units in which samples are counted."""
REPS = 1000
"""Resamples behind an interval."""
EPSILON = 1e-9
"""Slack of a threshold, so that a curve reaches its own peak."""


@dataclass(frozen=True)
class Curve:
    """A method's learning curve, at the problem counts where every seed was evaluated; any array-likes will do."""

    method: str
    seeds: list[int]
    problems: Floats
    """(points,)"""
    spent: dict[str, Floats]
    """Axis -> (seeds, points): problems, those fetched ahead included, rollouts, sampled tokens until then."""
    accuracy: Floats
    """(seeds, points)"""
    kl: Floats
    """(seeds, points), nats per token"""

    def __post_init__(self) -> None:
        for name in ("problems", "accuracy", "kl"):
            object.__setattr__(self, name, floats(getattr(self, name), name))
        object.__setattr__(self, "seeds", list(self.seeds))
        object.__setattr__(self, "spent", {axis: floats(values, axis) for axis, values in self.spent.items()})

    def rows(self, numbers: list[int]) -> "Curve":
        """Return the curve of some of its seeds, by their row; a row may be taken many times."""
        spent = {axis: values[numbers] for axis, values in self.spent.items()}
        seeds = [self.seeds[i] for i in numbers]
        return Curve(self.method, seeds, self.problems, spent, self.accuracy[numbers], self.kl[numbers])


def seed_rows(a: Curve, b: Curve) -> tuple[Curve, Curve]:
    """Return both curves over the seeds that both have, row i of both the same seed."""
    both = [seed for seed in a.seeds if seed in b.seeds]
    return a.rows([a.seeds.index(s) for s in both]), b.rows([b.seeds.index(s) for s in both])


@dataclass(frozen=True)
class PeakRatio:
    """The reference's samples at its peak over the method's there."""

    estimate: Estimate
    censored: bool
    """Whether the method never got there: the value is then an upper bound, without an interval."""


def ratios_to_peak(ours: Curve, theirs: Curve, seed: int = 0) -> list[PeakRatio | None]:
    """Return a ratio for each of AXES, with its interval over seeds; None where nothing can be said.

    Row i of both curves is the same seed. A resample of the seeds in which the peak is never reached counts as 0 in the
    interval.
    """
    n = len(ours.seeds)
    if n == 0:
        return [None] * len(AXES)
    resampled = [ratios_of_means(ours, theirs, rows) for rows in resampled_rows(n, seed)]
    found: list[PeakRatio | None] = []
    for axis, (value, censored) in ratios_of_means(ours, theirs, list(range(n))).items():
        if math.isnan(value):
            found.append(None)
            continue
        known = [0.0 if never else ratio for ratio, never in (r[axis] for r in resampled) if not math.isnan(ratio)]
        around = expanded(value, known, n, 0.95) if known and not censored else Estimate(value)
        found.append(PeakRatio(around, censored))
    return found


def ratios_of_means(ours: Curve, theirs: Curve, rows: list[int]) -> dict[str, tuple[float, bool]]:
    """Return axis -> (ratio, whether it is only an upper bound) for mean curves over some seeds.

    A ratio is NaN where a curve is there before learning, or where an axis was not recorded.
    """
    accuracy = [curve.accuracy[rows].mean(0) for curve in (theirs, ours)]
    threshold = float(accuracy[0].max()) - EPSILON
    at = [samples_to_threshold(theirs.problems, values, threshold, hold=1) for values in accuracy]
    ratios = {}
    for axis in AXES:
        if axis not in ours.spent or axis not in theirs.spent:
            ratios[axis] = math.nan, False
            continue
        reached = [spent_at(curve, axis, rows, where) for curve, where in zip((theirs, ours), at, strict=True)]
        if any((r.after if r.samples is None else r.samples) <= 0 for r in reached):
            ratios[axis] = math.nan, False
            continue
        ratio = efficiency_ratio(*reached)
        assert ratio.value is not None, "the reference reaches its own peak"
        ratios[axis] = ratio.value, ratio.bound == "at most"
    return ratios


def spent_at(curve: Curve, axis: str, rows: list[int], where: Reached) -> Reached:
    """Return the samples spent until the evaluation at `where` problems, means over some seeds."""
    spent = curve.spent[axis][rows].mean(0)
    if where.samples is None:
        return Reached(None, float(spent[-1]))
    i = int(np.searchsorted(curve.problems, where.samples))
    return Reached(float(spent[i]), float(spent[i - 1]) if i else 0.0)


def matched_kl(ours: Curve, theirs: Curve, seed: int = 0) -> Estimate:
    """Return how much lower our KL is at the same accuracy, as a share of theirs (0.7: 70 % lower).

    The interval is over seeds. The accuracy is the lower of the two mean curves' highest points; KL is that of each
    mean curve's first evaluation at least as high. Row i of both curves is the same seed. NaN where theirs has not
    moved.
    """
    n = len(ours.seeds)
    resampled = [lower_kl(ours, theirs, rows) for rows in resampled_rows(n, seed)]
    known = [value for value in resampled if not math.isnan(value)]
    return expanded(lower_kl(ours, theirs, list(range(n))), known or [math.nan], n, 0.95)


def lower_kl(ours: Curve, theirs: Curve, rows: list[int]) -> float:
    """Return 1 - our KL / their KL at matched accuracy, for mean curves over some seeds."""
    accuracy = [curve.accuracy[rows].mean(0) for curve in (ours, theirs)]
    matched = min(float(values.max()) for values in accuracy) - EPSILON
    kl = [
        float(curve.kl[rows].mean(0)[np.argmax(values >= matched)])
        for curve, values in zip((ours, theirs), accuracy, strict=True)
    ]
    return 1 - kl[0] / kl[1] if kl[1] > 0 else math.nan


def resampled_rows(n: int, seed: int) -> list[list[int]]:
    """Return resamples of the rows of n seeds; none for a single one."""
    rng = np.random.default_rng(seed)
    return [rng.integers(n, size=n).tolist() for _ in range(REPS if n > 1 else 0)]
