"""Learning curves of a method over its seeds, and what is read off their mean: asymptotes and sample efficiency."""

from functools import cache

import numpy as np
import pandas as pd

from fst_bench.analysis.runs import Runs, methods_of
from fst_bench.metrics import THRESHOLDS, Asymptote, Curve, ThresholdRatio, fit_asymptote, ratios_at
from fst_bench.metrics.curve import Floats
from fst_bench.metrics.paired_curves import seed_rows

RECORDED = {"problems": "fetched", "rollouts": "rollouts", "tokens": "tokens"}
"""Axis of a curve -> column of the evaluation rows."""


@cache
def curve_of(runs: Runs, method: str, *tasks: str) -> Curve:
    """Return the curve of a method on a task, or on the mean over several, under the method's own prompt.

    Where the stages' lengths differ by seed, only the evaluations that all seeds share remain.
    """
    mine = sorted((run for run in runs if run.method == method), key=lambda run: run.seed)
    frames = []
    for run in mine:
        own = run.evals[run.evals["task"].isin(tasks) & (run.evals["prompt_mode"] == "system")]
        frame = own.drop_duplicates(["task", "problems"], keep="last").set_index("problems")
        frames.append(frame if len(tasks) == 1 else frame.groupby(level=0, sort=False).mean(numeric_only=True))
    shared = sorted(set.intersection(*(set(frame.index) for frame in frames)))

    def column(name: str) -> Floats:
        return np.array([frame.loc[shared, name].to_numpy(dtype=float) for frame in frames])

    problems = np.array(shared, dtype=float)
    spent = {
        axis: column(name)
        for axis, name in RECORDED.items()
        if all(name in frame and frame[name].notna().all() for frame in frames)
    }
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
    """Return method -> the fit to its mean curve over problems, on a stream of one stage.

    None where a method has too few evaluations.
    """
    fits: dict[str, Asymptote | None] = {}
    for method in methods_of(runs):
        curve = curve_of(runs, method, *runs[0].stages[0].tasks)
        enough = len(curve.problems) > 4
        fits[method] = fit_asymptote(curve.problems.tolist(), curve.accuracy.tolist()) if enough else None
    return fits


@cache
def efficiency_ratios(runs: Runs, reference: str) -> dict[str, dict[float, dict[str, ThresholdRatio]]]:
    """Return method -> threshold -> axis -> how many times fewer samples than the reference it needs.

    Over the seeds that both have, on a stream of one stage; empty where the reference has no run.
    """
    found = methods_of(runs)
    if reference not in found:
        return {}
    tasks = runs[0].stages[0].tasks
    theirs = curve_of(runs, reference, *tasks)
    pairs = {m: seed_rows(curve_of(runs, m, *tasks), theirs) for m in found if m != reference}
    return {m: {threshold: ratios_at(*pair, threshold) for threshold in THRESHOLDS} for m, pair in pairs.items()}


def long_form(runs: Runs) -> pd.DataFrame:
    """Return all evaluation rows of all runs."""
    return pd.concat([run.evals for run in runs], ignore_index=True)
