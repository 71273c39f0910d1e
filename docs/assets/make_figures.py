"""Draw the figure of README.md, light and dark, from the committed runs: python docs/assets/make_figures.py [FOLDER]"""

import re
import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fst_bench.analysis import load
from fst_bench.analysis.figures import continual

ROOT = Path(__file__).parents[2]
TASKS = {"math": "o", "codeio": "s", "hover": "^", "star-graph": "D"}
THEMES = {
    "light": ("#1f2328", "#d0d7de", ["#0072B2", "#C24E00", "#00805E", "#A23B80"]),
    "dark": ("#e6edf3", "#3d444d", ["#6CB8EC", "#FF9D57", "#3ED1A5", "#EE9BCB"]),
}  # fmt: skip


def draw(theme: str, path: Path) -> None:
    """Write one SVG: a panel for each of gepa, rl and fst, a line for each task."""
    text, grid, colours = THEMES[theme]
    runs = load([ROOT / "results" / "continual-4@2" / method for method in ("base", "gepa", "rl", "fst")])
    data = continual(runs).data
    ends = [sum(run.stages[i].end for run in runs) / len(runs) for i in range(len(TASKS))]
    style = {
        "font.size": 12,
        "svg.fonttype": "none",
        "text.color": text,
        "axes.labelcolor": text,
        "xtick.color": text,
        "ytick.color": text,
        "axes.edgecolor": grid,
    }
    with matplotlib.rc_context({**style, "svg.hashsalt": theme}):
        figure = Figure(figsize=(11, 3.7), layout="constrained")
        panels = figure.subplots(1, 3, sharex=True, sharey=True)
        for axes, method in zip(panels, ("gepa", "rl", "fst"), strict=True):
            for start, end, task, colour in zip([0, *ends], ends, TASKS, colours, strict=False):
                axes.axvspan(start, end, color=colour, alpha=0.10, linewidth=0)
                axes.text((start + end) / 2, 1.07, task, ha="center", va="center", color=colour, fontsize=11)
                rows = data[(data["method"] == method) & (data["task"] == task)]
                axes.fill_between(rows["problems"], rows["low"], rows["high"], color=colour, alpha=0.18, linewidth=0)
                axes.plot(
                    rows["problems"], rows["mean"], color=colour, marker=TASKS[task], markersize=3.6, linewidth=1.7
                )
            axes.set(
                title=method,
                xlabel="problems seen",
                ylim=(-0.03, 1.13),
                xlim=(0, ends[-1]),
                yticks=[0, 0.5, 1],
                xticks=[0, 400, 800, 1200],
            )
            axes.grid(axis="y", color=grid, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        panels[0].set_ylabel("accuracy, held out")
        handles = [
            Line2D([], [], color=c, marker=m, markersize=5, label=t)
            for (t, m), c in zip(TASKS.items(), colours, strict=True)
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(path, transparent=True, metadata={"Date": None})
    path.write_text(re.sub(r"(\.\d\d)\d+", r"\1", path.read_text()))


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent
    for name in THEMES:
        draw(name, folder / f"continual-{name}.svg")
