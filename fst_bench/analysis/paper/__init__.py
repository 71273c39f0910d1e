"""The paper in miniature (arXiv 2605.12484): its experiments on an embedded model, each claim beside our number, and a verdict.

`experiments` runs what is owed and can be stopped at any time; `write_page` reads what the runs recorded. A claim is reproduced
where our interval, over seeds and paired by seed, lies on the paper's side of the line that the claim names.
"""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fst_bench.analysis import figures as draw
from fst_bench.analysis import load
from fst_bench.analysis.curves import Curve, asymptotes, curve_of, matched_kl, peak_ratios, seed_rows
from fst_bench.analysis.page import save
from fst_bench.analysis.report import environment
from fst_bench.analysis.runs import Runs
from fst_bench.analysis.tables import interval
from fst_bench.harness.store import write_atomic
from fst_bench.harness.sweep import SweepCallback, sweep
from fst_bench.metrics import Estimate, asymptote_difference
from fst_bench.metrics.intervals import expanded

TASKS = ("codeio", "math", "hover")
"""The paper's three; physics and star-graph are studied apart."""
ALL = (*TASKS, "physics", "star-graph")
METHODS = ("gepa", "rl", "fst")
SETTINGS = {"threads": 1, "evaluation.interval": 40}
"""Of the single-task streams: finer evaluations, for the curves that are fitted."""
PROBES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "channels": (TASKS, ("fst",)),
    "ood": (TASKS, ("rl", "fst")),
    "plasticity": (("math", "physics"), ("rl", "fst")),
}
"""Probe -> (tasks of the single-task streams, methods) it is made of."""
DISTILLED = "hover"
"""The task of fst-distill, as in the paper."""
FRESH = "hover"
"""The task of the plasticity passes."""
MARGIN = 0.05
"""How much lower 'as well as' may be."""


def experiments(
    out: Path, seeds: list[int], preset: str, jobs: int | None, watcher: SweepCallback, tell: Callable[[str], None]
) -> list[str]:
    """Run what is owed below `out`; returns what failed."""
    failed = []
    streams = [f"single-{task}" for task in ALL]
    for stream, settings in [*((name, SETTINGS) for name in streams), ("paper-3", {"threads": 1})]:
        done = sweep(stream, METHODS, seeds, out, preset, settings, jobs, watcher)
        failed += [f"{path}: {why}" for path, why in done.items() if why]
    done = sweep(f"single-{DISTILLED}", ["fst-distill"], seeds, out, preset, SETTINGS, jobs, watcher)
    failed += [f"{path}: {why}" for path, why in done.items() if why]

    def one(command: list[str]) -> str | None:
        done = subprocess.run(
            [sys.executable, "-m", "fst_bench", "probe", *command], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
        )  # fmt: skip
        tell(f"probe  {' '.join(command)}")
        return (
            None
            if done.returncode == 0
            else f"{' '.join(command)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}"
        )

    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        failed += [why for why in pool.map(one, probes_of(out, seeds)) if why]
    return failed


def probes_of(out: Path, seeds: list[int]) -> Iterator[list[str]]:
    for kind, (tasks, methods) in PROBES.items():
        for task in tasks:
            for run in runs_of(out, f"single-{task}"):
                if run.method in methods and run.seed in seeds:
                    yield [kind, str(run.path), *(["--task", FRESH] if kind == "plasticity" else [])]
    for run in runs_of(out, "paper-3"):
        if run.method in ("rl", "fst") and run.seed in seeds:
            yield ["forgetting", str(run.path)]


def runs_of(out: Path, stream: str, methods: Sequence[str] = METHODS) -> Runs:
    """The finished runs of some methods on a stream, at its newest version there."""
    versions = sorted(out.glob(f"{stream}@*"), key=lambda p: int(p.name.rpartition("@")[2]))
    if not versions:
        raise ValueError(f"no runs of {stream} in {out}: fst-bench paper --out {out} makes them")
    return tuple(run for run in load([versions[-1]]) if run.method in methods)


