"""A stream before anything runs: the share of the problems that each task has, in a terminal and as a figure."""

from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fst_bench.analysis.report.figures import STYLE, WIDTH, legend_columns, styled
from fst_bench.harness.rows import label
from fst_bench.metrics.curve import Floats
from fst_bench.tasks.stream import Stage, StreamSpec, schedule, shares

BLOCKS = " ▁▂▃▄▅▆▇█"
COLUMNS = 72
"""Width of a terminal drawing."""


def curves(spec: StreamSpec, stages: list[Stage]) -> dict[str, Floats]:
    """Return key -> (problems,), the probability of each problem to be of it."""
    found = {key: np.zeros(stages[-1].end) for stage in spec.stages for key in stage.weights}
    for index in range(stages[-1].end):
        for (_, key), share in shares(spec, stages, index).items():
            found[key][index] += share
    return found


def facts(spec: StreamSpec) -> str:
    """Return what methods are informed of, in a line."""
    parts = [
        "boundaries announced" if spec.announced else "boundaries unannounced",
        "task ids visible" if spec.task_visible else "task ids hidden",
        "answer format stated in every problem" if spec.format_given else "answer format not stated",
    ]
    if any(stage.difficulty.get("format_given") for stage in spec.stages):
        parts[-1] = "answer format stated in some stages"
    return ", ".join(parts)


def notes(spec: StreamSpec, stage: Stage) -> list[str]:
    """Return what is particular to a stage, each in a phrase."""
    own = spec.stages[(stage.number - 1) % len(spec.stages)]
    found = [" + ".join(f"{weight:g} {key}" for key, weight in own.mixture.items())] if own.mixture else []
    found += [f"{parameter} {value}" for parameter, value in own.difficulty.items()]
    for parameter, ends in own.drift.items():
        first, last = ("the preset's" if end is None else f"{end:g}" for end in ends)
        found.append(f"{parameter} {first} to {last}")
    return found + ([f"the last {stage.blend} blend into stage {stage.number + 1}"] if stage.blend else [])


def drawing(spec: StreamSpec, seed: int = 0) -> str:
    """Return a row of blocks for each key over the problems, as high as its share, then the stages, a line each."""
    stages = schedule(spec, seed)
    total, drawn = stages[-1].end, curves(spec, stages)
    wide = max(map(len, [*drawn, "stage"]))
    cuts = [round(total * column / COLUMNS) for column in range(COLUMNS + 1)]
    lines = [f"{spec.name}@{spec.version}: {spec.description}", facts(spec), ""]
    for key, curve in drawn.items():
        # a share, however small, is seen
        heights = [curve[a:b].mean() if b > a else 0.0 for a, b in pairwise(cuts)]
        lines.append(f"{key:<{wide}} |{''.join(BLOCKS[0 if h == 0 else max(1, round(8 * h))] for h in heights)}|")
    ruler = [" "] * COLUMNS
    for stage in stages:
        for at, sign in enumerate(str(stage.number), COLUMNS * stage.start // total):
            ruler[at : at + 1] = sign if at < COLUMNS else ""
    lines += [f"{'stage':<{wide}} |{''.join(ruler)}|", f"{'':<{wide}}  0{f'{total:,} problems':>{COLUMNS - 1}}", ""]
    for stage in stages:
        more = "; ".join(["", *notes(spec, stage)])
        lines.append(
            f"stage {stage.number:<2} {label(stage.tasks):<{wide}} {stage.end - stage.start:>6,} problems "
            f"from {stage.start:,}{more}"
        )
    if spec.jitter:
        lines.append(
            f"lengths are those of seed {seed}; "
            f"other seeds have up to {spec.jitter} problems more or less in each stage"
        )
    lines += [
        f"{name}: {variant.task} with {', '.join(f'{k} {v}' for k, v in variant.difficulty.items())}"
        for name, variant in spec.variants.items()
    ]
    return "\n".join(lines)


@matplotlib.rc_context(STYLE)
def mixture(spec: StreamSpec, seed: int = 0) -> Figure:
    """Draw the share of each key over the problems, stacked; stages are numbered, their particulars below."""
    stages = schedule(spec, seed)
    drawn = curves(spec, stages)
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    colours = [colour for _, colour, _ in styled(list(drawn))]
    edges = np.arange(stages[-1].end)
    patches = axes.stackplot(edges, list(drawn.values()), labels=list(drawn), colors=colours, alpha=0.75, linewidth=0)
    for patch, hatch in zip(patches, ["", "//", "..", "xx", "\\\\", "++", "oo"] * len(patches), strict=False):
        patch.set(hatch=hatch, edgecolor="white")
    for stage in stages:
        if stage.start:
            width, line = (1.6, "-") if spec.announced else (0.9, (0, (3, 3)))
            axes.axvline(stage.start, color="#222222", linewidth=width, linestyle=line)
        middle = (stage.start + stage.end) / 2
        axes.text(middle, 1.03, str(stage.number), ha="center", va="bottom")
        own = spec.stages[(stage.number - 1) % len(spec.stages)]
        particular = notes(spec, stage)[1 if own.mixture else 0 :]
        if particular:
            style = {"boxstyle": "round,pad=0.25", "facecolor": "white", "alpha": 0.85, "linewidth": 0}
            axes.text(middle, 0.06, "\n".join(particular), ha="center", va="bottom", fontsize=8, bbox=style)
    axes.set_xlim(0, stages[-1].end - 1)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.set_xlabel(f"problem (stage lengths of seed {seed})" if spec.jitter else "problem")
    axes.set_ylabel("share")
    axes.set_title(f"{spec.name}@{spec.version}: {facts(spec)}", pad=18)
    figure.legend(loc="outside lower left", ncols=legend_columns(list(drawn)), frameon=False)
    return figure


def write_picture(spec: StreamSpec, out: Path) -> Path:
    """Write NAME.png into a folder, which is made where it does not exist; return its path."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{spec.name}.png"
    mixture(spec).savefig(path, dpi=150, metadata={"Software": None})
    return path
