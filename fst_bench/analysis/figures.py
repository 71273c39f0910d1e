"""Figures over runs and seeds. Each comes with its data, ready to be drawn again, and a caption with n and seeds.

A figure takes groups of runs, title -> runs of one stream, and draws a panel for each; one group is one panel. Every
method has a colour, a marker and a line style of its own everywhere, so that figures can be read without colour.
"""

from collections.abc import Callable, Iterator
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fst_bench.analysis.curves import asymptotes, curve_of, efficiency_ratios
from fst_bench.analysis.figure_parts import (
    Drawn,
    Groups,
    band,
    evidence,
    first_column_only,
    legend,
    look,
    panels_for,
    seeds_of,
    spread_texts,
)
from fst_bench.analysis.probe_figures import channels, forgetting, plasticity
from fst_bench.analysis.report.figures import (
    SMOOTHED,
    STYLE,
    WIDTH,
    StageSpan,
    accuracy_axis,
    shade,
    styled,
    task_legend,
)
from fst_bench.analysis.runs import Runs, methods_of
from fst_bench.analysis.tables import MARKS
from fst_bench.metrics import Estimate, area, seen_so_far, t_interval

FITTED = ("A", "B", "c_mid", "r0", "low", "high", "identifiable", "residual")
"""Columns of a fit's data."""
LEARNING = ["group", "method", "what", "problems", "value"]
"""Columns of the data of `learning`."""


def draw(groups: Groups, reference: str = "rl") -> list[Drawn]:
    """Return every figure that the runs have data for."""
    several = all(len(runs[0].stages) > 1 for runs in groups.values())
    single = all(len(runs[0].stages) == 1 for runs in groups.values())
    drawn = [made(runs, name) for name, runs in groups.items() for made in (overview, continual)] if several else []
    if single:
        drawn += [efficiency(groups, reference), fits(groups)]
    if not several:
        drawn += [drift(groups)]
    makers: list[Callable[[Groups], Drawn | None]] = [learning, channels, plasticity, forgetting]
    return [*drawn, *(made for make in makers if (made := make(groups)) is not None)]


@matplotlib.rc_context(STYLE)
def continual(runs: Runs, name: str = "continual") -> Drawn:
    """Draw every task over the whole stream, under the method's own prompt: a panel for each method that learns."""
    found = methods_of(runs)
    methods = [m for m in found if m != "base"] or found
    tasks = list(dict.fromkeys(task for stage in runs[0].stages for task in stage.tasks))
    ends = [float(np.mean([run.stages[i].end for run in runs])) for i in range(len(runs[0].stages))]
    stages = [
        StageSpan(stage.stage, stage.tasks, start, end)
        for stage, start, end in zip(runs[0].stages, [0.0, *ends], ends, strict=False)
    ]
    figure = Figure(figsize=(WIDTH, 2.3 * len(methods) + 0.9), layout="constrained")
    panels = figure.subplots(len(methods), 1, sharex=True, squeeze=False)[:, 0]
    rows = []
    for method, axes in zip(methods, panels, strict=True):
        shade(axes, stages, tasks, name=axes is panels[0])
        rows += [data.assign(method=method, task=task) for task, data in task_curves(axes, runs, method, tasks, 4)]
        accuracy_axis(axes)
        axes.set_title(method)
    panels[-1].set_xlabel("problems seen")
    task_legend(figure, tasks)
    data = pd.concat(rows, ignore_index=True)
    caption = (
        f"Accuracy on held-out problems of every task under the method's own prompt; {evidence(runs)}. Stages are "
        "drawn at their mean lengths: they differ by seed."
    )
    return Drawn(name, figure, data, caption, f"Accuracy over problems, a panel for each of {', '.join(methods)}.")


