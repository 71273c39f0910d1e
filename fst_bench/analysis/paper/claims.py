"""Every claim of the paper, with our number and one of four verdicts.

A claim says that an estimate is above a line, and the paper's effect is how far above. Reproduced: our whole 95 %
interval is above the line. Contradicted: it is below half of the paper's effect, which an equivalence test at 2.5 %
excludes. Inconclusive: neither. Not testable: there is no interval, or the comparison is uninformative, as where the
base's accuracy is near zero. The power is the chance of `reproduced` if our effect were the paper's and the spread
over seeds what it is.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import nct
from scipy.stats import t as student

from fst_bench.analysis.curves import asymptotes, curve_of, efficiency_ratios
from fst_bench.analysis.paper.experiments import ALL, DISTILLED, FRESH, METHODS, TASKS
from fst_bench.analysis.runs import Runs
from fst_bench.analysis.tables import MARKS
from fst_bench.metrics import Estimate, ThresholdRatio, asymptote_difference, difference, matched_kl, t_interval
from fst_bench.metrics.paired_curves import ratios_at, seed_rows

Verdict = Literal["reproduced", "contradicted", "inconclusive", "not testable"]
BySeed = dict[int, float]
"""Seed -> a number of its run."""
MARGIN = 0.05
"""The largest deficit that still counts as 'as well as'."""
UNSTATED = 0.05
"""The paper's effect where it gives no figure."""
FLOOR = 0.1
"""The accuracy below which a base cannot answer a task, and at which star-graph has left zero."""


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
    power: float | None = None
    """The chance of `reproduced` if our effect were the paper's; None where it cannot be told."""


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
        *forgetting_claims(continual),
        *star_claims(single["star-graph"]),
        *distill_claims(distilled, single[DISTILLED]),
    ]


def verdict_of(e: Estimate, effect: float, line: float = 0.0) -> Verdict:
    """Return the verdict on the claim that an estimate is above a line, the paper's effect being `effect`."""
    if math.isnan(e.low):
        return "not testable"
    if e.low > line:
        return "reproduced"
    return "contradicted" if e.high < max(line, effect / 2) else "inconclusive"


def power_of(e: Estimate, seeds: int, effect: float, line: float = 0.0) -> float | None:
    """Return the power of the t-test over seeds that an effect is above the line, at the spread behind the interval."""
    if math.isnan(e.low) or seeds < 2:
        return None
    quantile = student.ppf(0.975, seeds - 1)
    error = e.half / quantile
    return 1.0 if error == 0 else float(nct.sf(quantile, seeds - 1, (effect - line) / error))


def judged(
    topic: str,
    text: str,
    paper: str,
    ours: str,
    e: Estimate,
    seeds: int,
    effect: float,
    line: float = 0.0,
    note: str = "",
) -> Claim:
    """Return the claim with its verdict and power."""
    verdict = verdict_of(e, effect, line)
    if verdict == "not testable":
        return untestable(topic, text, paper, ours, "one seed has no interval")
    return Claim(topic, text, paper, ours, verdict, note, power_of(e, seeds, effect, line))


def untestable(topic: str, text: str, paper: str, ours: str, why: str) -> Claim:
    """Return a claim that nothing can be said of, and why."""
    return Claim(topic, text, paper, ours, "not testable", why)


# --- numbers by seed


def percent(e: Estimate, sign: str = "+") -> str:
    """Return an estimate in percent, with its interval where it has one."""
    if math.isnan(e.low):
        return f"{100 * e.value:{sign}.1f}"
    return f"{100 * e.value:{sign}.1f} ({100 * e.low:{sign}.1f} to {100 * e.high:{sign}.1f})"


def mean_percent(numbers: BySeed) -> str:
    """Return the mean over seeds in percent."""
    return f"{100 * np.mean(list(numbers.values())):.1f}"


def ends(runs: Runs, method: str, task: str | None = None) -> BySeed:
    """Return the accuracy at the end of a task's stage, the first one unless named, under the method's own prompt."""
    return {
        run.seed: next(stage["end"]["system"] for stage in run.metrics["stages"] if task in (None, *stage["tasks"]))
        for run in runs
        if run.method == method
    }


def both(a: BySeed, b: BySeed) -> list[int]:
    """Return the seeds of both."""
    return sorted(set(a) & set(b))


def paired(a: BySeed, b: BySeed) -> Estimate:
    """Return a - b over the seeds that both have."""
    return t_interval([a[seed] - b[seed] for seed in both(a, b)])


