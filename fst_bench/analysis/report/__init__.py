"""The page of one run: `write_report(run_dir)` turns a run directory into one `report.html`.

The page opens offline (figures are inline SVG, nothing is fetched), has the same bytes for the same inputs, and exists at any time of a run:
whatever is not recorded yet is left out and said to be missing. Every text of a model is shown as text, never as markup.
Only the raw records are read; no number is made here beyond means over what is shown and the intervals around it.
"""

import json
import os
from dataclasses import dataclass
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
from fst_bench.harness.store import records
from fst_bench.metrics.transfer import trained

__all__ = ["write_report"]

EVAL_COLUMNS = [
    "step",
    "stage",
    "boundary",
    "task",
    "prompt_mode",
    "problems",
    "accuracy",
    "n_problems",
    "n_samples",
    "kl",
]
STEP_COLUMNS = ["step", "stage", "problems", "reward"]


@dataclass(frozen=True)
class Run:
    """What a run directory holds, as far as it has got."""

    config: dict[str, Any]
    env: dict[str, str]
    evals: pd.DataFrame
    steps: pd.DataFrame
    population: list[dict[str, Any]]
    ledger: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def stages(self) -> pd.DataFrame:
        return pd.DataFrame(self.config["stages"], columns=["stage", "task", "start", "end"])


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a finished or unfinished run directory; returns its path. Only config.json has to be there."""
    path = Path(run_dir) / "report.html"
    scratch = path.with_suffix(".tmp")
    scratch.write_bytes(render(load(Path(run_dir))).encode("utf-8", errors="replace"))
    os.replace(scratch, path)
    return path


def load(run_dir: Path) -> Run:
    """Read the records of a run; a file that is not there yet reads as empty."""
    evals = pd.DataFrame(records(run_dir / "evals.jsonl"), columns=EVAL_COLUMNS)
    numbers = ["step", "stage", "problems", "accuracy", "n_problems", "n_samples", "kl"]
    evals[numbers] = evals[numbers].apply(pd.to_numeric)
    evals["boundary"] = evals["boundary"].astype(bool)
    events = records(run_dir / "events.jsonl")
    steps = pd.DataFrame([event for event in events if event["kind"] == "step"], columns=STEP_COLUMNS).apply(
        pd.to_numeric
    )
    return Run(
        config=json.loads((run_dir / "config.json").read_text("utf-8")),
        env=read_object(run_dir / "env.json"),
        evals=evals.sort_values(["problems", "step", "boundary"], kind="stable", ignore_index=True),
        steps=steps.sort_values("step", kind="stable", ignore_index=True),
        population=records(run_dir / "prompts.jsonl"),
        ledger=read_object(run_dir / "ledger.json"),
        metrics=read_object(run_dir / "metrics.json"),
    )


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object, or {} where the file is missing."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def environment(package: str) -> jinja2.Environment:
    """Templates of a package's folder; `style` is the style sheet and parts.html.jinja the macros that all pages share."""
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
    """The page's HTML."""
    config = run.config
    env = environment(__package__)
    rows = summary(run)
    reflections = [(cycle.get("reflections") or 0, cycle.get("reflection_failures") or 0) for cycle in run.population]
    calls, failures = sum(calls for calls, _ in reflections), sum(failed for _, failed in reflections)
    return env.get_template("page.html.jinja").render(
        title=[
            f"{config['stream']}@{config['stream_version']}",
            config["method"],
            config["preset"],
            f"seed {config['seed']}",
            config["model"],
        ],
        run=run,
        summary=rows,
        mean=mean_row(rows),
        stages_done=sum(row["end"] is not None for row in rows),
        reflections_failed=calls if failures and failures >= calls else 0,
        figures=plots(run),
        seed_prompt=config.get("seed_prompt"),
        cycles=cycles(
            run.population, config.get("seed_prompt"), dict(zip(run.stages["stage"], run.stages["task"], strict=True))
        ),
        config_json=json.dumps(config, indent=2, ensure_ascii=False),
    )


# --- the summary table


def summary(run: Run) -> list[dict[str, Any]]:
    """Per stage, the eval rows of what it trains: at the base, at the stage's end, and last (own prompt and seed prompt); None where not evaluated yet."""
    evals = run.evals
    rows = []
    for stage in run.config["stages"]:
        own = of_stage(evals, stage["task"])
        system, seed = own[own["prompt_mode"] == "system"], own[own["prompt_mode"] == "seed"]
        end = system[system["boundary"] & (system["stage"] == stage["stage"])]
        rows.append(
            {
                "stage": stage["stage"],
                "task": stage["task"],
                "base": last_row(system[system["step"] == 0]),
                "end": last_row(end),
                "final": last_row(system),
                "seed": last_row(seed),
            }
        )
    return rows