def task_curves(
    axes: Axes, runs: Runs, method: str, tasks: list[str], markersize: float
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Draw a method's curve of each task with its band; yield what is drawn."""
    for task, colour, marker in styled(tasks):
        curve = curve_of(runs, method, task)
        data = band(curve.problems, curve.accuracy)
        axes.fill_between(data["problems"], data["low"], data["high"], color=colour, alpha=0.13, linewidth=0)
        axes.plot(data["problems"], data["mean"], color=colour, marker=marker, markersize=markersize, linewidth=1.6)
        yield task, data


@matplotlib.rc_context(STYLE)
def overview(runs: Runs, name: str) -> Drawn:
    """Draw a stream on one page: the tasks' curves by method, and under them the methods side by side.

    That is accuracy on the tasks so far with its mean through time, forgetting, KL against accuracy, and tokens.
    """
    known = methods_of(runs)
    shown = [m for m in known if m != "base"][:4] or known
    tasks = list(dict.fromkeys(task for stage in runs[0].stages for task in stage.tasks))
    figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[1.15, 1], squeeze=False)[:, 0]
    rows = []
    for axes, method in zip(upper.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
        curves_of_tasks = task_curves(axes, runs, method, tasks, 3)
        rows += [data.assign(panel="tasks", method=method, what=task) for task, data in curves_of_tasks]
        accuracy_axis(axes)
        axes.set_title(method)
        axes.set_xlabel("problems seen")
        axes.label_outer()
    task_legend(upper, tasks)
    so_far, forgotten, moved, spent = lower.subplots(1, 4)
    for method in shown:
        style, mine = look(method, known), [run for run in runs if run.method == method]
        curves = [seen_so_far(run.evals.to_dict("records"), [s.model_dump() for s in run.stages]) for run in mine]
        shared = sorted(set.intersection(*map(set, curves)))
        data = band(np.array(shared, dtype=float), np.array([[curve[x] for x in shared] for curve in curves]))
        so_far.plot(data["problems"], data["mean"], linewidth=1.5, **style | {"marker": "none"})
        rows.append(data.assign(panel="so far", method=method, what="accuracy"))
        areas = t_interval([area(curve) for curve in curves])
        tokens = float(np.mean([run.ledger["sampled_tokens"] for run in mine])) / 1e6
        spread = None if np.isnan(areas.half) else areas.half
        spent.errorbar(tokens, areas.value, yerr=spread, capsize=3, markersize=6, **style | {"linestyle": "none"})
        rows.append(point("tokens", method, "area", tokens, areas))
        ends = [
            [float(np.mean([run.metrics["stages"][i][key]["system"] for run in mine])) for key in ("kl", "end")]
            for i in range(len(runs[0].stages))
        ]
        moved.plot(*zip(*ends, strict=True), linewidth=0.8, markersize=5, **style)
        rows += [point("drift", method, f"stage {i}", kl, Estimate(end)) for i, (kl, end) in enumerate(ends, 1)]
        lost = [value for run in mine if (value := run.metrics["transfer"]["system"]["forgetting"]) is not None]
        if lost:
            found = t_interval(lost)
            spread = None if np.isnan(found.half) else found.half
            forgotten.barh(method, found.value, xerr=spread, color=style["color"], capsize=3)
            rows.append(point("forgetting", method, "forgetting", float("nan"), found))
    forgotten.invert_yaxis()
    for axes, title, x in (
        (so_far, "on all tasks so far", "problems seen"),
        (forgotten, "forgetting", "accuracy lost by the end"),
        (moved, "at the ends of stages", "KL to the base, nats per token"),
        (spent, "so far, through time", "million sampled tokens"),
    ):
        axes.set_title(title)
        axes.set_xlabel(x)
        if axes is not forgotten:
            accuracy_axis(axes, top=1.03)
    legend(lower, {name: tuple(run for run in runs if run.method in shown)})
    caption = (
        f"Above: accuracy on held-out problems of every task under the method's own prompt; {evidence(runs)}. Below: "
        "the mean over the tasks whose stage has begun; what each task lost from its best to the end, mean over all "
        "but the last; accuracy of each stage's tasks at its end against KL to the base; the mean of the first panel's "
        "curve over problems against what was sampled to learn."
    )
    words = f"Accuracy, forgetting, drift and cost of {', '.join(shown)} on {name}."
    return Drawn("overview", figure, pd.concat(rows, ignore_index=True), caption, words)


def point(panel: str, method: str, what: str, x: float, e: Estimate) -> pd.DataFrame:
    """Return a number of a panel as a row of the figure's data."""
    return pd.DataFrame(
        [{"panel": panel, "method": method, "what": what, "x": x, "mean": e.value, "low": e.low, "high": e.high}]
    )


@matplotlib.rc_context(STYLE)
def efficiency(groups: Groups, reference: str) -> Drawn:
    """Draw accuracy over problems, and at each threshold how many times fewer problems fst needs than the reference."""
    figure, panels = panels_for(groups)
    rows = []
    for axes, (title, runs) in zip(panels, groups.items(), strict=True):
        known, tasks = methods_of(runs), runs[0].stages[0].tasks
        for method in known:
            curve = curve_of(runs, method, *tasks)
            style, data = look(method, known), band(curve.problems, curve.accuracy)
            axes.fill_between(
                data["problems"], data["low"], data["high"], color=style["color"], alpha=0.12, linewidth=0
            )
            axes.plot(data["problems"], data["mean"], markersize=3, linewidth=1.6, **style)
            rows.append(data.assign(group=title, method=method))
        for threshold, ratios in efficiency_ratios(runs, reference).get("fst", {}).items():
            axes.axhline(threshold, color="#999999", linewidth=0.6, linestyle=(0, (1, 3)))
            if ratio := ratios.get("problems"):
                sign = MARKS[ratio.bound]
                look_of_it: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 7, "color": "#222222"}
                axes.annotate(
                    f"{sign}{ratio.estimate.value:.1f}x",
                    (0.99, threshold),
                    xycoords=("axes fraction", "data"),
                    **look_of_it,
                )
        accuracy_axis(axes, top=1.1)
        axes.set_title(title)
        axes.set_xlabel("problems seen")
    first_column_only(panels)
    legend(figure, groups)
    some = next(iter(groups.values()))
    caption = (
        f"Accuracy under the method's own prompt; {evidence(some)}. At the right of each threshold: {reference}'s "
        "problems to it, those looked at ahead included, over fst's (geometric mean over seeds; > and < where a curve "
        "never gets there)."
    )
    words = f"Accuracy over problems in {len(groups)} panels, one line a method."
    return Drawn("efficiency", figure, pd.concat(rows, ignore_index=True), caption, words)