def mean_of(parts: list[BySeed]) -> BySeed:
    """Return the means over parts, of the seeds that all have."""
    shared = set.intersection(*map(set, parts))
    return {seed: sum(part[seed] for part in parts) / len(parts) for seed in shared}


def times(ratio: ThresholdRatio) -> str:
    """Return a ratio as '2.3 x (1.8 to 2.9)', or '> 2.3 x' where it is a bound."""
    e = ratio.estimate
    if ratio.bound == "exactly":
        return f"{e.value:.1f} x" if math.isnan(e.low) else f"{e.value:.1f} x ({e.low:.1f} to {e.high:.1f})"
    return f"{MARKS[ratio.bound]} {e.value:.1f} x"


def logarithm(e: Estimate) -> Estimate:
    """Return the logarithm of a ratio with its interval."""
    return Estimate(*(math.log(value) for value in (e.value, e.low, e.high)))


# --- the claims, topic by topic


def asymptote_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    for task, fst_there, rl_there in (("codeio", 47.4, 43.0), ("math", 49.2, 46.4), ("hover", 25.0, 17.3)):
        found = asymptotes(single[task])
        fst, rl = found["fst"], found["rl"]
        paper = f"{fst_there} against {rl_there}"
        claim = ("Asymptote", f"{task}: FST's fitted asymptote is above RL's", paper)
        if fst is None or rl is None:
            yield untestable(*claim, "–", "too few evaluations for a fit")
            continue
        seeds = len(curve_of(single[task], "fst", task).seeds)
        e = asymptote_difference(fst, rl, seeds)
        ours = f"{100 * fst.A:.1f} against {100 * rl.A:.1f}; difference {percent(e)}"
        unsure = " and ".join(name for name, fit in (("FST", fst), ("RL", rl)) if not fit.identifiable)
        if unsure:
            yield untestable(*claim, ours, f"not identifiable from these curves: {unsure}")
        else:
            note = saturated(ends(single[task], "fst"), ends(single[task], "rl"))
            yield judged(*claim, ours, e, seeds, (fst_there - rl_there) / 100, note=note)


def efficiency_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    for task, there in (("codeio", 3.0), ("math", 1.4), ("hover", 3.0)):
        claim = (
            "Samples",
            f"{task}: FST needs fewer samples to an accuracy that RL reaches",
            f"{there} x to RL's peak",
        )
        ratios = efficiency_ratios(single[task], "rl")["fst"]
        by_problems = {threshold: found["problems"] for threshold, found in ratios.items() if "problems" in found}
        # the highest that rl reaches under every seed stands for its peak
        reached = [threshold for threshold, ratio in by_problems.items() if ratio.bound != "at least"]
        ours = ", ".join(f"to {threshold:g} {times(ratio)}" for threshold, ratio in by_problems.items())
        if not reached:
            yield untestable(*claim, ours or "–", "RL reaches none of the thresholds under every seed")
            continue
        highest = by_problems[max(reached)]
        tokens = ratios[max(reached)].get("tokens")
        ours += f" problems; to {max(reached):g} {times(tokens)} tokens" if tokens else " problems"
        if highest.bound == "at most":
            yield Claim(*claim, ours, "contradicted", f"FST does not get to {max(reached):g} under every seed")
        else:
            seeds = len(seed_rows(*(curve_of(single[task], method, task) for method in ("fst", "rl")))[0].seeds)
            note = f"judged at {max(reached):g}"
            yield judged(*claim, ours, logarithm(highest.estimate), seeds, math.log(there), note=note)


def level_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    for task, gepa_there, rl_there in (("codeio", 34.5, 43.0), ("math", 20.3, 46.4), ("hover", 10.6, 17.3)):
        rl, gepa = ends(single[task], "rl"), ends(single[task], "gepa")
        e = paired(rl, gepa)
        ours = f"{mean_percent(gepa)} against {mean_percent(rl)}; RL ahead by {percent(e)}"
        claim = ("Prompts alone", f"{task}: GEPA alone stays below RL", f"{gepa_there} against {rl_there}")
        yield judged(*claim, ours, e, len(both(rl, gepa)), (rl_there - gepa_there) / 100)
    means = {method: mean_of([ends(single[task], method) for task in TASKS]) for method in METHODS}
    shown = ", ".join(f"{method} {mean_percent(means[method])}" for method in ("fst", "rl", "gepa"))
    there = {"fst": 37.5, "rl": 34.7, "gepa": 21.8}
    paper = ", ".join(f"{method} {value}" for method, value in there.items())
    for above, below in (("fst", "rl"), ("rl", "gepa")):
        e = paired(means[above], means[below])
        seeds, effect = len(both(means[above], means[below])), (there[above] - there[below]) / 100
        ours = f"{shown}; difference {percent(e)}"
        yield judged("Average of three", f"{above} above {below}", paper, ours, e, seeds, effect)


