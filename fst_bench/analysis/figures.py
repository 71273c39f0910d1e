"""Figures over runs and seeds. Each comes with its data, ready to be drawn again, and a caption that says n and seeds.

A figure takes groups of runs, title -> runs of one stream, and draws a panel for each; one group is one panel. Every
method has a colour, a marker and a line style of its own everywhere, so that the figures can be read without colour.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fst_bench.analysis.curves import Curve, asymptotes, curve_of, long_form
from fst_bench.analysis.report.figures import (
    COLOURS,
    MARKERS,
    SMOOTHED,
    STYLE,
    WIDTH,
    accuracy_axis,
    legend_columns,
    shade,
    styled,
    task_legend,
)
from fst_bench.analysis.runs import ORDER, Runs, methods_of
from fst_bench.analysis.tables import interval
from fst_bench.metrics import difference, interaction
from fst_bench.metrics.curve import Floats
from fst_bench.metrics.transfer import trained

Groups = dict[str, Runs]
LINES = ["-", "--", "-.", ":"]


@dataclass(frozen=True)
class Drawn:
    """`label` is for those who don't see it."""

    name: str
    figure: Figure
    data: pd.DataFrame
    caption: str
    label: str


def look(method: str, known: list[str]) -> dict[str, Any]:
    """fst is always the same blue solid line, and so on; methods of a user come after those we know."""
    order = ["fst", "rl", "gepa", "base", *sorted(set(known) - set(ORDER))]
    i = order.index(method)
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "linestyle": LINES[i % len(LINES)]}


def draw(groups: Groups, reference: str = "rl") -> list[Drawn]:
    """Every figure that the runs have data for."""
    several = all(len(runs[0].stages) > 1 for runs in groups.values())
    single = all(len(runs[0].stages) == 1 for runs in groups.values())
    drawn = [continual(runs, name) for name, runs in groups.items()] if several else []
    if single:
        drawn += [efficiency(groups, reference), fits(groups)]
    if not several:
        drawn += [drift(groups)]
    makers: list[Callable[[Groups], Drawn | None]] = [learning, channels, plasticity, forgetting]
    return [*drawn, *(made for make in makers if (made := make(groups)) is not None)]


# --- learning


@matplotlib.rc_context(STYLE)
def continual(runs: Runs, name: str = "continual") -> Drawn:
    """A panel per learning method: every task over the whole stream, under the method's own prompt."""
    found = methods_of(runs)
    methods = [m for m in found if m != "base"] or found
    tasks = list(dict.fromkeys(task for stage in runs[0].stages for task in trained(stage["task"])))
    edges = [float(np.mean([run.stages[i]["end"] for run in runs])) for i in range(len(runs[0].stages))]
    stages = pd.DataFrame(
        [
            {"stage": i + 1, "task": s["task"], "start": edges[i - 1] if i else 0, "end": edges[i]}
            for i, s in enumerate(runs[0].stages)
        ]
    )
    figure = Figure(figsize=(WIDTH, 2.3 * len(methods) + 0.9), layout="constrained")
    panels = figure.subplots(len(methods), 1, sharex=True, squeeze=False)[:, 0]
    rows = []
    for method, axes in zip(methods, panels, strict=True):
        shade(axes, stages, tasks, name=axes is panels[0])
        for task, colour, marker in styled(tasks):
            curve = curve_of(runs, method, task)
            data = band(curve.problems, curve.accuracy)
            axes.fill_between(data["problems"], data["low"], data["high"], color=colour, alpha=0.13, linewidth=0)
            axes.plot(data["problems"], data["mean"], color=colour, marker=marker, markersize=4, linewidth=1.6)
            rows.append(data.assign(method=method, task=task))
        accuracy_axis(axes)
        axes.set_title(method)
    panels[-1].set_xlabel("problems seen")
    task_legend(figure, tasks)
    data = pd.concat(rows, ignore_index=True)
    caption = f"Accuracy on held-out problems of every task under the method's own prompt; {evidence(runs)}. Stages are drawn at their mean lengths: they differ by seed."
    return Drawn(name, figure, data, caption, f"Accuracy over problems, a panel for each of {', '.join(methods)}.")