def of_stage(evals: pd.DataFrame, task: str) -> pd.DataFrame:
    """The eval rows of what a stage trains; of a mixture, for each evaluation the means over its tasks."""
    if len(mine := trained(task)) == 1:
        return evals[evals["task"] == task]
    points = evals[evals["task"].isin(mine)].groupby(
        ["step", "stage", "boundary", "prompt_mode", "problems"], sort=False
    )
    return points.agg({"accuracy": "mean", "n_problems": "sum", "kl": "mean"}).reset_index()


def last_row(rows: pd.DataFrame) -> dict[str, Any] | None:
    """The latest of some eval rows, with its interval (low, high)."""
    if rows.empty:
        return None
    row = rows.iloc[-1]
    low, high = figures.wilson(row["accuracy"], row["n_problems"])
    kl = None if pd.isna(row["kl"]) else float(row["kl"])
    return {
        "accuracy": float(row["accuracy"]),
        "low": float(low),
        "high": float(high),
        "n": int(row["n_problems"]),
        "kl": kl,
    }


def mean_row(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Means over the stages of the table's columns; None where a stage has no number."""

    def mean(column: str, field: str) -> float | None:
        values = [row[column] and row[column][field] for row in rows]
        return None if None in values or not values else sum(values) / len(values)

    return {column: mean(column, "accuracy") for column in ("base", "end", "final", "seed")} | {"kl": mean("end", "kl")}


# --- the figures with their captions


def plots(run: Run) -> dict[str, dict[str, Any]]:
    """SVG and caption of each figure that has something to show, by name."""
    evals, steps, stages = run.evals, run.steps.dropna(subset=["reward"]), run.stages
    tasks = list(dict.fromkeys([*(task for stage in stages["task"] for task in trained(stage)), *evals["task"]]))
    kl = evals[(evals["prompt_mode"] == "system") & evals["kl"].notna()]
    heat = run.config.get("config", {}).get("evaluation", {}).get("temperature", 1.0)
    found: dict[str, dict[str, Any]] = {}

    def add(name: str, figure: Figure, label: str, caption: str) -> None:
        found[name] = {"svg": Markup(figures.to_svg(figure, name, label)), "caption": caption}

    if len(evals):
        add(
            "continual",
            figures.continual(evals, stages, tasks),
            f"Line chart of accuracy over problems seen. {latest(evals)}",
            f"Accuracy on held-out problems of every task over the problems seen; {sampling(evals, heat)}; large markers are the base and the "
            "ends of stages, bands are 95 % Wilson intervals over problems, and the background is tinted with the colour of the task being trained"
            f"{', grey where several are mixed' if any(len(trained(stage)) > 1 for stage in stages['task']) else ''}.",
        )
    if len(steps):
        add(
            "reward",
            figures.reward(steps, stages, tasks),
            f"Chart of training reward over problems seen: {len(steps)} steps, last {steps['reward'].iloc[-1]:.2f}.",
            f"Mean reward of the slow loop's training rollouts: one dot for each of {len(steps)} steps, and as a line the mean of "
            f"the {figures.SMOOTHED} steps around (fewer at a stage's edges).",
        )
    if len(kl):
        add(
            "kl",
            figures.kl_accuracy(kl, stages, tasks),
            f"Accuracy against KL to the base, one panel per task. Largest KL {kl['kl'].max():.3f} nats per token.",
            "How far the model moved for what it gained: one point per evaluation under the method's own prompt, x the mean KL to the base "
            f"in nats per token of its own answers, y the accuracy, joined in time order up to the ring; {sampling(kl, heat)}; filled points are "
            "evaluations in the task's own stage, no intervals drawn.",
        )
    return found


def sampling(evals: pd.DataFrame, heat: float) -> str:
    """How the points were sampled: '64 problems a point (192 before learning and at stage ends), one answer each at T = 1'."""

    def several(values: pd.Series) -> str:
        return " or ".join(f"{value:,}" for value in sorted({int(value) for value in values}))

    usual, ends = evals[~evals["boundary"]], evals[evals["boundary"]]
    counts = several((usual if len(usual) else ends)["n_problems"]) + " problems a point"
    if len(usual) and len(ends):
        counts += f" ({several(ends['n_problems'])} before learning and at stage ends)"
    samples = several(evals["n_samples"])
    return f"{counts}, {'one answer' if samples == '1' else samples + ' answers'} each at T = {heat:g}"


def latest(evals: pd.DataFrame) -> str:
    """The last accuracies in words, for readers who don't see the chart."""
    last = evals[evals["prompt_mode"] == "system"].groupby("task", sort=False)["accuracy"].last()
    return "Latest, own prompt: " + ", ".join(f"{task} {accuracy:.2f}" for task, accuracy in last.items()) + "."