# --- the claims

Verdict = Literal["reproduced", "not reproduced", "not testable"]


@dataclass(frozen=True)
class Claim:
    """One row of the page; `paper` and `ours` are numbers written out."""

    topic: str
    text: str
    paper: str
    ours: str
    verdict: Verdict
    note: str = ""


def judged(topic: str, text: str, paper: str, e: Estimate, ours: str, above: float = 0.0, note: str = "") -> Claim:
    """Reproduced where the whole interval is above a line; without an interval nothing can be said."""
    if math.isnan(e.low):
        return Claim(topic, text, paper, ours, "not testable", note or "one seed has no interval")
    if e.low > above:
        return Claim(topic, text, paper, ours, "reproduced", note)
    against = "our interval lies on the other side" if e.high < above else "unclear: the line is inside our interval"
    return Claim(topic, text, paper, ours, "not reproduced", f"{against}; {note}" if note else against)


def over_seeds(values: list[float]) -> Estimate:
    mean, half = interval(values)
    return Estimate(mean, mean - half, mean + half)


def percent(e: Estimate, sign: str = "+") -> str:
    if math.isnan(e.low):
        return f"{100 * e.value:{sign}.1f}"
    return f"{100 * e.value:{sign}.1f} ({100 * e.low:{sign}.1f} to {100 * e.high:{sign}.1f})"


def ends(runs: Runs, method: str) -> dict[int, float]:
    """Seed -> accuracy at the end of a single-task stream, under the method's own prompt."""
    return {run.seed: run.metrics["stages"][0]["end"]["system"] for run in runs if run.method == method}


def paired(a: dict[int, float], b: dict[int, float]) -> Estimate:
    return over_seeds([a[seed] - b[seed] for seed in sorted(set(a) & set(b))])


def mean_of(parts: list[dict[int, float]]) -> dict[int, float]:
    """Seed -> mean over parts, of the seeds that all have."""
    shared = set.intersection(*map(set, parts))
    return {seed: sum(part[seed] for part in parts) / len(parts) for seed in shared}


def claims(single: dict[str, Runs], continual: Runs, distilled: Runs) -> list[Claim]:
    """Every claim of the paper, in its order."""
    return [
        *asymptote_claims(single), *efficiency_claims(single), *level_claims(single), *drift_claims(single), *channel_claims(single),
        *ood_claims(single), *plasticity_claims(single), *continual_claims(continual), *star_claims(single["star-graph"]),
        *distill_claims(distilled, single[DISTILLED]),
    ]  # fmt: skip


def asymptote_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    for task, paper in (("codeio", "47.4 against 43.0"), ("math", "49.2 against 46.4"), ("hover", "25.0 against 17.3")):
        found = asymptotes(single[task])
        fst, rl = found["fst"], found["rl"]
        text = f"{task}: FST's fitted asymptote is above RL's"
        if fst is None or rl is None:
            yield Claim("Asymptote", text, paper, "–", "not testable", "too few evaluations for a fit")
            continue
        e = asymptote_difference(fst, rl, len(curve_of(single[task], "fst", task).seeds))
        ours = f"{100 * fst.A:.1f} against {100 * rl.A:.1f}; difference {percent(e)}"
        if not (fst.identifiable and rl.identifiable):
            unsure = " and ".join(name for name, fit in (("FST", fst), ("RL", rl)) if not fit.identifiable)
            yield Claim("Asymptote", text, paper, ours, "not testable", f"not identifiable from these curves: {unsure}")
        else:
            yield judged("Asymptote", text, paper, e, ours)