@matplotlib.rc_context(STYLE)
def efficiency(groups: Groups, reference: str) -> Drawn:
    """Accuracy over problems with running maxima; the arrow goes from where the reference has its peak to where fst is there."""
    figure, panels = panels_for(groups)
    rows = []
    for axes, (title, runs) in zip(panels, groups.items(), strict=True):
        task, known = runs[0].stages[0]["task"], methods_of(runs)
        curves = {m: curve_of(runs, m, task) for m in known}
        for method, curve in curves.items():
            style, data = look(method, known), band(curve.problems, curve.accuracy)
            data["running_maximum"] = np.maximum.accumulate(data["mean"])
            axes.fill_between(
                data["problems"], data["low"], data["high"], color=style["color"], alpha=0.12, linewidth=0
            )
            axes.plot(data["problems"], data["mean"], markersize=3, **style | {"linestyle": "none"})
            axes.step(
                data["problems"],
                data["running_maximum"],
                where="post",
                color=style["color"],
                linewidth=1.8,
                linestyle=style["linestyle"],
                alpha=0.75,
            )
            rows.append(data.assign(group=title, method=method))
        if "gepa" in curves:
            ceiling = float(curves["gepa"].accuracy.mean(0).max())
            axes.axhline(ceiling, color=look("gepa", known)["color"], linewidth=0.8, linestyle=(0, (1, 2)))
        fewer = (
            arrow(axes, curves[reference], curves["fst"])
            if reference in curves and "fst" in curves and reference != "fst"
            else ""
        )
        accuracy_axis(axes, top=1.1)
        axes.set_title(title + fewer)
        axes.set_xlabel("problems seen")
    first_column_only(panels)
    legend(figure, groups)
    some = next(iter(groups.values()))
    caption = (
        f"Accuracy under the method's own prompt (markers) and its running maximum (steps); the dotted line is gepa's ceiling, the arrow goes from {reference}'s "
        f"peak to the first evaluation of fst at least as high; {evidence(some)}. A running maximum of small evaluations is biased upward."
    )
    return Drawn(
        "efficiency",
        figure,
        pd.concat(rows, ignore_index=True),
        caption,
        f"Accuracy over problems in {len(groups)} panels, one line a method.",
    )


def arrow(axes: Axes, theirs: Curve, ours: Curve) -> str:
    """Draws it where there is one; what it comes to, in words."""
    peak = float(theirs.accuracy.mean(0).max())
    start = theirs.problems[int(theirs.accuracy.mean(0).argmax())]
    there = np.flatnonzero(ours.accuracy.mean(0) >= peak - 1e-9)
    if len(there) and 0 < ours.problems[there[0]] < start:
        end = ours.problems[there[0]]
        axes.annotate(
            "",
            xy=(end, peak),
            xytext=(start, peak),
            arrowprops={"arrowstyle": "->", "color": "#222222", "linewidth": 1.2},
        )
        return f", {start / end:.1f}x fewer"
    return ""


@matplotlib.rc_context(STYLE)
def fits(groups: Groups) -> Drawn:
    """Sigmoid fits to the mean curves, and where they are heading."""
    figure, panels = panels_for(groups)
    rows = []
    for axes, (title, runs) in zip(panels, groups.items(), strict=True):
        known, task = methods_of(runs), runs[0].stages[0]["task"]
        for method, fit in asymptotes(runs).items():
            if fit is None or method == "base":
                continue
            style, curve = look(method, known), curve_of(runs, method, task)
            x = np.linspace(0, curve.problems[-1], 120)
            axes.plot(
                curve.problems,
                curve.accuracy.mean(0),
                linestyle="none",
                marker=style["marker"],
                markersize=4,
                color=style["color"],
                alpha=0.6,
            )
            axes.plot(x, fit(x.tolist()), color=style["color"], linestyle=style["linestyle"], linewidth=1.7)
            axes.axhline(fit.A, color=style["color"], linewidth=0.8, linestyle=(0, (1, 2)))
            sure = "" if fit.identifiable else " ?"
            axes.text(
                1.01,
                fit.A,
                f"{fit.A:.2f}{sure}",
                color=style["color"],
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=8,
            )
            rows.append(
                {
                    "group": title,
                    "method": method,
                    **{
                        k: getattr(fit, k) for k in ("A", "B", "c_mid", "r0", "low", "high", "identifiable", "residual")
                    },
                }
            )
        spread_texts(axes)
        accuracy_axis(axes, top=1.1)
        axes.set_title(title)
        axes.set_xlabel("problems seen")
    first_column_only(panels)
    legend(figure, groups, without=("base",))
    some = next(iter(groups.values()))
    caption = f"Sigmoids (ScaleRL's four parameters) fitted to the mean over seeds, with the asymptote A on the right, ? where it is not identified: its interval is wider than 0.1, most of the rise is not in the data, or the fit was stopped at 1 or 0; {evidence(some)}."
    return Drawn("fits", figure, pd.DataFrame(rows), caption, "Fitted learning curves with their asymptotes.")


