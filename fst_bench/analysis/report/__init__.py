"""The page of one run: `write_report(run_dir)` turns a run directory into one `report.html`.

The page opens offline (figures are inline SVG, nothing is fetched), has the same bytes for the same inputs, and exists
at any time of a run: what is not recorded yet is left out, and the page says so. Every text of a model is shown as
text, never as markup. Only the raw records are read; no number is made here beyond means over what is shown and the
intervals around it.
"""

import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from fst_bench.analysis.report import figures
from fst_bench.analysis.report.prompts import cycles
from fst_bench.analysis.report.tables import number, tables
from fst_bench.harness.rows import label
from fst_bench.harness.run import Run, sound
from fst_bench.harness.store import Store
from fst_bench.metrics.intervals import wilson

__all__ = ["write_report"]


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a finished or unfinished run directory; return its path.

    Raises ValueError where the directory has no config.json, nothing else has to exist, or where a finished run is not
    sound.
    """
    path = Path(run_dir) / "report.html"
    scratch = path.with_suffix(".tmp")
    scratch.write_bytes(render(sound(Run(Store(Path(run_dir))))).encode("utf-8", errors="replace"))
    os.replace(scratch, path)
    return path


def environment(package: str) -> jinja2.Environment:
    """Return the templates of a package's folder, with what all pages share.

    That is `style`, the style sheet, and the macros of parts.html.jinja.
    """
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader([str(resources.files(package)), str(resources.files(__name__))]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals["style"] = Markup(resources.files(__name__).joinpath("style.css").read_text("utf-8"))
    env.filters |= {"number": number, "tables": tables}
    return env


def render(run: Run) -> str:
    """Return the page's HTML."""
    saved = run.saved
    rows = summary(run)
    calls = sum(row.reflections for row in run.populations)
    failures = sum(row.reflection_failures for row in run.populations)
    names = {stage.stage: label(stage.tasks) for stage in run.stages}
    page = environment(__package__).get_template("page.html.jinja")
    return page.render(
        title=[
            f"{saved['stream']}@{saved['stream_version']}",
            saved["method"],
            saved["preset"],
            f"seed {saved['seed']}",
            saved["model"],
        ],
        env=so_far(run, "env"),
        ledger=so_far(run, "ledger"),
        metrics=so_far(run, "metrics"),
        summary=rows,
        mean=mean_row(rows),
        stages_done=sum(row["end"] is not None for row in rows),
        reflections_failed=calls if failures and failures >= calls else 0,
        figures=plots(run),
        seed_prompt=saved.get("seed_prompt"),
        cycles=cycles(run.populations, saved.get("seed_prompt"), names),
        config_json=json.dumps(saved, indent=2, ensure_ascii=False),
    )


def so_far(run: Run, name: str) -> dict[str, Any]:
    """Return a JSON file of a run, or nothing where it is not written yet."""
    try:
        return run.source.read(name)
    except ValueError:
        return {}


# --- the summary table


def summary(run: Run) -> list[dict[str, Any]]:
    """Return a row a stage: what it trains at the base, at the stage's end and last, under the own and the seed prompt.

    None where nothing is evaluated yet.
    """
    rows = []
    for stage in run.stages:
        own = of_tasks(run.evals, stage.tasks)
        system, seed = own[own["prompt_mode"] == "system"], own[own["prompt_mode"] == "seed"]
        rows.append(
            {
                "stage": stage.stage,
                "task": label(stage.tasks),
                "base": last_row(system[system["step"] == 0]),
                "end": last_row(system[system["boundary"] & (system["stage"] == stage.stage)]),
                "final": last_row(system),
                "seed": last_row(seed),
            }
        )
    return rows


def of_tasks(evals: pd.DataFrame, tasks: tuple[str, ...]) -> pd.DataFrame:
    """Return the evaluation rows of a task; of several, for each evaluation the means over them."""
    if len(tasks) == 1:
        return evals[evals["task"] == tasks[0]]
    points = ["step", "stage", "boundary", "prompt_mode", "problems"]
    means = {"accuracy": "mean", "n_problems": "sum", "kl": "mean"}
    return evals[evals["task"].isin(tasks)].groupby(points, sort=False).agg(means).reset_index()


