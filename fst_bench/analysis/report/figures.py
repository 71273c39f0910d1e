"""The figures of a report: pure functions from eval and step rows to a matplotlib Figure, and from a Figure to SVG that can share a page."""

import io
import math
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fst_bench.metrics.intervals import wilson
from fst_bench.metrics.transfer import trained

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#B0518F", "#8A6D00", "#2E9BC6", "#444444"]
MIXED = "#555555"
"""Of a stage that trains several tasks."""
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
MODES = {
    "system": ("-", "System: the method's own prompt at the time"),
    "seed": ("--", "Weights only: under the seed prompt"),
    "recalled": (":", "Recalled (oracle): under the prompt the method had at the end of the task's own stage"),
}
SMOOTHED = 5
WIDTH = 10.0
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "font.family": ["DejaVu Sans", "sans-serif"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "figure.dpi": 72,
    "svg.fonttype": "none",
    "text.parse_math": False,
}


@matplotlib.rc_context(STYLE)
def continual(evals: pd.DataFrame, stages: pd.DataFrame, tasks: list[str]) -> Figure:
    """Accuracy of every task over the problems seen: one panel per prompt mode, stages in the background, one line (labelled by its task) each."""
    modes = [mode for mode in MODES if (evals["prompt_mode"] == mode).any()]
    heights = [3.4 if mode == "system" else 2.3 for mode in modes]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.8), layout="constrained")
    panels = figure.subplots(len(modes), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for mode, axes in zip(modes, panels, strict=True):
        line, title = MODES[mode]
        shade(axes, stages, tasks, name=axes is panels[0])
        for task, colour, marker in styled(tasks):
            rows = evals[(evals["prompt_mode"] == mode) & (evals["task"] == task)]
            low, high = wilson(rows["accuracy"], rows["n_problems"])
            axes.fill_between(rows["problems"], low, high, color=colour, alpha=0.11, linewidth=0)
            if len(rows) == 1:
                axes.vlines(rows["problems"], low, high, color=colour, alpha=0.3)
            axes.plot(
                rows["problems"],
                rows["accuracy"],
                line,
                color=colour,
                marker=marker,
                markersize=4,
                linewidth=1.6,
                label=task,
            )
            ends = rows[rows["boundary"]]
            axes.plot(
                ends["problems"],
                ends["accuracy"],
                linestyle="none",
                marker=marker,
                markersize=8.5,
                color=colour,
                markeredgecolor="white",
            )
        accuracy_axis(axes)
        axes.set_title(title)
    panels[-1].set_xlabel("problems seen")
    task_legend(figure, tasks)
    return figure


@matplotlib.rc_context(STYLE)
def reward(steps: pd.DataFrame, stages: pd.DataFrame, tasks: list[str]) -> Figure:
    """Mean training reward of each step (dots) and its centred running mean within a stage (lines) over the problems seen."""
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axes = figure.subplots()
    shade(axes, stages, tasks, name=True)
    axes.plot(
        steps["problems"],
        steps["reward"],
        linestyle="none",
        marker="o",
        markersize=3,
        color="#9a9a9a",
        label="each step",
    )
    for _, rows in steps.groupby("stage"):
        axes.plot(
            rows["problems"],
            rows["reward"].rolling(SMOOTHED, center=True, min_periods=1).mean(),
            color="#222222",
            linewidth=1.8,
        )
    axes.set_ylim(min(0.0, steps["reward"].min()), 1.12)
    axes.set_xlabel("problems seen")
    axes.set_ylabel("mean reward")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    return figure


@matplotlib.rc_context(STYLE)
def kl_accuracy(evals: pd.DataFrame, stages: pd.DataFrame, tasks: list[str]) -> Figure:
    """Accuracy against KL to the base, a panel per task: its path through time (one line), own-stage evaluations filled, the latest one ringed."""
    tasks = [task for task in tasks if (evals["task"] == task).any()]
    columns = len(tasks) if len(tasks) <= 4 else 3
    lines = math.ceil(len(tasks) / columns)
    figure = Figure(figsize=(WIDTH, 2.9 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for i, (task, colour, marker) in enumerate(styled(tasks)):
        axes, rows = panels[i], evals[evals["task"] == task]
        own = rows[rows["stage"].isin([s.stage for s in stages.itertuples() if task in trained(str(s.task))])]
        look = {"color": colour, "marker": marker}
        axes.plot(
            rows["kl"], rows["accuracy"], linewidth=0.9, markersize=4.5, markerfacecolor="white", label=task, **look
        )
        axes.plot(own["kl"], own["accuracy"], linestyle="none", markersize=7, markeredgecolor="white", **look)
        axes.plot(
            rows["kl"].iloc[-1],
            rows["accuracy"].iloc[-1],
            linestyle="none",
            marker="o",
            markersize=13,
            color="#222222",
            fillstyle="none",
        )
        accuracy_axis(axes, top=1.05)
        axes.set_title(task)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        if i + columns >= len(tasks):
            axes.set_xlabel("KL to the base, nats per token")
            axes.tick_params(labelbottom=True)
        if i % columns:
            axes.set_ylabel("")
    width = evals["kl"].max() or 0.01
    panels[0].set_xlim(min(evals["kl"].min(), -0.05 * width), 1.08 * width)
    for axes in panels[len(tasks) :]:
        axes.remove()
    return figure


def styled(tasks: list[str]) -> list[tuple[str, str, str]]:
    """Each task with its colour and its marker."""
    return [
        (task, COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)])
        for i, task in enumerate(tasks)
    ]


def shade(axes: Axes, stages: pd.DataFrame, tasks: list[str], *, name: bool) -> None:
    """Tint every stage with its task's colour, a mixture grey; name it at the top where the name fits, else number it."""
    colours = {task: colour for task, colour, _ in styled(tasks)}
    total = stages["end"].max()
    for stage in stages.itertuples():
        axes.axvspan(stage.start, stage.end, color=colours.get(stage.task, MIXED), alpha=0.07, linewidth=0, zorder=0)
        if stage.start:
            axes.axvline(stage.start, color="#777777", linewidth=0.8, zorder=0)
        if name:
            label = f"{stage.stage} {stage.task}"
            fits = len(label) < 110 * (stage.end - stage.start) / total
            colour = colours.get(stage.task, MIXED)
            axes.text(
                (stage.start + stage.end) / 2,
                1.06,
                label if fits else str(stage.stage),
                ha="center",
                va="center",
                color=colour,
            )
    axes.set_xlim(-0.01 * total, 1.01 * total)


def accuracy_axis(axes: Axes, top: float = 1.12) -> None:
    """A y axis from 0 to 1 with room above."""
    axes.set_ylim(-0.03, top)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_ylabel("accuracy")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)


