"""Figures of the probes over runs and seeds (see `figures`); None where the runs were not probed."""

import math

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fst_bench.analysis.figure_parts import Drawn, Groups, look
from fst_bench.analysis.report.figures import STYLE, WIDTH, legend_columns
from fst_bench.analysis.runs import ORDER
from fst_bench.metrics import difference, interaction, t_interval

WEIGHTS = ("base", "trained")
PROMPTS = ("seed", "evolved")


@matplotlib.rc_context(STYLE)
def channels(groups: Groups) -> Drawn | None:
    """Draw accuracy by base or trained weights and seed or evolved prompt, of fst, or of the first method probed."""
    rows = pd.concat(
        [run.probe("channels").assign(group=title) for title, runs in groups.items() for run in runs], ignore_index=True
    )
    if "weights" not in rows:
        return None
    rows = rows[rows["method"] == ("fst" if (rows["method"] == "fst").any() else rows["method"].iloc[0])]
    cells = over_seeds(rows, "accuracy", ["group", "stage", "task", "weights", "prompt"])
    keys = list(dict.fromkeys(zip(cells["group"], cells["stage"], cells["task"], strict=True)))
    columns = min(4, len(keys))
    lines = math.ceil(len(keys) / columns)
    figure = Figure(figsize=(WIDTH, 2.9 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (group, stage, task) in zip(panels, keys, strict=False):
        here = (cells["group"] == group) & (cells["stage"] == stage) & (cells["task"] == task)
        mine = cells[here].set_index(["weights", "prompt"])
        grid = np.array([[mine.loc[(w, p), "mean"] for p in PROMPTS] for w in WEIGHTS], dtype=float)
        axes.imshow(grid, cmap="Blues", vmin=0, vmax=1.25)
        for i, w in enumerate(WEIGHTS):
            for j, p in enumerate(PROMPTS):
                half = float(mine.loc[(w, p), "half"])
                text = f"{grid[i, j]:.2f}" + ("" if math.isnan(half) else f"\n± {half:.2f}")
                axes.text(j, i, text, ha="center", va="center", color="white" if grid[i, j] > 0.75 else "#111111")
        both = interaction({(w, p): grid[i, j] for i, w in enumerate(WEIGHTS) for j, p in enumerate(PROMPTS)})
        axes.set_xticks([0, 1], ["seed prompt", "evolved"])
        axes.set_yticks([0, 1], ["base\nweights", "trained\nweights"])
        axes.set_title(f"{task}  interaction {both:+.2f}")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    for axes in panels[len(keys) :]:
        axes.remove()
    n = int(rows["n"].iloc[0])
    caption = (
        f"{rows['method'].iloc[0]}, a task at its stage's end: which channel carries what was learned. Accuracy at "
        f"T = 1 of n = {n} held-out problems with 95 % t-intervals over {rows['seed'].nunique()} seeds; the "
        "interaction is what both are worth together beyond the sum of each alone."
    )
    return Drawn("channels", figure, cells, caption, "Heat maps of accuracy by weights and prompt.")


@matplotlib.rc_context(STYLE)
def plasticity(groups: Groups) -> Drawn | None:
    """Draw the accuracy at the end of a fresh RL pass, from the base and from each method's weights."""
    rows = pd.concat(
        [run.probe("plasticity").assign(group=title) for title, runs in groups.items() for run in runs],
        ignore_index=True,
    )
    if "final" not in rows:
        return None
    rows["start_from"] = np.where(rows["stage"] == 0, "base", rows["method"])
    # the pass from the base is the same for every method
    rows = rows.drop_duplicates(["group", "task", "stage", "start_from", "seed"])
    rows["from"] = rows["group"]
    several = rows["stage"].max() > 1
    if several:
        rows.loc[rows["stage"] > 0, "from"] += " " + rows["stage"].astype(str)
        base, later = rows[rows["stage"] == 0], rows[rows["stage"] > 0]
        rows = pd.concat([later, *(base.assign(**{"from": name}) for name in later["from"].unique())])
    data = over_seeds(rows, "final", ["from", "task", "start_from"])
    figure = bar_figure(data, ["from", "task"], "start_from", "accuracy after the pass", "{0}\n-> {1}")
    caption = (
        "Accuracy at the end of a fresh RL pass (fresh optimizer, seed prompt) on a task that the stream does not "
        f"hold, from the base and from the trained weights; 95 % t-intervals over {rows['seed'].nunique()} seeds."
    )
    return Drawn("plasticity", figure, data, caption, "Bars of accuracy after a fresh RL pass by where it started.")


@matplotlib.rc_context(STYLE)
def forgetting(groups: Groups) -> Drawn | None:
    """Draw the change in lm-eval's scores."""
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
    data = over_seeds(shown, "delta", ["group", "task", "method"])
    figure = bar_figure(
        data,
        ["group", "task"],
        "method",
        "accuracy, after - before",
        "{1}" if len(groups) == 1 else "{0}: {1}",
        zero=True,
    )
    caption = (
        "General abilities that no stream trains, through lm-eval, after the stream minus before, paired by document; "
        f"95 % t-intervals over {rows['seed'].nunique()} seeds."
    )
    return Drawn("forgetting", figure, rows, caption, "Bars of the change in lm-eval scores.")


def over_seeds(rows: pd.DataFrame, value: str, by: list[str]) -> pd.DataFrame:
    """Return the mean of each group over its seeds, and half of its t-interval: the columns of `by`, mean, half."""
    found = rows.groupby(by, sort=False)[value].apply(lambda values: t_interval(values.tolist()))
    data = found.reset_index(name="estimate")
    data["mean"] = [estimate.value for estimate in data["estimate"]]
    data["half"] = [estimate.half for estimate in data["estimate"]]
    return data.drop(columns="estimate")


def bar_figure(data: pd.DataFrame, by: list[str], method: str, label: str, name: str, zero: bool = False) -> Figure:
    """Return a figure with a cluster of bars for each of `by`, hatched by method."""
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