def drift_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    for task in ("physics", *TASKS):
        rl, fst = seed_rows(curve_of(single[task], "rl", task), curve_of(single[task], "fst", task))
        e = matched_kl(fst, rl)
        text = f"{task}: FST has less KL to the base at matched accuracy"
        paper, effect = ("about 0.03 against 0.08 (plot)", 0.62) if task == "physics" else ("up to 70 % lower", 0.7)
        yield judged("Drift", text, paper, f"{percent(e)} % lower", e, len(rl.seeds), effect)


def channel_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    papers = {
        "codeio": (19.4, 34.5, 25.1, 43.3),
        "math": (20.0, 20.3, 47.2, 48.4),
        "hover": (2.0, 10.6, 11.6, 21.2),
    }
    for task, there in papers.items():
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
        claim = ("Channels", text, f"{there[0]} {there[1]} / {there[2]} {there[3]}")
        if len(cells) < 4:
            yield untestable(*claim, "–", "not probed")
            continue
        # base weights with the seed prompt and the evolved one, trained weights with the two
        table = [cells[weights, prompt] for weights in ("base", "trained") for prompt in ("seed", "evolved")]
        ours = "{} {} / {} {}".format(*map(mean_percent, table))
        parts = {
            "prompt on base weights": (1, 0),
            "weights under the seed prompt": (2, 0),
            "both above the prompt": (3, 1),
            "both above the weights": (3, 2),
        }
        verdicts: dict[str, Verdict] = {}
        powers = []
        for name, (high, low) in parts.items():
            e, effect = paired(table[high], table[low]), (there[high] - there[low]) / 100
            verdicts[name] = verdict_of(e, effect)
            powers.append(power_of(e, len(both(table[high], table[low])), effect))
            if verdicts[name] != "reproduced":
                verdicts[f"{name} {percent(e)}"] = verdicts.pop(name)
        order: tuple[Verdict, ...] = ("not testable", "contradicted", "inconclusive", "reproduced")
        worst = next(verdict for verdict in order if verdict in verdicts.values())
        unlike = [(name, verdict) for name, verdict in verdicts.items() if verdict != "reproduced"]
        note = ", ".join(name if verdict == worst else f"{name} ({verdict})" for name, verdict in unlike)
        known = [power for power in powers if power is not None]
        yield Claim(*claim, ours, worst, note, min(known) if known else None)


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
        claim = ("Out of domain", text, f"base, RL, FST {numbers}")
        if ("fst", "trained") not in means or ("rl", "trained") not in means:
            yield untestable(*claim, "–", "not probed")
            continue
        fst, rl, base = means["fst", "trained"], means["rl", "trained"], means["rl", "base"]
        e = paired(fst, rl)
        ours = f"{mean_percent(base)} {mean_percent(rl)} {mean_percent(fst)}; FST minus RL {percent(e)}"
        if np.mean(list(base.values())) < FLOOR:
            yield untestable(*claim, ours, "the base earns next to nothing there without a prompt")
        else:
            yield judged(*claim, ours, e, len(both(fst, rl)), 0.0, line=-MARGIN)


def plasticity_claims(single: dict[str, Runs]) -> Iterator[Claim]:
    papers = {"math": (20.2, 0.0, 16.7), "physics": (18.3, 19.9, 24.2)}
    for task, (base_there, rl_there, fst_there) in papers.items():
        starts: dict[str, BySeed] = {}
        for run in single[task]:
            for row in run.probe("plasticity").itertuples():
                if hasattr(row, "final"):
                    starts.setdefault(run.method if row.stage else "base", {})[run.seed] = row.final
        text = f"a fresh RL pass on {FRESH} gets higher from FST's {task} weights than from RL's"
        claim = ("Plasticity", text, f"base {base_there}, RL {rl_there}, FST {fst_there}")
        if not {"rl", "fst", "base"} <= set(starts):
            yield untestable(*claim, "–", "not probed")
            continue
        e = paired(starts["fst"], starts["rl"])
        shown = ", ".join(f"{name} {mean_percent(starts[name])}" for name in ("base", "rl", "fst"))
        seeds = len(both(starts["fst"], starts["rl"]))
        ours = f"{shown}; FST minus RL {percent(e)}"
        yield judged(*claim, ours, e, seeds, (fst_there - rl_there) / 100, note=saturated(starts["fst"], starts["rl"]))


