"""Intervals over seeds and problems: a seeded bootstrap, stratified by task, clustered by both.

A run answers the same held-out problems of every task under every seed. So a resample draws seeds once for all tasks,
since a seed is a whole run, and within each task draws problems, the same ones for every seed. Resampling few seeds
gives too narrow an interval; its quantiles are widened as Hesterberg does (The American Statistician 2015, "What
Teachers Should Know About the Bootstrap", expanded percentile), which for a mean comes close to the t-interval.
Drawing both ways counts chance that belongs to one seed on one problem up to three times (Owen 2007, the pigeonhole
bootstrap): intervals err on the wide side.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, sem
from scipy.stats import t as student

from fst_bench.core.errors import unknown
from fst_bench.metrics.curve import Floats, floats, listed

Scores = Mapping[str, ArrayLike]
"""{task: (seeds, problems)}, or {task: (seeds,)} where a seed has one number."""
Statistic = Callable[[Mapping[str, Floats]], float]


@dataclass(frozen=True)
class Estimate:
    """A value and its interval, whose ends are NaN where it has none."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def half(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def t_interval(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Return the mean of some seeds' numbers (seeds,) with its t-interval; NaN ends for a single value."""
    values = listed(values, "values")
    mean = sum(values) / len(values)
    if len(values) < 2:
        return Estimate(mean)
    half = float(student.ppf((1 + level) / 2, len(values) - 1) * sem(values))
    return Estimate(mean, mean - half, mean + half)


def p_value(values: ArrayLike) -> float:
    """Return the two-sided p-value of the t-test that the mean of some seeds' numbers (seeds,) is zero.

    NaN for a single value. Equal values have no spread: 1 where they are zero, otherwise 0.
    """
    values = listed(values, "values")
    if len(values) < 2 or any(math.isnan(value) for value in values):
        return math.nan
    error = float(sem(values))
    mean = sum(values) / len(values)
    return float(mean == 0) if error == 0 else float(2 * student.sf(abs(mean) / error, len(values) - 1))


def holm(p_values: ArrayLike, level: float = 0.05) -> list[bool]:
    """Return which of several hypotheses are rejected with a chance of at most `level` to reject any true one.

    Holm 1979: the i-th smallest p-value of m, from 0, has to be at most level / (m - i), and so have all smaller ones.
    NaN is none of them.
    """
    p = listed(p_values, "p-values") if len(floats(p_values, "p-values")) else []
    order = sorted((i for i, value in enumerate(p) if not math.isnan(value)), key=p.__getitem__)
    rejected = set[int]()
    for place, i in enumerate(order):
        if p[i] > level / (len(order) - place):
            break
        rejected.add(i)
    return [i in rejected for i in range(len(p))]


def average(scores: Mapping[str, Floats]) -> float:
    """Return the mean over tasks of each task's mean."""
    return float(np.mean([values.mean() for values in scores.values()]))


def stratified_bootstrap(
    scores: Scores, statistic: Statistic = average, reps: int = 2000, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Return `statistic` of the scores with its interval. Row i of every task is the same run.

    Raises ValueError that names a task with a NaN, of another number of seeds, or without problems.
    """
    arrays = checked(scores)
    return expanded(
        statistic(arrays), [statistic(again) for again in resamples(arrays, reps, seed)], width(arrays), level
    )


def paired_difference(
    a: Scores, b: Scores, statistic: Statistic = average, reps: int = 2000, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Return statistic(a) - statistic(b), both resampled with the same seeds and problems.

    Row i of both is the same seed. Raises ValueError where the two have other tasks, seeds or problems.
    """
    ours, theirs = checked(a), checked(b)
    for name in [*ours, *theirs]:
        if name not in ours or name not in theirs:
            raise ValueError(
                f"only one side has the task {name}: {unknown('task', name, theirs if name in ours else ours)}"
            )
        if ours[name].shape != theirs[name].shape:
            raise ValueError(
                f"{name} has {ours[name].shape} (seeds, problems) on one side and {theirs[name].shape} on the other"
            )
    pairs = zip(resamples(ours, reps, seed), resamples(theirs, reps, seed), strict=True)
    return expanded(
        statistic(ours) - statistic(theirs), [statistic(x) - statistic(y) for x, y in pairs], width(ours), level
    )


def checked(scores: Scores) -> dict[str, Floats]:
    """Return scores as arrays (seeds, problems). Raises ValueError that names what is wrong with them."""
    if not len(scores):
        raise ValueError("no scores")
    arrays = {name: floats(values, f"scores of {name}") for name, values in scores.items()}
    arrays = {name: values[:, None] if values.ndim == 1 else values for name, values in arrays.items()}
    seeds = len(next(iter(arrays.values())))
    for name, values in arrays.items():
        if values.ndim != 2 or not values.size:
            raise ValueError(f"scores of {name} are (seeds, problems), got {values.shape}")
        if len(values) != seeds:
            raise ValueError(f"{name} has {len(values)} seeds, {next(iter(arrays))} has {seeds}")
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            raise ValueError(f"the score of {name}, seed row {row}, problem {column} is {values[row, column]}")
    return arrays


def resamples(arrays: Mapping[str, Floats], reps: int, seed: int) -> Iterator[dict[str, Floats]]:
    """Yield scores of resampled seeds and problems."""
    rng = np.random.default_rng(seed)
    seeds = len(next(iter(arrays.values())))
    for _ in range(reps):
        rows = rng.integers(seeds, size=seeds)
        yield {
            name: values[rows][:, rng.integers(values.shape[1], size=values.shape[1])]
            for name, values in arrays.items()
        }


def width(arrays: Mapping[str, Floats]) -> int:
    """Return the number of independent observations: seeds, or with one seed the problems of the smallest task."""
    seeds = len(next(iter(arrays.values())))
    return seeds if seeds > 1 else min(values.shape[1] for values in arrays.values())


def expanded(value: float, resampled: list[float], n: int, level: float) -> Estimate:
    """Return a value with the expanded percentile interval of its resamples over n observations; none where n is 1."""
    if n < 2:
        return Estimate(value)
    tail = norm.cdf(math.sqrt(n / (n - 1)) * student.ppf((1 - level) / 2, n - 1))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def wilson(accuracy: Any, n: Any, z: float = 1.959964) -> tuple[Any, Any]:
    """Return the 95 % Wilson interval (low, high) of a proportion over n problems, numbers or arrays.

    With several answers a problem it errs on the wide side.
    """
    accuracy, n = floats(accuracy, "accuracies"), floats(n, "problems")
    scale = 1 + z**2 / n
    middle = (accuracy + z**2 / (2 * n)) / scale
    half = z / scale * np.sqrt(accuracy * (1 - accuracy) / n + z**2 / (4 * n**2))
    return middle - half, middle + half
