"""Finished runs of one stream in one table: means over seeds with 95 % t-intervals, differences paired by seed.

Everything is read from each run's own metrics, config and ledger. What can't be compared is refused with the reason.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from fst_bench.store import Store


@dataclass(frozen=True)
class Finished:
    """A finished run, as far as a table needs it."""

    method: str
    seed: int
    same: tuple[str, ...]
    """What has to be alike in one table."""
    metrics: dict[str, Any]
    ledger: dict[str, Any]


def load(paths: Iterable[Path]) -> list[Finished]:
    """The finished runs at or below the paths. ValueError where there is none, or where two do not belong in one table."""
    runs: list[Finished] = []
    for folder in dict.fromkeys(p.parent for path in paths for p in sorted(path.rglob("metrics.json"))):
        store = Store(folder)
        saved = store.read("config")
        same = (f"stream {saved['stream']}@{saved['stream_version']}", f"model {saved['model']}", f"preset {saved['preset']}")
        run = Finished(saved["method"], saved["seed"], same, store.read("metrics"), store.read("ledger"))
        if runs and run.same != runs[0].same:
            ours, theirs = next((a, b) for a, b in zip(run.same, runs[0].same, strict=True) if a != b)
            raise ValueError(f"{folder} does not belong in this table: {ours}, the others have {theirs}")
        if any((other.method, other.seed) == (run.method, run.seed) for other in runs):
            raise ValueError(f"{folder} is a second run of {run.method} with seed {run.seed}")
        runs.append(run)
    if not runs:
        raise ValueError(f"no finished run in {', '.join(map(str, paths))}")
    return runs


def interval(values: list[float]) -> tuple[float, float]:
    """(mean, half width of its 95 % t-interval over seeds); the half width of one value is NaN."""
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, math.nan
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, float(student.ppf(0.975, n - 1)) * deviation / math.sqrt(n)


def columns(run: Finished) -> dict[str, float]:
    """What a table shows of one run."""
    stages, ledger = run.metrics["stages"], run.ledger
    own, within = [stage["end"]["system"] for stage in stages], [stage["within"] for stage in stages]
    return (
        {f"{stage['stage']} {stage['task']}": stage["end"]["system"] for stage in stages}
        | {"stages' ends": sum(own) / len(own), "within stages": sum(within) / len(within)}
        | {f"end, {label}": run.metrics["final_average"][mode] for label, mode in MODES.items() if mode in run.metrics["final_average"]}
        | {"KL": sum(stage["kl"]["system"] for stage in stages) / len(stages)}
        | {"rollouts": float(sum(ledger["rollouts"].values())), "seconds": float(sum(ledger["seconds"].values()))}
    )


MODES = {"own prompt": "system", "weights only": "seed", "recalled": "recalled"}


def compare(runs: list[Finished], reference: str = "rl") -> str:
    """Markdown: a row a method, then the differences to `reference`, paired by seed."""
    methods = list(dict.fromkeys(run.method for run in runs))
    methods.sort(key=lambda m: ORDER.index(m) if m in ORDER else len(ORDER))
    values = {(run.method, run.seed): columns(run) for run in runs}
    names = list(columns(runs[0]))
    seeds = {m: sorted(run.seed for run in runs if run.method == m) for m in methods}
    head = ["method", "seeds", *names]
    lines = [row(head), row(["---"] * len(head))]
    for m in methods:
        lines.append(row([m, str(len(seeds[m])), *(show(name, *interval([values[m, s][name] for s in seeds[m]])) for name in names)]))
    if reference in methods and len(methods) > 1:
        lines += ["", row([f"minus {reference}", *head[1:]]), row(["---"] * len(head))]
        for m in methods:
            both = [s for s in seeds[m] if s in seeds[reference]]
            if m != reference and both:
                cells = (show(name, *interval([values[m, s][name] - values[reference, s][name] for s in both]), sign="+") for name in names)
                lines.append(row([m, str(len(both)), *cells]))
    return "\n".join(lines)


ORDER = ["base", "gepa", "rl", "fst"]


def show(name: str, mean: float, half: float, sign: str = "") -> str:
    """A mean with its interval's half width; a difference whose interval excludes zero is bold."""
    digits = 0 if name in ("rollouts", "seconds") else 3 if name == "KL" else 2
    written = f"{mean:{sign},.{digits}f}"
    if digits == 0:
        return written
    text = written if math.isnan(half) else f"{written} ± {half:.{digits}f}"
    return f"**{text}**" if sign and abs(mean) > half else text


def row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
