"""Sample efficiency: the number of samples until an accuracy is reached.

A threshold is reached where the mean of two consecutive evaluations is first at least as high. Between two such means,
and from the evaluation before learning to the first of them, a straight line is drawn. Fixed thresholds ask the same of
every method and seed. The highest point of a noisy curve, which is often taken instead, is biased upward, and where a
curve is flat its place is chance.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fst_bench.metrics.curve import Floats, checked

THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
"""The accuracies at which methods are compared."""


@dataclass(frozen=True)
class Reached:
    """Sample count at which a curve reached a threshold, in the unit of its samples.

    It is 0 where the first evaluation is there already. A curve that never gets there is right-censored:
    `samples` is None, and `after`, the last sample count, is a lower bound.
    """

    samples: float | None
    after: float

    def __str__(self) -> str:
        return f">{self.after:,.0f}" if self.samples is None else f"{self.samples:,.0f}"


def crossing(accuracy: Floats, threshold: float) -> float:
    """Return where a curve (points,) reaches a threshold, in points from 0; infinity where it never does.

    The mean of points i and i + 1 stands at i + 1/2, in front of them point 0 itself.
    """
    heights = np.concatenate([accuracy[:1], (accuracy[1:] + accuracy[:-1]) / 2])
    places = np.concatenate([[0.0], np.arange(len(accuracy) - 1) + 0.5])
    there = np.flatnonzero(heights >= threshold)
    if not len(there):
        return math.inf
    i = int(there[0])
    if i == 0:
        return 0.0
    part = (threshold - heights[i - 1]) / (heights[i] - heights[i - 1])
    return float(places[i - 1] + part * (places[i] - places[i - 1]))


def samples_at(samples: Floats, position: float) -> Reached:
    """Return the sample count at a `crossing`; samples are (points,) and never fall."""
    if math.isinf(position):
        return Reached(None, float(samples[-1]))
    found = float(np.interp(position, np.arange(len(samples)), samples)) if position else 0.0
    return Reached(found, found)


def samples_to_threshold(samples: ArrayLike, accuracy: ArrayLike, threshold: float) -> Reached:
    """Return the sample count at which a curve reaches a threshold.

    `samples` are (points,), increasing, and `accuracy` is (points,). Raises ValueError for arrays that are not a curve
    of at least two points.
    """
    x, y = checked(samples, accuracy, at_least=2)
    if y.ndim != 1:
        raise ValueError(f"the accuracies of one curve are (points,), got {y.shape}")
    if math.isnan(threshold):
        raise ValueError("the threshold is NaN")
    return samples_at(x, crossing(y, threshold))


@dataclass(frozen=True)
class Ratio:
    """A ratio of sample counts."""

    value: float | None
    """None where both are censored."""
    bound: Literal["exactly", "at least", "at most", "unknown"]
    """The limit that censoring sets to the value."""


def efficiency_ratio(reference: Reached, other: Reached) -> Ratio:
    """Return reference samples / other samples: 3 means that `other` reached the threshold with a third of the samples.

    Raises ValueError where a curve was there before learning: a ratio to zero is not defined.
    """
    for name, curve in (("reference", reference), ("other", other)):
        if (curve.after if curve.samples is None else curve.samples) <= 0:
            raise ValueError(f"the {name} curve has no samples at its threshold: there is no ratio to zero")
    if other.samples is None:
        ours = reference.samples
        return Ratio(None, "unknown") if ours is None else Ratio(ours / other.after, "at most")
    if reference.samples is None:
        return Ratio(reference.after / other.samples, "at least")
    return Ratio(reference.samples / other.samples, "exactly")
