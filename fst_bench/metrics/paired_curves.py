"""Two learning curves, compared over the seeds that both have: sample efficiency, and KL at matched accuracy."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fst_bench.metrics.curve import Floats, floats
from fst_bench.metrics.efficiency import Ratio, crossing, efficiency_ratio, samples_at
from fst_bench.metrics.intervals import Estimate, expanded, t_interval

AXES = ("problems", "rollouts", "tokens")
"""Units in which samples are counted."""
REPS = 1000
"""Resamples behind an interval."""
EPSILON = 1e-9
"""Slack of an accuracy, so that a curve reaches its own highest point."""


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
class ThresholdRatio:
    """How many times fewer samples than the reference a method needs to a threshold."""

    estimate: Estimate
    """The geometric mean over seeds, with the t-interval of the logarithms; none where it is a bound."""
    bound: Literal["exactly", "at least", "at most"]
    """What it is where a curve of a seed never gets there, and stands in with all of its samples."""


def ratios_at(ours: Curve, theirs: Curve, threshold: float) -> dict[str, ThresholdRatio]:
    """Return axis -> the reference's samples to a threshold, `theirs`, over ours; row i of both is the same seed.

    An axis is left out where nothing can be said: it was not recorded, a curve is there before learning, or of some
    seed neither curve gets there.
    """
    at = [[crossing(row, threshold) for row in curve.accuracy] for curve in (theirs, ours)]
    found = {}
    for axis in AXES:
        if axis not in ours.spent or axis not in theirs.spent:
            continue
        reached = [
            [samples_at(row, position) for row, position in zip(curve.spent[axis], positions, strict=True)]
            for curve, positions in zip((theirs, ours), at, strict=True)
        ]
        if any((r.after if r.samples is None else r.samples) <= 0 for side in reached for r in side):
            continue
        ratios = [efficiency_ratio(*pair) for pair in zip(*reached, strict=True)]
        if made := combined(ratios):
            found[axis] = made
    return found


def combined(ratios: list[Ratio]) -> ThresholdRatio | None:
    """Return the seeds' ratios as one; None where they leave nothing to say."""
    bounds = {ratio.bound for ratio in ratios} - {"exactly"}
    values = [ratio.value for ratio in ratios if ratio.value is not None]
    if len(values) < len(ratios) or len(bounds) > 1 or not values:
        return None
    e = t_interval(np.log(values))
    if bounds:
        return ThresholdRatio(Estimate(math.exp(e.value)), "at least" if bounds == {"at least"} else "at most")
    return ThresholdRatio(Estimate(*(math.exp(value) for value in (e.value, e.low, e.high))), "exactly")


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
