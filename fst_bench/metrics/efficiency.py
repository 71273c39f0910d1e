"""Sample efficiency: the number of samples until an accuracy is reached, and held."""

import math
from dataclasses import dataclass
from typing import Literal

from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from fst_bench.metrics.curve import checked


@dataclass(frozen=True)
class Reached:
    """Sample count at which a curve reached a threshold, in the unit of its samples.

    Evaluations are a grid: the true crossing lies in (`after`, `samples`]. A curve that never holds the threshold is
    right-censored: `samples` is None, and `after`, the last sample count, is a lower bound.
    """

    samples: float | None
    after: float

    def __str__(self) -> str:
        return f">{self.after:,.0f}" if self.samples is None else f"{self.samples:,.0f}"


def samples_to_threshold(samples: ArrayLike, accuracy: ArrayLike, threshold: float, hold: int = 2) -> Reached:
    """Return the first sample count of the first run of `hold` consecutive evaluations at or above `threshold`.

    `samples` are (points,), increasing, and `accuracy` is (points,). A run that the curve's end cuts short does not
    count. Raises ValueError for arrays that are not a curve, or a `hold` below 1.
    """
    x, y = checked(samples, accuracy)
    if y.ndim != 1:
        raise ValueError(f"the accuracies of one curve are (points,), got {y.shape}")
    if hold < 1:
        raise ValueError(f"hold is a number of evaluations, at least 1, got {hold}")
    if math.isnan(threshold):
        raise ValueError("the threshold is NaN")
    if len(x) >= hold:
        held = sliding_window_view(y >= threshold, hold).all(1)
        if held.any():
            i = int(held.argmax())
            return Reached(float(x[i]), float(x[i - 1]) if i else 0.0)
    return Reached(None, float(x[-1]))


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