def efficiency_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    for task, paper in (("codeio", "3.0 x"), ("math", "1.4 x"), ("hover", "3.0 x")):
        ratio = peak_ratios(single[task], "rl")["fst"]
        text = f"{task}: FST needs fewer samples to reach RL's running peak"
        problems, rollouts = ratio[0], ratio[1]
        if problems is None or rollouts is None:
            yield Claim("Samples", text, paper, "–", "not testable", "nothing was learned")
        elif problems.censored:
            yield Claim(
                "Samples", text, paper, f"less than {problems.value:.1f} x: FST never gets there", "not reproduced"
            )
        else:
            ours = f"{problems.value:.1f} x ({problems.low:.1f} to {problems.high:.1f}) in problems, {rollouts.value:.1f} x in all rollouts"
            yield judged("Samples", text, paper, Estimate(problems.value, problems.low, problems.high), ours, above=1.0)


def level_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    for task, paper in (("codeio", "34.5 against 43.0"), ("math", "20.3 against 46.4"), ("hover", "10.6 against 17.3")):
        rl, gepa = ends(single[task], "rl"), ends(single[task], "gepa")
        e = paired(rl, gepa)
        ours = f"{100 * np.mean(list(gepa.values())):.1f} against {100 * np.mean(list(rl.values())):.1f}; RL ahead by {percent(e)}"
        yield judged("Prompts alone", f"{task}: GEPA alone stays below RL", paper, e, ours)
    means = {method: mean_of([ends(single[task], method) for task in TASKS]) for method in METHODS}
    shown = ", ".join(f"{m} {100 * np.mean(list(means[m].values())):.1f}" for m in ("fst", "rl", "gepa"))
    for above, below in (("fst", "rl"), ("rl", "gepa")):
        e = paired(means[above], means[below])
        yield judged(
            "Average of three",
            f"{above} above {below}",
            "fst 37.5, rl 34.7, gepa 21.8",
            e,
            f"{shown}; difference {percent(e)}",
        )


def drift_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    for task in ("physics", *TASKS):
        rl, fst = seed_rows(curve_of(single[task], "rl", task), curve_of(single[task], "fst", task))
        e = matched_kl(fst, rl)
        paper = "about 0.03 against 0.08 (plot)" if task == "physics" else "up to 70 % lower"
        yield judged(
            "Drift", f"{task}: FST has less KL to the base at matched accuracy", paper, e, f"{percent(e)} % lower"
        )


def channel_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    paper = {"codeio": "19.4 34.5 / 25.1 43.3", "math": "20.0 20.3 / 47.2 48.4", "hover": "2.0 10.6 / 11.6 21.2"}
    for task in TASKS:
        cells: dict[tuple[str, str], dict[int, float]] = {}
        for run in single[task]:
            rows = run.probe("channels")
            if run.method == "fst" and len(rows):
                for row in rows.itertuples():
                    cells.setdefault((row.weights, row.prompt), {})[run.seed] = row.accuracy
        text = "FST's prompt helps the base's weights; trained weights are better under the original prompt too; both together are best"
        if len(cells) < 4:
            yield Claim("Channels", f"{task}: {text}", paper[task], "–", "not testable", "not probed")
            continue
        seed, evolved, slow, both = (
            cells[key] for key in (("base", "seed"), ("base", "evolved"), ("trained", "seed"), ("trained", "evolved"))
        )
        parts = {"prompt on base weights": paired(evolved, seed), "weights under the seed prompt": paired(slow, seed)}
        parts |= {"both above the prompt": paired(both, evolved), "both above the weights": paired(both, slow)}
        ours = " ".join(f"{100 * np.mean(list(c.values())):.1f}" for c in (seed, evolved)) + " / " + " ".join(
            f"{100 * np.mean(list(c.values())):.1f}" for c in (slow, both)
        )  # fmt: skip
        missed = [f"{name} {percent(e)}" for name, e in parts.items() if not e.low > 0]
        yield Claim(
            "Channels",
            f"{task}: {text}",
            paper[task],
            ours,
            "not reproduced" if missed else "reproduced",
            "not clear: " + ", ".join(missed) if missed else "",
        )