def saturated(*found: BySeed) -> str:
    """Return a note where every number is near 1."""
    at_top = min(value for numbers in found for value in numbers.values()) > 0.95
    return "all have hardly anything left to learn" if at_top else ""


def continual_claims(runs: Runs) -> Iterator[Claim]:
    papers = {"codeio": ("37.7 against 20.7 (RL stalls)", 0.17), "physics": ("FST ahead (plot)", UNSTATED)}
    for task, (paper, effect) in papers.items():
        fst, rl = (ends(runs, method, task) for method in ("fst", "rl"))
        e = paired(fst, rl)
        text = f"HoVer -> CodeIO -> Physics in one run: FST is ahead of RL on {task} when its stage ends"
        ours = f"{mean_percent(fst)} against {mean_percent(rl)}; difference {percent(e)}"
        yield judged("Continual", text, paper, ours, e, len(both(fst, rl)), effect)


def forgetting_claims(runs: Runs) -> Iterator[Claim]:
    changes: dict[str, BySeed] = {}
    for run in runs:
        rows = run.probe("forgetting")
        if "scores" not in rows:
            continue
        scores = rows[rows["metric"].isin(["acc", "exact_match"])].set_index(["task", "weights"])["scores"]
        tasks = list(dict.fromkeys(task for task, _ in scores.index))
        deltas = [difference(scores[task, "base"], scores[task, "trained"])[0] for task in tasks]
        changes.setdefault(run.method, {})[run.seed] = sum(deltas) / len(deltas)
    text = "after HoVer -> CodeIO -> Physics, general abilities that no stage trained: FST keeps more of them than RL"
    claim = ("Forgetting", text, "less forgetting (no figure)")
    if not {"fst", "rl"} <= set(changes):
        yield untestable(*claim, "–", "not probed")
        return
    e = paired(changes["fst"], changes["rl"])
    shown = ", ".join(f"{name} {percent(t_interval(list(changes[name].values())))}" for name in ("rl", "fst"))
    seeds = len(both(changes["fst"], changes["rl"]))
    yield judged(*claim, f"change of accuracy: {shown}; FST minus RL {percent(e)}", e, seeds, UNSTATED)


def star_claims(runs: Runs) -> Iterator[Claim]:
    rl, fst = seed_rows(curve_of(runs, "rl", "star-graph"), curve_of(runs, "fst", "star-graph"))
    claim = ("Star-graph", "star-graph: FST leaves the floor earlier than RL", "steps 50 against 250")
    start = float(rl.accuracy[:, 0].mean())
    if start >= FLOOR / 2:
        yield untestable(*claim, "–", f"the base starts at {100 * start:.1f} %, not at zero")
        return
    ratio = ratios_at(fst, rl, FLOOR).get("problems")
    if ratio is None:
        yield untestable(*claim, "–", f"under some seed neither gets to {FLOOR:g}")
        return
    ours = f"{times(ratio)} fewer problems to {FLOOR:g}, those looked at ahead included"
    if ratio.bound == "exactly":
        yield judged(*claim, ours, logarithm(ratio.estimate), len(rl.seeds), math.log(5))
    else:
        yield Claim(*claim, ours, "reproduced" if ratio.bound == "at least" else "contradicted")


def distill_claims(distilled: Runs, single: Runs) -> Iterator[Claim]:
    text = f"{DISTILLED}: distilling the prompt's gain into the weights naively ends below FST"
    claim = ("FST-distill", text, "about 32 against 48")
    if not distilled:
        yield untestable(*claim, "–", f"fst-distill has not run on single-{DISTILLED}")
        return
    fst, naive = ends(single, "fst"), ends(distilled, "fst-distill")
    e = paired(fst, naive)
    ours = f"{mean_percent(naive)} against {mean_percent(fst)}; FST ahead by {percent(e)}"
    yield judged(*claim, ours, e, len(both(fst, naive)), 0.16, note=saturated(fst, naive))