@matplotlib.rc_context(STYLE)
def drift(groups: Groups) -> Drawn:
    """Accuracy against KL to the base, both under the method's own prompt, means over seeds."""
    figure, panels = panels_for(groups)
    rows = []
    for axes, (title, runs) in zip(panels, groups.items(), strict=True):
        known, task = methods_of(runs), runs[0].stages[0]["task"]
        for method in known:
            style, curve = look(method, known), curve_of(runs, method, task)
            data = pd.DataFrame(
                {"problems": curve.problems, "kl": curve.kl.mean(0), "accuracy": curve.accuracy.mean(0)}
            )
            axes.plot(data["kl"], data["accuracy"], markersize=4, linewidth=1.1, **style)
            rows.append(data.assign(group=title, method=method))
        accuracy_axis(axes, top=1.1)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_title(title)
        axes.set_xlabel("KL to the base, nats per token")
    first_column_only(panels)
    legend(figure, groups)
    some = next(iter(groups.values()))
    caption = f"What was gained for how far the weights moved: a point an evaluation, in time order, both numbers under the method's own prompt; {evidence(some)}."
    return Drawn(
        "drift",
        figure,
        pd.concat(rows, ignore_index=True),
        caption,
        "Accuracy against KL to the base, one line a method.",
    )


@matplotlib.rc_context(STYLE)
def learning(groups: Groups) -> Drawn | None:
    """Training reward and gradient norm of the methods that train weights."""
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
                rows.append(
                    pd.DataFrame(
                        {
                            "group": title,
                            "method": method,
                            "what": name,
                            "problems": mean.index,
                            "value": mean.to_numpy(),
                        }
                    )
                )
        column[0].set_title(title)
        column[1].set_xlabel("problems seen")
    for axes, name in zip(panels[:, 0], ("mean training reward", "gradient norm"), strict=True):
        axes.set_ylabel(name)
    legend(figure, groups)
    some = next(iter(groups.values()))
    caption = f"Mean reward of the training rollouts and norm of the gradient before clipping, means over seeds and {SMOOTHED} steps around (a step without a gradient has none); seeds: {seeds_of(some)}."
    return Drawn(
        "learning",
        figure,
        pd.concat(rows, ignore_index=True),
        caption,
        "Training reward and gradient norm over problems.",
    )


# --- probes