@matplotlib.rc_context(STYLE)
def fits(groups: Groups) -> Drawn:
    """Draw sigmoid fits to the mean curves, with their asymptotes."""
    figure, panels = panels_for(groups)
    rows = []
    for axes, (title, runs) in zip(panels, groups.items(), strict=True):
        known, tasks = methods_of(runs), runs[0].stages[0].tasks
        for method, fit in asymptotes(runs).items():
            if fit is None or method == "base":
                continue
            style, curve = look(method, known), curve_of(runs, method, *tasks)
            colour = {"color": style["color"]}
            x = np.linspace(0, curve.problems[-1], 120)
            points = {"linestyle": "none", "marker": style["marker"], "markersize": 4, "alpha": 0.6}
            axes.plot(curve.problems, curve.accuracy.mean(0), **points, **colour)
            axes.plot(x, fit(x.tolist()), linestyle=style["linestyle"], linewidth=1.7, **colour)
            axes.axhline(fit.A, linewidth=0.8, linestyle=(0, (1, 2)), **colour)
            text = f"{fit.A:.2f}" + ("" if fit.identifiable else " ?")
            axes.text(1.01, fit.A, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8, **colour)
            rows.append({"group": title, "method": method} | {name: getattr(fit, name) for name in FITTED})
        spread_texts(axes)
        accuracy_axis(axes, top=1.1)
        axes.set_title(title)
        axes.set_xlabel("problems seen")
    first_column_only(panels)
    legend(figure, groups, without=("base",))
    some = next(iter(groups.values()))
    caption = (
        "Sigmoids (ScaleRL's four parameters) fitted to the mean over seeds, with the asymptote A on the right, ? "
        "where it is not identified: its interval is wider than 0.1, most of the rise is not in the data, or the fit "
        f"was stopped at 1 or 0; {evidence(some)}."
    )
    return Drawn("fits", figure, pd.DataFrame(rows), caption, "Fitted learning curves with their asymptotes.")