def last_row(rows: pd.DataFrame) -> dict[str, Any] | None:
    """Return the latest of some evaluation rows, with its interval (low, high)."""
    if rows.empty:
        return None
    row = rows.iloc[-1]
    low, high = wilson(row["accuracy"], row["n_problems"])
    return {
        "accuracy": float(row["accuracy"]),
        "low": float(low),
        "high": float(high),
        "n": int(row["n_problems"]),
        "kl": None if pd.isna(row["kl"]) else float(row["kl"]),
    }


def mean_row(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Return means over the stages of the table's columns; None where a stage has no number."""

    def mean(column: str, field: str) -> float | None:
        values = [row[column] and row[column][field] for row in rows]
        return None if None in values or not values else sum(values) / len(values)

    return {column: mean(column, "accuracy") for column in ("base", "end", "final", "seed")} | {"kl": mean("end", "kl")}


# --- the figures with their captions


def plots(run: Run) -> dict[str, dict[str, Any]]:
    """Return SVG and caption of each figure that has something to show, by name."""
    evals, stages = run.evals, run.stages
    steps = run.steps.dropna(subset=["reward"]).astype({"reward": float})
    tasks = list(dict.fromkeys([*(task for stage in stages for task in stage.tasks), *evals["task"]]))
    own = evals[evals["prompt_mode"] == "system"]
    temperature = run.saved["config"].get("evaluation", {}).get("temperature", 1.0)
    found: dict[str, dict[str, Any]] = {}

    def add(name: str, figure: Figure, words: str, caption: str) -> None:
        found[name] = {"svg": Markup(figures.to_svg(figure, name, words)), "caption": caption}

    if len(evals):
        mixed = ", grey where several are mixed" if any(len(stage.tasks) > 1 for stage in stages) else ""
        add(
            "continual",
            figures.continual(evals, stages, tasks),
            f"Line chart of accuracy over problems seen. {latest(evals)}",
            "Accuracy on held-out problems of every task over the problems seen; "
            f"{sampling(evals, temperature)}; large markers are the base and the ends of stages, bands are 95 % Wilson "
            "intervals over problems, and the background is tinted with the colour of the task being trained"
            f"{mixed}.",
        )
    if len(steps):
        add(
            "reward",
            figures.reward(steps, stages, tasks),
            f"Chart of training reward over problems seen: {len(steps)} steps, last {steps['reward'].iloc[-1]:.2f}.",
            f"Mean reward of the slow loop's training rollouts: one dot for each of {len(steps)} steps, and as a line "
            f"the mean of the {figures.SMOOTHED} steps around (fewer at a stage's edges).",
        )
    own = own[own["kl"].notna()]  # where it was measured
    if len(own):
        add(
            "kl",
            figures.kl_accuracy(own, stages, tasks),
            f"Accuracy against KL to the base, one panel per task. Largest KL {own['kl'].max():.3f} nats per token.",
            "How far the model moved for what it gained: one point per evaluation under the method's own prompt, x the "
            "mean KL to the base in nats per token of its own answers, y the accuracy, joined in time order up to the "
            f"ring; {sampling(own, temperature)}; filled points are evaluations in the task's own stage, no intervals "
            "drawn.",
        )
    return found


def sampling(evals: pd.DataFrame, temperature: float) -> str:
    """Return how points were sampled.

    '64 problems a point (192 before learning and at stage ends), one answer each at T = 1'
    """

    def several(values: pd.Series) -> str:
        return " or ".join(f"{value:,}" for value in sorted({int(value) for value in values}))

    usual, ends = evals[~evals["boundary"]], evals[evals["boundary"]]
    counts = several((usual if len(usual) else ends)["n_problems"]) + " problems a point"
    if len(usual) and len(ends):
        counts += f" ({several(ends['n_problems'])} before learning and at stage ends)"
    samples = several(evals["n_samples"])
    return f"{counts}, {'one answer' if samples == '1' else samples + ' answers'} each at T = {temperature:g}"


def latest(evals: pd.DataFrame) -> str:
    """Return the last accuracies in words, for readers who do not see the chart."""
    last = evals[evals["prompt_mode"] == "system"].groupby("task", sort=False)["accuracy"].last()
    return "Latest, own prompt: " + ", ".join(f"{task} {accuracy:.2f}" for task, accuracy in last.items()) + "."