def task_legend(figure: Figure, tasks: list[str]) -> None:
    """One legend above the panels."""
    handles = [Line2D([], [], color=colour, marker=marker, label=task) for task, colour, marker in styled(tasks)]
    figure.legend(handles=handles, loc="outside upper left", ncols=legend_columns(tasks), frameon=False)


def legend_columns(labels: Sequence[str]) -> int:
    """How many columns a legend may have: more would make it, and with it the picture, wider than WIDTH."""
    room, sample = 145, 9  # in letters of STYLE's size: the figure's width, a line with its gaps
    return max(1, min(len(labels), room // (max(map(len, labels), default=0) + sample)))


def settle(figure: Figure) -> None:
    """Lay the figure out and fix its axes at rounded places: the last bits of the layout solver's answer vary, and ids are hashes of all bits."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position().bounds, 4).tolist())


def to_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an SVG element: same bytes for the same figure, every id starts with `name`, `label` for those who don't see it."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}), io.BytesIO() as buffer:
        settle(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        root = ElementTree.fromstring(buffer.getvalue())
    space = "{http://www.w3.org/2000/svg}"
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{space}metadata", f"{space}style"):
                parent.remove(child)
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key.endswith("href"):
                element.set(key, value.replace("#", f"#{name}-", 1))
            else:
                element.set(key, re.sub(r"url\(#", f"url(#{name}-", value))
    width, height = root.attrib.pop("width"), root.attrib.pop("height")
    root.set("style", f"aspect-ratio: {width.removesuffix('pt')} / {height.removesuffix('pt')}")
    root.set("role", "img")
    root.set("aria-label", label)
    ElementTree.register_namespace("", space[1:-1])
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    return ElementTree.tostring(root, encoding="unicode")