def ood_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    paper = {"codeio": "41.0 51.1 49.7", "math": "26.9 36.2 36.5", "hover": "47.5 48.4 48.5"}
    for task in TASKS:
        means: dict[tuple[str, str], dict[int, float]] = {}
        for run in single[task]:
            rows = run.probe("ood")
            if len(rows.columns) > 2:
                for weights, some in rows[rows.task.isin(ALL)].groupby(
                    "weights"
                ):  # the probe asks every task there is, later ones too
                    means.setdefault((run.method, str(weights)), {})[run.seed] = float(some["accuracy"].mean())
        text = f"from {task}: on other tasks, without a prompt, FST's weights do as well as RL's (within {100 * MARGIN:.0f} points)"
        if ("fst", "trained") not in means or ("rl", "trained") not in means:
            yield Claim("Out of domain", text, f"base, RL, FST {paper[task]}", "–", "not testable", "not probed")
            continue
        fst, rl, base = means["fst", "trained"], means["rl", "trained"], means["rl", "base"]
        e = paired(fst, rl)
        shown = " ".join(f"{100 * np.mean(list(values.values())):.1f}" for values in (base, rl, fst))
        note = "the base earns next to nothing there without a prompt" if np.mean(list(base.values())) < MARGIN else ""
        yield judged(
            "Out of domain",
            text,
            f"base, RL, FST {paper[task]}",
            e,
            f"{shown}; FST minus RL {percent(e)}",
            above=-MARGIN,
            note=note,
        )


def plasticity_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    paper = {"math": "base 20.2, RL 0.0, FST 16.7", "physics": "base 18.3, RL 19.9, FST 24.2"}
    started: dict[str, dict[str, dict[int, float]]] = {}
    for task in paper:
        for run in single[task]:
            for row in run.probe("plasticity").itertuples():
                if hasattr(row, "final"):
                    name = run.method if row.stage else "base"
                    started.setdefault(task, {}).setdefault(name, {})[run.seed] = row.final
    for task, numbers in paper.items():
        text = f"a fresh RL pass on {FRESH} gets higher from FST's {task} weights than from RL's"
        starts = started.get(task, {})
        if not {"rl", "fst", "base"} <= set(starts):
            yield Claim("Plasticity", text, numbers, "–", "not testable", "not probed")
            continue
        e = paired(starts["fst"], starts["rl"])
        shown = ", ".join(f"{name} {100 * np.mean(list(starts[name].values())):.1f}" for name in ("base", "rl", "fst"))
        yield judged("Plasticity", text, numbers, e, f"{shown}; FST minus RL {percent(e)}")


def continual_claims(runs: Runs) -> Iterator[Claim]:
    def within(method: str, task: str) -> dict[int, float]:
        return {
            run.seed: next(s["within"] for s in run.metrics["stages"] if s["task"] == task)
            for run in runs
            if run.method == method
        }

    papers = {"codeio": "37.7 against 20.7 (RL stalls)", "physics": "FST ahead (plot)"}
    for task, paper in papers.items():
        fst, rl = within("fst", task), within("rl", task)
        e = paired(fst, rl)
        ours = f"mean within the stage {100 * np.mean(list(fst.values())):.1f} against {100 * np.mean(list(rl.values())):.1f}; difference {percent(e)}"
        yield judged(
            "Continual", f"HoVer -> CodeIO -> Physics in one run: FST is ahead of RL on {task}", paper, e, ours
        )


