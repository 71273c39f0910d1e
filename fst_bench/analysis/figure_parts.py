"""The parts that the figures over runs and seeds share: looks, panels, bands, legends, captions."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from fst_bench.analysis.curves import long_form
from fst_bench.analysis.report.figures import COLOURS, MARKERS, WIDTH, legend_columns
from fst_bench.analysis.runs import ORDER, Runs, methods_of
from fst_bench.metrics import t_interval
from fst_bench.metrics.curve import Floats

Groups = dict[str, Runs]
"""Title -> runs of one stream, a panel each."""
LINES = ["-", "--", "-.", ":"]


@dataclass(frozen=True)
class Drawn:
    """A figure with its data."""

    name: str
    figure: Figure
    data: pd.DataFrame
    """The numbers drawn, ready to be drawn again."""
    caption: str
    """With n and seeds."""
    label: str
    """The figure in words, for readers who do not see it."""


def look(method: str, known: list[str]) -> dict[str, Any]:
    """Return a method's colour, marker and line style, the same everywhere; a user's come after those that ship."""
    order = ["fst", "rl", "gepa", "base", *sorted(set(known) - set(ORDER))]
    i = order.index(method)
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "linestyle": LINES[i % len(LINES)]}


def band(x: Floats, y: Floats) -> pd.DataFrame:
    """Return the mean over seeds (rows of y) with its t-interval, cut to [0, 1]; of one seed its ends are the mean."""
    found = [t_interval(column.tolist()) for column in y.T]
    mean = np.array([estimate.value for estimate in found])
    ends = np.array([[estimate.low, estimate.high] for estimate in found]).T
    low, high = np.where(np.isnan(ends), mean, ends)
    return pd.DataFrame(
        {"problems": x, "mean": mean, "low": np.clip(low, 0, 1), "high": np.clip(high, 0, 1), "seeds": len(y)}
    )


def panels_for(groups: Groups) -> tuple[Figure, list[Axes]]:
    """Return a figure and a panel for each group."""
    columns = min(3, len(groups))
    lines = math.ceil(len(groups) / columns)
    figure = Figure(figsize=(WIDTH, 3.2 * lines + 0.4), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).ravel())
    for axes in panels[len(groups) :]:
        axes.remove()
    return figure, panels[: len(groups)]


def first_column_only(panels: list[Axes]) -> None:
    """Leave one label for the y axes of a row."""
    for axes in panels:
        spec = axes.get_subplotspec()
        if spec is not None and not spec.is_first_col():
            axes.set_ylabel("")


def legend(figure: Figure | SubFigure, groups: Groups, without: tuple[str, ...] = ()) -> None:
    """Draw one legend above the panels."""
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
    """Return what a figure rests on: 'n = 64 (192 at the ends of stages), means and 95 % t-intervals over 5 seeds'."""
    rows = long_form(runs)
    usual = sorted(set(rows.loc[~rows["boundary"], "n_problems"]))
    ends = sorted(set(rows.loc[rows["boundary"], "n_problems"]))
    n = ", ".join(map(str, usual or ends))
    if usual and usual != ends:
        n += f" ({', '.join(map(str, ends))} at the ends of stages)"
    return f"n = {n}, means and 95 % t-intervals over {seeds_of(runs)}"


def seeds_of(runs: Runs) -> str:
    """Return how many seeds each method has: '5 seeds', '3 or 5 seeds'."""
    counts = sorted({sum(run.method == m for run in runs) for m in methods_of(runs)})
    return f"{' or '.join(map(str, counts))} seed{'s' if counts[-1] > 1 else ''}"