@matplotlib.rc_context(STYLE)
def channels(groups: Groups) -> Drawn | None:
    """Base or trained weights times seed or evolved prompt, for the methods that have both."""
    rows = pd.concat(
        [run.probe("channels").assign(group=title) for title, runs in groups.items() for run in runs], ignore_index=True
    )
    if "weights" not in rows:
        return None
    rows = rows[rows["method"] == ("fst" if (rows["method"] == "fst").any() else rows["method"].iloc[0])]
    cells = (
        rows.groupby(["group", "stage", "task", "weights", "prompt"], sort=False)["accuracy"]
        .apply(lambda v: interval(list(v)))
        .reset_index(name="cell")
    )
    cells["mean"], cells["half"] = cells["cell"].str[0], cells["cell"].str[1]
    keys = list(dict.fromkeys(zip(cells["group"], cells["stage"], cells["task"], strict=True)))
    columns = min(4, len(keys))
    lines = math.ceil(len(keys) / columns)
    figure = Figure(figsize=(WIDTH, 2.9 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (group, stage, task) in zip(panels, keys, strict=False):
        mine = cells[(cells["group"] == group) & (cells["stage"] == stage) & (cells["task"] == task)].set_index(
            ["weights", "prompt"]
        )
        grid = np.array(
            [[mine.loc[(w, p), "mean"] for p in ("seed", "evolved")] for w in ("base", "trained")], dtype=float
        )
        axes.imshow(grid, cmap="Blues", vmin=0, vmax=1.25)
        for i, w in enumerate(("base", "trained")):
            for j, p in enumerate(("seed", "evolved")):
                half = float(mine.loc[(w, p), "half"])
                text = f"{grid[i, j]:.2f}" + ("" if math.isnan(half) else f"\n± {half:.2f}")
                axes.text(j, i, text, ha="center", va="center", color="white" if grid[i, j] > 0.75 else "#111111")
        both = interaction(
            {(w, p): grid[i, j] for i, w in enumerate(("base", "trained")) for j, p in enumerate(("seed", "evolved"))}
        )
        axes.set_xticks([0, 1], ["seed prompt", "evolved"])
        axes.set_yticks([0, 1], ["base\nweights", "trained\nweights"])
        axes.set_title(f"{task}  interaction {both:+.2f}")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    for axes in panels[len(keys) :]:
        axes.remove()
    n = int(rows["n"].iloc[0])
    caption = (
        f"{rows['method'].iloc[0]}, a task at its stage's end: which channel carries what was learned. Accuracy at T = 1 of n = {n} held-out problems with 95 % t-intervals over "
        f"{rows['seed'].nunique()} seeds; the interaction is what both are worth together beyond the sum of each alone."
    )
    return Drawn(
        "channels", figure, cells.drop(columns="cell"), caption, "Heat maps of accuracy by weights and prompt."
    )


@matplotlib.rc_context(STYLE)
def plasticity(groups: Groups) -> Drawn | None:
    """A fresh RL pass from the base and from each method's weights: where it ends."""
    rows = pd.concat(
        [run.probe("plasticity").assign(group=title) for title, runs in groups.items() for run in runs],
        ignore_index=True,
    )
    if "final" not in rows:
        return None
    rows["start_from"] = np.where(rows["stage"] == 0, "base", rows["method"])
    rows = rows.drop_duplicates(
        ["group", "task", "stage", "start_from", "seed"]
    )  # the pass from the base is the same for every method
    rows["from"] = rows["group"]
    several = rows["stage"].max() > 1
    if several:
        rows.loc[rows["stage"] > 0, "from"] += " " + rows["stage"].astype(str)
        base = rows[rows["stage"] == 0]
        rows = pd.concat(
            [
                rows[rows["stage"] > 0],
                *(base.assign(**{"from": name}) for name in rows.loc[rows["stage"] > 0, "from"].unique()),
            ]
        )
    data = bars(rows, "final", ["from", "task"], "start_from")
    figure = bar_figure(data, ["from", "task"], "start_from", "accuracy after the pass", "{0}\n-> {1}")
    caption = f"Accuracy at the end of a fresh RL pass (fresh optimizer, seed prompt) on a task that the stream does not hold, from the base and from the trained weights; 95 % t-intervals over {rows['seed'].nunique()} seeds."
    return Drawn("plasticity", figure, data, caption, "Bars of accuracy after a fresh RL pass by where it started.")


@matplotlib.rc_context(STYLE)
def forgetting(groups: Groups) -> Drawn | None:
    """What lm-eval says before and after."""
    found = []
    for title, runs in groups.items():
        for run in runs:
            rows = run.probe("forgetting")
            if "scores" not in rows:
                continue
            for task, pair in rows.groupby("task", sort=False):
                scores = pair.set_index("weights")["scores"]
                if {"base", "trained"} <= set(scores.index):
                    delta, error = difference(scores["base"], scores["trained"])
                    found.append(
                        {
                            "group": title,
                            "method": run.method,
                            "seed": run.seed,
                            "task": task,
                            "metric": pair["metric"].iloc[0],
                            "delta": delta,
                            "error": error,
                        }
                    )
    rows = pd.DataFrame(found)
    if rows.empty:
        return None
    shown = rows[rows["metric"].isin(["acc", "exact_match"])]
    data = bars(shown, "delta", ["group", "task"], "method")
    figure = bar_figure(
        data,
        ["group", "task"],
        "method",
        "accuracy, after - before",
        "{1}" if len(groups) == 1 else "{0}: {1}",
        zero=True,
    )
    caption = f"General abilities that no stream trains, through lm-eval, after the stream minus before, paired by document; 95 % t-intervals over {rows['seed'].nunique()} seeds."
    return Drawn("forgetting", figure, rows, caption, "Bars of the change in lm-eval scores.")


def bars(rows: pd.DataFrame, value: str, by: list[str], method: str) -> pd.DataFrame:
    """Mean and t-interval over seeds of each bar."""
    data = rows.groupby([*by, method], sort=False)[value].apply(lambda v: interval(list(v))).reset_index(name="cell")
    data["mean"], data["half"] = data["cell"].str[0], data["cell"].str[1]
    return data.drop(columns="cell")


def bar_figure(data: pd.DataFrame, by: list[str], method: str, label: str, name: str, zero: bool = False) -> Figure:
    """A cluster of bars for each of `by`, hatched by method."""
    clusters = list(dict.fromkeys(map(tuple, data[by].values)))
    methods = sorted(data[method].unique(), key=lambda m: ORDER.index(m) if m in ORDER else len(ORDER))
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(methods)
    for i, m in enumerate(methods):
        mine = data[data[method] == m].set_index(by)
        at = [k + (i - (len(methods) - 1) / 2) * width for k, cluster in enumerate(clusters) if cluster in mine.index]
        there = mine.loc[[cluster for cluster in clusters if cluster in mine.index]]
        axes.bar(
            at,
            there["mean"],
            width * 0.92,
            yerr=there["half"].fillna(0),
            label=m,
            color=look(m, methods)["color"],
            hatch=["", "//", "..", "xx"][i % 4],
            edgecolor="white",
            ecolor="#333333",
            capsize=2,
        )
    axes.set_xticks(
        range(len(clusters)),
        [name.format(*cluster) for cluster in clusters],
        fontsize=8.5 if len(clusters) < 8 else 7.5,
        rotation=0 if len(clusters) < 8 else 30,
        ha="center" if len(clusters) < 8 else "right",
    )
    axes.set_ylabel(label)
    if zero:
        axes.axhline(0, color="#333333", linewidth=0.8)
    else:
        axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    figure.legend(loc="outside upper left", ncols=legend_columns(methods), frameon=False)
    return figure


# --- shared


def band(x: Floats, y: Floats) -> pd.DataFrame:
    """Mean over seeds (rows of y) with a t-interval, cut to accuracies."""
    cells = [interval(list(column)) for column in y.T]
    mean, half = np.array([c[0] for c in cells]), np.nan_to_num([c[1] for c in cells])
    return pd.DataFrame(
        {
            "problems": x,
            "mean": mean,
            "low": np.clip(mean - half, 0, 1),
            "high": np.clip(mean + half, 0, 1),
            "seeds": len(y),
        }
    )


def panels_for(groups: Groups) -> tuple[Figure, list[Axes]]:
    columns = min(3, len(groups))
    lines = math.ceil(len(groups) / columns)
    figure = Figure(figsize=(WIDTH, 3.2 * lines + 0.4), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).ravel())
    for axes in panels[len(groups) :]:
        axes.remove()
    return figure, panels[: len(groups)]


def first_column_only(panels: list[Axes]) -> None:
    """One label for the y axes of a row."""
    for axes in panels:
        spec = axes.get_subplotspec()
        if spec is not None and not spec.is_first_col():
            axes.set_ylabel("")


def legend(figure: Figure, groups: Groups, without: tuple[str, ...] = ()) -> None:
    """One legend above the panels."""
    known = methods_of(run for runs in groups.values() for run in runs)
    named = [m for m in known if m not in without]
    handles = [Line2D([], [], label=m, linewidth=1.5, **look(m, known)) for m in named]
    figure.legend(handles=handles, loc="outside upper left", ncols=legend_columns(named), frameon=False)


def spread_texts(axes: Axes, gap: float = 0.06) -> None:
    """Move the labels at the right edge apart where they would overlap."""
    texts = sorted(axes.texts, key=lambda text: text.get_position()[1])
    for below, text in pairwise(texts):
        x, y = text.get_position()
        text.set_position((x, max(y, below.get_position()[1] + gap)))


def evidence(runs: Runs) -> str:
    """'n = 64 (192 at stages' ends), means and 95 % t-intervals over 5 seeds'"""
    rows = long_form(runs)
    usual, ends = (
        sorted(set(rows.loc[~rows["boundary"], "n_problems"])),
        sorted(set(rows.loc[rows["boundary"], "n_problems"])),
    )
    n = ", ".join(map(str, usual or ends)) + (
        f" ({', '.join(map(str, ends))} at stages' ends)" if usual and usual != ends else ""
    )
    return f"n = {n}, means and 95 % t-intervals over {seeds_of(runs)}"


def seeds_of(runs: Runs) -> str:
    counts = sorted({sum(run.method == m for run in runs) for m in methods_of(runs)})
    return f"{' or '.join(map(str, counts))} seed{'s' if counts[-1] > 1 else ''}"