def star_claims(runs: Runs) -> Iterator[Claim]:
    rl, fst = seed_rows(curve_of(runs, "rl", "star-graph"), curve_of(runs, "fst", "star-graph"))
    dice = np.random.default_rng(0)
    n = len(rl.seeds)

    def first(curve: Curve, rows: list[int]) -> float:
        return (
            float(curve.problems[np.argmax(curve.accuracy[rows].mean(0) >= 0.5)])
            if (curve.accuracy[rows].mean(0) >= 0.5).any()
            else math.inf
        )

    whole = list(range(n))
    text, paper = "star-graph: FST leaves the floor earlier than RL", "steps 50 against 250"
    at = first(fst, whole), first(rl, whole)
    if math.inf in at:
        who = " and ".join(name for name, x in zip(("FST", "RL"), at, strict=True) if math.isinf(x))
        yield Claim(
            "Star-graph", text, paper, f"{who} never at one half", "reproduced" if who == "RL" else "not reproduced"
        )
        return
    gaps = [first(rl, rows) - first(fst, rows) for rows in (dice.integers(n, size=n).tolist() for _ in range(1000))]
    e = expanded(at[1] - at[0], [gap for gap in gaps if math.isfinite(gap)], n, 0.95)
    yield judged(
        "Star-graph",
        text,
        paper,
        e,
        f"mean accuracy of one half at {at[0]:.0f} against {at[1]:.0f} problems; earlier by {e.value:.0f} ({e.low:.0f} to {e.high:.0f})",
    )


# --- the page


def distill_claims(distilled: Runs, single: Runs) -> Iterator[Claim]:
    text, paper = (
        f"{DISTILLED}: distilling the prompt's gain into the weights naively ends below FST",
        "about 32 against 48",
    )
    if not distilled:
        yield Claim("FST-distill", text, paper, "–", "not testable", f"fst-distill has not run on single-{DISTILLED}")
        return
    fst, naive = ends(single, "fst"), ends(distilled, "fst-distill")
    e = paired(fst, naive)
    ours = f"{100 * np.mean(list(naive.values())):.1f} against {100 * np.mean(list(fst.values())):.1f}; FST ahead by {percent(e)}"
    saturated = "both have hardly anything left to learn" if min(*fst.values(), *naive.values()) > 0.95 else ""
    yield judged("FST-distill", text, paper, e, ours, note=saturated)


def write_page(out: Path, page: Path) -> Path:
    """paper.html, paper.md and the figures with their data, from the runs below `out`. ValueError names what is missing."""
    single = {task: runs_of(out, f"single-{task}") for task in ALL}
    continual = runs_of(out, "paper-3")
    distilled = runs_of(out, f"single-{DISTILLED}", ["fst-distill"])
    made = claims(single, continual, distilled)
    three = {task: single[task] for task in TASKS}
    drawn = [draw.efficiency(single, "rl"), draw.fits(single), draw.drift(single), draw.continual(continual)]
    more = [
        draw.channels(three),
        draw.plasticity({t: single[t] for t in PROBES["plasticity"][0]}),
        draw.learning({"star-graph": single["star-graph"]}),
    ]
    drawn += [d for d in (*more, draw.forgetting({"paper-3": continual})) if d is not None]
    page.mkdir(parents=True, exist_ok=True)
    figures = save(drawn, page / "figures")
    runs = [run for group in (*single.values(), distilled, continual) for run in group]
    facts = {
        "model": runs[0].same["model"], "preset": runs[0].same["preset"], "runs": len(runs), "seeds": sorted({run.seed for run in runs}),
        "hours": sum(sum(run.ledger["seconds"].values()) for run in runs) / 3600,
    }  # fmt: skip
    counts = {
        verdict: sum(c.verdict == verdict for c in made) for verdict in ("reproduced", "not reproduced", "not testable")
    }
    write_atomic(page / "paper.md", markdown(made))
    path = page / "paper.html"
    write_atomic(
        path,
        environment(__package__)
        .get_template("paper.html.jinja")
        .render(claims=made, counts=counts, facts=facts, figures=figures),
    )
    return path


def markdown(made: list[Claim]) -> str:
    lines = ["| | claim | paper | ours | verdict |", "| --- | --- | --- | --- | --- |"]
    for c in made:
        lines.append(f"| {c.topic} | {c.text} | {c.paper} | {c.ours} | {c.verdict}{': ' + c.note if c.note else ''} |")
    return "\n".join(lines) + "\n"
