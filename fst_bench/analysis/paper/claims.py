"""Every claim of the paper, with our number and a verdict."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fst_bench.analysis.curves import asymptotes, curve_of, peak_ratios
from fst_bench.analysis.paper.experiments import ALL, DISTILLED, FRESH, METHODS, TASKS
from fst_bench.analysis.runs import Runs
from fst_bench.metrics import Curve, Estimate, asymptote_difference, matched_kl, t_interval
from fst_bench.metrics.intervals import expanded
from fst_bench.metrics.paired_curves import seed_rows

Verdict = Literal["reproduced", "not reproduced", "not testable"]
BySeed = dict[int, float]
"""Seed -> a number of its run."""
MARGIN = 0.05
"""The largest deficit that still counts as 'as well as'."""
HALF = 0.5
"""The accuracy at which star-graph has left the floor."""
RESAMPLES = 1000


@dataclass(frozen=True)
class Claim:
    """One row of the page."""

    topic: str
    text: str
    paper: str
    """The paper's numbers, written out."""
    ours: str
    """Our numbers, written out."""
    verdict: Verdict
    note: str = ""


def claims(single: dict[str, Runs], continual: Runs, distilled: Runs) -> list[Claim]:
    """Return every claim of the paper, in its order.

    `single` are the runs on each single-task stream, `continual` those on paper-3, `distilled` those of fst-distill.
    """
    return [
        *asymptote_claims(single),
        *efficiency_claims(single),
        *level_claims(single),
        *drift_claims(single),
        *channel_claims(single),
        *ood_claims(single),
        *plasticity_claims(single),
        *continual_claims(continual),
        *star_claims(single["star-graph"]),
        *distill_claims(distilled, single[DISTILLED]),
    ]


def judged(topic: str, text: str, paper: str, e: Estimate, ours: str, above: float = 0.0, note: str = "") -> Claim:
    """Return the claim that an estimate is above a line.

    It is reproduced where the whole interval is above, and not testable without an interval.
    """
    if math.isnan(e.low):
        return Claim(topic, text, paper, ours, "not testable", note or "one seed has no interval")
    if e.low > above:
        return Claim(topic, text, paper, ours, "reproduced", note)
    against = "our interval lies on the other side" if e.high < above else "unclear: the line is inside our interval"
    return Claim(topic, text, paper, ours, "not reproduced", f"{against}; {note}" if note else against)


# --- numbers by seed


def percent(e: Estimate, sign: str = "+") -> str:
    """Return an estimate in percent, with its interval where it has one."""
    if math.isnan(e.low):
        return f"{100 * e.value:{sign}.1f}"
    return f"{100 * e.value:{sign}.1f} ({100 * e.low:{sign}.1f} to {100 * e.high:{sign}.1f})"


def mean_percent(numbers: BySeed) -> str:
    """Return the mean over seeds in percent."""
    return f"{100 * np.mean(list(numbers.values())):.1f}"


def ends(runs: Runs, method: str) -> BySeed:
    """Return the accuracy at the end of a single-task stream, under the method's own prompt."""
    return {run.seed: run.metrics["stages"][0]["end"]["system"] for run in runs if run.method == method}


def paired(a: BySeed, b: BySeed) -> Estimate:
    """Return a - b over the seeds that both have."""
    return t_interval([a[seed] - b[seed] for seed in sorted(set(a) & set(b))])


def mean_of(parts: list[BySeed]) -> BySeed:
    """Return the means over parts, of the seeds that all have."""
    shared = set.intersection(*map(set, parts))
    return {seed: sum(part[seed] for part in parts) / len(parts) for seed in shared}


# --- the claims, topic by topic


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
        problems, rollouts, _ = peak_ratios(single[task], "rl")["fst"]
        text = f"{task}: FST needs fewer samples to reach RL's running peak"
        if problems is None or rollouts is None:
            yield Claim("Samples", text, paper, "–", "not testable", "nothing was learned")
            continue
        e = problems.estimate
        if problems.censored:
            ours = f"less than {e.value:.1f} x: FST never gets there"
            yield Claim("Samples", text, paper, ours, "not reproduced")
        else:
            ours = (
                f"{e.value:.1f} x ({e.low:.1f} to {e.high:.1f}) in problems, "
                f"{rollouts.estimate.value:.1f} x in all rollouts"
            )
            yield judged("Samples", text, paper, e, ours, above=1.0)