@matplotlib.rc_context(STYLE)
def drift(groups: Groups) -> Drawn:
    """Draw accuracy against KL to the base, both under the method's own prompt, means over seeds."""
    figure, panels = panels_for(groups)
    rows = []
    for axes, (title, runs) in zip(panels, groups.items(), strict=True):
        known, tasks = methods_of(runs), runs[0].stages[0].tasks
        for method in known:
            style, curve = look(method, known), curve_of(runs, method, *tasks)
            means = {"kl": curve.kl.mean(0), "accuracy": curve.accuracy.mean(0)}
            data = pd.DataFrame({"problems": curve.problems} | means).dropna()  # where KL was measured
            axes.plot(data["kl"], data["accuracy"], markersize=4, linewidth=1.1, **style)
            rows.append(data.assign(group=title, method=method))
        accuracy_axis(axes, top=1.1)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_title(title)
        axes.set_xlabel("KL to the base, nats per token")
    first_column_only(panels)
    legend(figure, groups)
    some = next(iter(groups.values()))
    caption = (
        "What was gained for how far the weights moved: a point an evaluation, in time order, both numbers under the "
        f"method's own prompt; {evidence(some)}."
    )
    words = "Accuracy against KL to the base, one line a method."
    return Drawn("drift", figure, pd.concat(rows, ignore_index=True), caption, words)


@matplotlib.rc_context(STYLE)
def learning(groups: Groups) -> Drawn | None:
    """Draw training reward and gradient norm of the methods that train weights; None where none does."""
    groups = {title: tuple(run for run in runs if "gradient_norm" in run.steps) for title, runs in groups.items()}
    groups = {title: runs for title, runs in groups.items() if runs}
    if not groups:
        return None
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    panels = figure.subplots(2, len(groups), sharex="col", sharey="row", squeeze=False)
    rows = []
    for column, (title, runs) in zip(panels.T, groups.items(), strict=True):
        known = methods_of(runs)
        for method in known:
            steps = pd.concat([run.steps for run in runs if run.method == method])
            for axes, name in zip(column, ("reward", "gradient_norm"), strict=True):
                mean = steps.groupby("problems")[name].mean().rolling(SMOOTHED, center=True, min_periods=1).mean()
                style = look(method, known)
                axes.plot(mean.index, mean, color=style["color"], linestyle=style["linestyle"], linewidth=1.5)
                data = pd.DataFrame({"problems": mean.index, "value": mean.to_numpy()})
                rows.append(data.assign(group=title, method=method, what=name)[LEARNING])
        column[0].set_title(title)
        column[1].set_xlabel("problems seen")
    for axes, name in zip(panels[:, 0], ("mean training reward", "gradient norm"), strict=True):
        axes.set_ylabel(name)
    legend(figure, groups)
    some = next(iter(groups.values()))
    caption = (
        "Mean reward of the training rollouts and norm of the gradient before clipping, means over seeds and "
        f"{SMOOTHED} steps around (a step without a gradient has none); seeds: {seeds_of(some)}."
    )
    words = "Training reward and gradient norm over problems."
    return Drawn("learning", figure, pd.concat(rows, ignore_index=True), caption, words)
