"""Learning curves of a method over its seeds, and what is read off their mean: asymptotes and sample efficiency."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from fst_bench.analysis.runs import Runs, methods_of
from fst_bench.metrics import Asymptote, Estimate, Reached, efficiency_ratio, fit_asymptote, samples_to_threshold
from fst_bench.metrics.curve import Floats
from fst_bench.metrics.intervals import expanded
from fst_bench.metrics.transfer import trained

AXES = ("problems", "rollouts", "tokens")
REPS = 1000


@dataclass(frozen=True)
class Curve:
    """One task, or the mean over the tasks of a mixture, under the method's own prompt, at the problem counts where every seed was evaluated."""

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

    def rows(self, numbers: list[int]) -> "Curve":
        """The curve of some of its seeds, by their row; a row may be taken many times."""
        spent = {axis: values[numbers] for axis, values in self.spent.items()}
        return Curve(
            self.method,
            [self.seeds[i] for i in numbers],
            self.problems,
            spent,
            self.accuracy[numbers],
            self.kl[numbers],
        )


@cache
def curve_of(runs: Runs, method: str, task: str) -> Curve:
    """The curve of a method on a task, or on what a mixed stage trains. Stages of other lengths in every seed leave the shared evaluation grid only."""
    mine = sorted((run for run in runs if run.method == method), key=lambda run: run.seed)
    frames = []
    for run in mine:
        own = run.evals[run.evals["task"].isin(trained(task)) & (run.evals["prompt_mode"] == "system")]
        frame = own.drop_duplicates(["task", "problems"], keep="last").set_index("problems")
        frames.append(frame if len(trained(task)) == 1 else frame.groupby(level=0, sort=False).mean(numeric_only=True))
    shared = sorted(set.intersection(*(set(frame.index) for frame in frames)))

    def column(name: str) -> Floats:
        return np.array([frame.loc[shared, name].to_numpy(dtype=float) for frame in frames])

    problems = np.array(shared, dtype=float)
    recorded = {"problems": "fetched", "rollouts": "rollouts", "tokens": "tokens"}
    spent = {axis: column(name) for axis, name in recorded.items() if all(name in frame for frame in frames)}
    return Curve(
        method,
        [run.seed for run in mine],
        problems,
        {"problems": np.tile(problems, (len(mine), 1))} | spent,
        column("accuracy"),
        column("kl"),
    )


@cache
def asymptotes(runs: Runs) -> dict[str, Asymptote | None]:
    """Method -> the fit to its mean curve over problems, on a stream of one task; None where there are too few evaluations."""
    task = runs[0].stages[0]["task"]
    fits: dict[str, Asymptote | None] = {}
    for method in methods_of(runs):
        curve = curve_of(runs, method, task)
        fits[method] = (
            fit_asymptote(curve.problems.tolist(), curve.accuracy.tolist()) if len(curve.problems) > 4 else None
        )
    return fits


@dataclass(frozen=True)
class PeakRatio:
    """The reference's samples at its peak over the method's there; `censored`: it never got there, and `value` is an upper bound."""

    value: float
    low: float
    high: float
    censored: bool


@cache
def peak_ratios(runs: Runs, reference: str) -> dict[str, list[PeakRatio | None]]:
    """Method -> one ratio for each of problems, rollouts and tokens, over the seeds that both have; None where nothing can be said."""
    found = methods_of(runs)
    if reference not in found:
        return {}
    task = runs[0].stages[0]["task"]
    theirs = curve_of(runs, reference, task)
    return {
        method: ratios_to_peak(*seed_rows(curve_of(runs, method, task), theirs))
        for method in found
        if method != reference
    }


def seed_rows(a: Curve, b: Curve) -> tuple[Curve, Curve]:
    """Both curves over the seeds that both have, row i of both the same seed."""
    both = [seed for seed in a.seeds if seed in b.seeds]
    return a.rows([a.seeds.index(s) for s in both]), b.rows([b.seeds.index(s) for s in both])


def ratios_to_peak(ours: Curve, theirs: Curve, seed: int = 0) -> list[PeakRatio | None]:
    """For each of AXES. Row i of both curves is the same seed. A resample of the seeds in which it never gets there counts as 0 in the interval."""
    n = len(ours.seeds)
    if n == 0:
        return [None] * len(AXES)
    dice = np.random.default_rng(seed)
    again = [ratios_of_means(ours, theirs, dice.integers(n, size=n).tolist()) for _ in range(REPS if n > 1 else 0)]
    made: list[PeakRatio | None] = []
    for axis, (value, censored) in ratios_of_means(ours, theirs, list(range(n))).items():
        if math.isnan(value):
            made.append(None)
            continue
        known = [
            0.0 if never else ratio for ratio, never in (ratios[axis] for ratios in again) if not math.isnan(ratio)
        ]
        around = expanded(value, known, n, 0.95) if known and not censored else Estimate(value, math.nan, math.nan)
        made.append(PeakRatio(value, around.low, around.high, censored))
    return made


def ratios_of_means(ours: Curve, theirs: Curve, rows: list[int]) -> dict[str, tuple[float, bool]]:
    """Axis -> (ratio, whether it is only an upper bound) for mean curves over some seeds; NaN where one is there before learning, or an
    axis was not recorded."""
    accuracy = [curve.accuracy[rows].mean(0) for curve in (theirs, ours)]
    threshold = float(accuracy[0].max()) - 1e-9
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
    """What was spent until the evaluation at `where` problems, means over some seeds."""
    spent = curve.spent[axis][rows].mean(0)
    if where.samples is None:
        return Reached(None, float(spent[-1]))
    i = int(np.searchsorted(curve.problems, where.samples))
    return Reached(float(spent[i]), float(spent[i - 1]) if i else 0.0)


def matched_kl(ours: Curve, theirs: Curve, seed: int = 0) -> Estimate:
    """How much lower KL is at the same accuracy, as a share of theirs (0.7: 70 % lower), with its interval over seeds.

    The accuracy is the lower of the two mean curves' highest points, KL that of each mean curve's first evaluation at least as
    high. Row i of both curves is the same seed. NaN where theirs has not moved.
    """
    n = len(ours.seeds)
    dice = np.random.default_rng(seed)
    again = [lower_kl(ours, theirs, dice.integers(n, size=n).tolist()) for _ in range(REPS if n > 1 else 0)]
    return expanded(
        lower_kl(ours, theirs, list(range(n))), [x for x in again if not math.isnan(x)] or [math.nan], n, 0.95
    )


def lower_kl(ours: Curve, theirs: Curve, rows: list[int]) -> float:
    accuracy = [curve.accuracy[rows].mean(0) for curve in (ours, theirs)]
    matched = min(float(values.max()) for values in accuracy) - 1e-9
    kl = [
        float(curve.kl[rows].mean(0)[np.argmax(values >= matched)])
        for curve, values in zip((ours, theirs), accuracy, strict=True)
    ]
    return 1 - kl[0] / kl[1] if kl[1] > 0 else math.nan


def long_form(runs: Runs) -> pd.DataFrame:
    """All evaluation rows of all runs."""
    return pd.concat([run.evals for run in runs], ignore_index=True)