def level_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    for task, paper in (("codeio", "34.5 against 43.0"), ("math", "20.3 against 46.4"), ("hover", "10.6 against 17.3")):
        rl, gepa = ends(single[task], "rl"), ends(single[task], "gepa")
        e = paired(rl, gepa)
        ours = f"{mean_percent(gepa)} against {mean_percent(rl)}; RL ahead by {percent(e)}"
        yield judged("Prompts alone", f"{task}: GEPA alone stays below RL", paper, e, ours)
    means = {method: mean_of([ends(single[task], method) for task in TASKS]) for method in METHODS}
    shown = ", ".join(f"{method} {mean_percent(means[method])}" for method in ("fst", "rl", "gepa"))
    paper = "fst 37.5, rl 34.7, gepa 21.8"
    for above, below in (("fst", "rl"), ("rl", "gepa")):
        e = paired(means[above], means[below])
        ours = f"{shown}; difference {percent(e)}"
        yield judged("Average of three", f"{above} above {below}", paper, e, ours)


def drift_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    for task in ("physics", *TASKS):
        rl, fst = seed_rows(curve_of(single[task], "rl", task), curve_of(single[task], "fst", task))
        e = matched_kl(fst, rl)
        text = f"{task}: FST has less KL to the base at matched accuracy"
        paper = "about 0.03 against 0.08 (plot)" if task == "physics" else "up to 70 % lower"
        yield judged("Drift", text, paper, e, f"{percent(e)} % lower")


def channel_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    papers = {"codeio": "19.4 34.5 / 25.1 43.3", "math": "20.0 20.3 / 47.2 48.4", "hover": "2.0 10.6 / 11.6 21.2"}
    for task, paper in papers.items():
        cells: dict[tuple[str, str], BySeed] = {}
        for run in single[task]:
            if run.method == "fst":
                for row in run.probe("channels").itertuples():
                    if hasattr(row, "accuracy"):
                        cells.setdefault((row.weights, row.prompt), {})[run.seed] = row.accuracy
        text = (
            f"{task}: FST's prompt helps the base's weights; trained weights are better under the original prompt too; "
            "both together are best"
        )
        if len(cells) < 4:
            yield Claim("Channels", text, paper, "–", "not testable", "not probed")
            continue
        seed, evolved = cells["base", "seed"], cells["base", "evolved"]
        slow, both = cells["trained", "seed"], cells["trained", "evolved"]
        parts = {
            "prompt on base weights": paired(evolved, seed),
            "weights under the seed prompt": paired(slow, seed),
            "both above the prompt": paired(both, evolved),
            "both above the weights": paired(both, slow),
        }
        ours = f"{mean_percent(seed)} {mean_percent(evolved)} / {mean_percent(slow)} {mean_percent(both)}"
        missed = ", ".join(f"{name} {percent(e)}" for name, e in parts.items() if not e.low > 0)
        if missed:
            yield Claim("Channels", text, paper, ours, "not reproduced", f"not clear: {missed}")
        else:
            yield Claim("Channels", text, paper, ours, "reproduced")


def ood_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    papers = {"codeio": "41.0 51.1 49.7", "math": "26.9 36.2 36.5", "hover": "47.5 48.4 48.5"}
    for task, numbers in papers.items():
        means: dict[tuple[str, str], BySeed] = {}
        for run in single[task]:
            rows = run.probe("ood")
            if "task" in rows:
                # the probe is of every task there is, later ones too
                for weights, some in rows[rows["task"].isin(ALL)].groupby("weights"):
                    means.setdefault((run.method, str(weights)), {})[run.seed] = float(some["accuracy"].mean())
        text = (
            f"from {task}: on other tasks, without a prompt, FST's weights do as well as RL's "
            f"(within {100 * MARGIN:.0f} points)"
        )
        paper = f"base, RL, FST {numbers}"
        if ("fst", "trained") not in means or ("rl", "trained") not in means:
            yield Claim("Out of domain", text, paper, "–", "not testable", "not probed")
            continue
        fst, rl, base = means["fst", "trained"], means["rl", "trained"], means["rl", "base"]
        e = paired(fst, rl)
        ours = f"{mean_percent(base)} {mean_percent(rl)} {mean_percent(fst)}; FST minus RL {percent(e)}"
        low = np.mean(list(base.values())) < MARGIN
        note = "the base earns next to nothing there without a prompt" if low else ""
        yield judged("Out of domain", text, paper, e, ours, above=-MARGIN, note=note)


