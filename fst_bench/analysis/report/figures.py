"""The figures of a report.

Pure functions from tables of evaluation and step rows to a matplotlib Figure, and from a Figure to SVG that can share a
page.
"""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fst_bench.harness.rows import StageRow, label
from fst_bench.metrics.intervals import wilson

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#B0518F", "#8A6D00", "#2E9BC6", "#444444"]
MIXED = "#555555"
"""Colour of a stage that trains several tasks."""
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
MODES = {
    "system": ("-", "System: the method's own prompt at the time"),
    "seed": ("--", "Seed prompt: what the weights learned"),
    "oracle": (":", "Oracle prompt: the one the method had at the end of the task's own stage"),
    "greedy": ("-.", "Greedy: the method's own prompt, the likeliest tokens"),
}
"""Prompt mode -> line style, title of its panel."""
SMOOTHED = 5
"""Steps of a running mean."""
WIDTH = 10.0
"""Inches of a figure."""
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


@dataclass(frozen=True)
class StageSpan:
    """A stage on an axis of problems whose ends are no whole problems, such as means over runs."""

    stage: int
    tasks: tuple[str, ...]
    start: float
    end: float


Stages = Sequence[StageRow] | Sequence[StageSpan]


@matplotlib.rc_context(STYLE)
def continual(evals: pd.DataFrame, stages: Stages, tasks: list[str]) -> Figure:
    """Draw the accuracy of every task over the problems seen: a panel a prompt mode, the stages in the background."""
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
            look = {"color": colour, "marker": marker}
            axes.plot(rows["problems"], rows["accuracy"], line, markersize=4, linewidth=1.6, label=task, **look)
            ends, large = rows[rows["boundary"]], {"markersize": 8.5, "markeredgecolor": "white"}
            axes.plot(ends["problems"], ends["accuracy"], linestyle="none", **large, **look)
        accuracy_axis(axes)
        axes.set_title(title)
    panels[-1].set_xlabel("problems seen")
    task_legend(figure, tasks)
    return figure


@matplotlib.rc_context(STYLE)
def reward(steps: pd.DataFrame, stages: Stages, tasks: list[str]) -> Figure:
    """Draw the mean training reward of each step, and as a line its centred running mean within a stage."""
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axes = figure.subplots()
    shade(axes, stages, tasks, name=True)
    dots: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 3, "color": "#9a9a9a"}
    axes.plot(steps["problems"], steps["reward"], label="each step", **dots)
    for _, rows in steps.groupby("stage"):
        smooth = rows["reward"].rolling(SMOOTHED, center=True, min_periods=1).mean()
        axes.plot(rows["problems"], smooth, color="#222222", linewidth=1.8)
    axes.set_ylim(min(0.0, steps["reward"].min()), 1.12)
    axes.set_xlabel("problems seen")
    axes.set_ylabel("mean reward")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    return figure


@matplotlib.rc_context(STYLE)
def kl_accuracy(evals: pd.DataFrame, stages: Stages, tasks: list[str]) -> Figure:
    """Draw accuracy against KL to the base, a panel a task.

    The line is the path through time. Evaluations in the task's own stage are filled, the latest one is ringed.
    """
    tasks = [task for task in tasks if (evals["task"] == task).any()]
    columns = len(tasks) if len(tasks) <= 4 else 3
    lines = math.ceil(len(tasks) / columns)
    figure = Figure(figsize=(WIDTH, 2.9 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for i, (task, colour, marker) in enumerate(styled(tasks)):
        axes, rows = panels[i], evals[evals["task"] == task]
        own = rows[rows["stage"].isin([stage.stage for stage in stages if task in stage.tasks])]
        look = {"color": colour, "marker": marker}
        hollow: dict[str, Any] = {"markersize": 4.5, "markerfacecolor": "white"}
        axes.plot(rows["kl"], rows["accuracy"], linewidth=0.9, label=task, **hollow, **look)
        axes.plot(own["kl"], own["accuracy"], linestyle="none", markersize=7, markeredgecolor="white", **look)
        ring: dict[str, Any] = {
            "linestyle": "none",
            "marker": "o",
            "markersize": 13,
            "color": "#222222",
            "fillstyle": "none",
        }
        axes.plot(rows["kl"].iloc[-1], rows["accuracy"].iloc[-1], **ring)
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
    """Return each task with its colour and its marker."""
    return [
        (task, COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)])
        for i, task in enumerate(tasks)
    ]


def shade(axes: Axes, stages: Stages, tasks: list[str], *, name: bool) -> None:
    """Tint every stage with its task's colour, a mixture grey; name it at the top, or number it where that is long."""
    colours = {task: colour for task, colour, _ in styled(tasks)}
    total = max(stage.end for stage in stages)
    for stage in stages:
        colour = colours.get(label(stage.tasks), MIXED)
        axes.axvspan(stage.start, stage.end, color=colour, alpha=0.07, linewidth=0, zorder=0)
        if stage.start:
            axes.axvline(stage.start, color="#777777", linewidth=0.8, zorder=0)
        if name:
            text = f"{stage.stage} {label(stage.tasks)}"
            fits = len(text) < 110 * (stage.end - stage.start) / total
            at = (stage.start + stage.end) / 2
            axes.text(at, 1.06, text if fits else str(stage.stage), ha="center", va="center", color=colour)
    axes.set_xlim(-0.01 * total, 1.01 * total)


def accuracy_axis(axes: Axes, top: float = 1.12) -> None:
    """Set a y axis from 0 to 1 with room above."""
    axes.set_ylim(-0.03, top)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_ylabel("accuracy")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)


def task_legend(figure: Figure | SubFigure, tasks: list[str]) -> None:
    """Draw one legend above the panels."""
    handles = [Line2D([], [], color=colour, marker=marker, label=task) for task, colour, marker in styled(tasks)]
    figure.legend(handles=handles, loc="outside upper left", ncols=legend_columns(tasks), frameon=False)


def legend_columns(labels: Sequence[str]) -> int:
    """Return how many columns a legend may have: with more it, and with it the picture, would be wider than WIDTH."""
    room, sample = 145, 9  # in letters of STYLE's size: the figure's width, a line with its gaps
    return max(1, min(len(labels), room // (max(map(len, labels), default=0) + sample)))


def settle(figure: Figure) -> None:
    """Lay the figure out and fix its axes at rounded places.

    The last bits of the layout solver's answer vary, and ids in the SVG are hashes of all bits.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position().bounds, 4).tolist())


def to_svg(figure: Figure, name: str, label: str) -> str:
    """Return the figure as an SVG element, with the same bytes for the same figure.

    Every id starts with `name`. `label` is for readers who do not see it.
    """
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