def plasticity_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    papers = {"math": "base 20.2, RL 0.0, FST 16.7", "physics": "base 18.3, RL 19.9, FST 24.2"}
    for task, paper in papers.items():
        starts: dict[str, BySeed] = {}
        for run in single[task]:
            for row in run.probe("plasticity").itertuples():
                if hasattr(row, "final"):
                    starts.setdefault(run.method if row.stage else "base", {})[run.seed] = row.final
        text = f"a fresh RL pass on {FRESH} gets higher from FST's {task} weights than from RL's"
        if not {"rl", "fst", "base"} <= set(starts):
            yield Claim("Plasticity", text, paper, "–", "not testable", "not probed")
            continue
        e = paired(starts["fst"], starts["rl"])
        shown = ", ".join(f"{name} {mean_percent(starts[name])}" for name in ("base", "rl", "fst"))
        yield judged("Plasticity", text, paper, e, f"{shown}; FST minus RL {percent(e)}")


def continual_claims(runs: Runs) -> Iterator[Claim]:
    def online(method: str, task: str) -> BySeed:
        return {
            run.seed: next(stage["online"] for stage in run.metrics["stages"] if stage["tasks"] == [task])
            for run in runs
            if run.method == method
        }

    papers = {"codeio": "37.7 against 20.7 (RL stalls)", "physics": "FST ahead (plot)"}
    for task, paper in papers.items():
        fst, rl = online("fst", task), online("rl", task)
        e = paired(fst, rl)
        text = f"HoVer -> CodeIO -> Physics in one run: FST is ahead of RL on {task}"
        ours = f"online accuracy {mean_percent(fst)} against {mean_percent(rl)}; difference {percent(e)}"
        yield judged("Continual", text, paper, e, ours)


def star_claims(runs: Runs) -> Iterator[Claim]:
    rl, fst = seed_rows(curve_of(runs, "rl", "star-graph"), curve_of(runs, "fst", "star-graph"))
    rng = np.random.default_rng(0)
    n = len(rl.seeds)
    text, paper = "star-graph: FST leaves the floor earlier than RL", "steps 50 against 250"
    sooner, later = first_at_half(fst, list(range(n))), first_at_half(rl, list(range(n)))
    if math.isinf(sooner) or math.isinf(later):
        who = " and ".join(name for name, at in (("FST", sooner), ("RL", later)) if math.isinf(at))
        verdict: Verdict = "reproduced" if who == "RL" else "not reproduced"
        yield Claim("Star-graph", text, paper, f"{who} never at one half", verdict)
        return
    resamples = [rng.integers(n, size=n).tolist() for _ in range(RESAMPLES)]
    gaps = [first_at_half(rl, rows) - first_at_half(fst, rows) for rows in resamples]
    e = expanded(later - sooner, [gap for gap in gaps if math.isfinite(gap)], n, 0.95)
    ours = (
        f"mean accuracy of one half at {sooner:.0f} against {later:.0f} problems; "
        f"earlier by {e.value:.0f} ({e.low:.0f} to {e.high:.0f})"
    )
    yield judged("Star-graph", text, paper, e, ours)


def first_at_half(curve: Curve, rows: list[int]) -> float:
    """Return the problems at which the mean over some seeds is first at one half; infinity where it never is."""
    there = np.flatnonzero(curve.accuracy[rows].mean(0) >= HALF)
    return float(curve.problems[there[0]]) if len(there) else math.inf


def distill_claims(distilled: Runs, single: Runs) -> Iterator[Claim]:
    text = f"{DISTILLED}: distilling the prompt's gain into the weights naively ends below FST"
    paper = "about 32 against 48"
    if not distilled:
        yield Claim("FST-distill", text, paper, "–", "not testable", f"fst-distill has not run on single-{DISTILLED}")
        return
    fst, naive = ends(single, "fst"), ends(distilled, "fst-distill")
    e = paired(fst, naive)
    ours = f"{mean_percent(naive)} against {mean_percent(fst)}; FST ahead by {percent(e)}"
    saturated = "both have hardly anything left to learn" if min(*fst.values(), *naive.values()) > 0.95 else ""
    yield judged("FST-distill", text, paper, e, ours, note=saturated)
