"""Entries of the board, their numbers and their places.

Entries are compared within their league: the same stream and version, model, preset and division. One is clearly better
than another where the 95 % interval of their paired difference excludes zero (see `difference`: both answered the same
held-out problems after the same training problems). A place is an interval: from one more than how many are clearly
better, to how many are not clearly worse. Entries that can't be told apart share places; nothing is corrected for the
number of comparisons.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np

from fst_bench.harness.run import Run
from fst_bench.metrics import Estimate, stratified_bootstrap
from fst_bench.metrics.intervals import Scores, t_interval


class League(NamedTuple):
    """The entries that are compared with each other."""

    stream: str
    """NAME@VERSION"""
    model: str
    preset: str
    division: str


@dataclass(frozen=True)
class Column:
    """A number of every run; the board shows its mean over seeds with a 95 % t-interval."""

    key: str
    label: str
    note: str
    of: Callable[[Run], float]
    digits: int = 3
    better: Literal["more", "less"] = "more"
    ranked: bool = False


def mean_over_stages(name: str) -> Callable[[Run], float]:
    """Return the column that is the mean of a number of every stage."""
    return lambda run: sum(stage[name] for stage in run.metrics["stages"]) / len(run.metrics["stages"])


def at_the_end(mode: str) -> Callable[[Run], float]:
    """Return the column of all tasks at the end of the stream, under a prompt mode; NaN where it was not evaluated."""
    return lambda run: run.metrics["final_average"].get(mode, math.nan)


COLUMNS = (
    Column(
        "so-far",
        "tasks so far",
        "Accuracy on the tasks whose stage has begun, under the method's own prompt: mean over the stream's problems.",
        lambda run: run.so_far,
        ranked=True,
    ),
    Column(
        "end",
        "end of stream",
        "Accuracy on all tasks at the end of the stream, under the method's own prompt.",
        at_the_end("system"),
        ranked=True,
    ),
    Column(
        "online",
        "online accuracy",
        "Accuracy on the task being trained, under the method's own prompt: mean of all evaluations of its stage.",
        mean_over_stages("online"),
        ranked=True,
    ),
    Column(
        "seed",
        "seed prompt",
        "All tasks at the end of the stream, with the seed prompt in place of the method's.",
        at_the_end("seed"),
    ),
    Column(
        "oracle",
        "oracle prompt",
        "All tasks at the end of the stream, each under the prompt the method had at the end of that task's stage.",
        at_the_end("oracle"),
    ),
    Column(
        "greedy",
        "greedy",
        "All tasks at the end of the stream, under the method's own prompt: the likeliest tokens.",
        at_the_end("greedy"),
    ),
    Column(
        "anytime",
        "anytime",
        "Accuracy on all tasks met so far, at the end of a stage: mean over the stages.",
        lambda run: transferred(run, "anytime"),
    ),
    Column(
        "forgetting",
        "forgetting",
        "How far each task fell from its best to the end of the stream; mean over all tasks but the last.",
        lambda run: transferred(run, "forgetting"),
        better="less",
    ),
    Column(
        "kl",
        "KL to the base",
        "Nats per sampled token, at the end of a stage, under the method's own prompt: mean over the stages.",
        lambda run: sum(stage["kl"]["system"] for stage in run.metrics["stages"]) / len(run.metrics["stages"]),
        better="less",
    ),
    Column(
        "rollouts",
        "rollouts",
        "Answers that learning sampled, all purposes.",
        lambda run: sum(run.ledger["rollouts"].values()),
        digits=0,
        better="less",
    ),
    Column(
        "tokens",
        "sampled tokens",
        "Tokens of those answers.",
        lambda run: run.ledger["sampled_tokens"],
        digits=0,
        better="less",
    ),
    Column(
        "seconds",
        "seconds",
        "Time of the whole run, evaluations included, on its own machine.",
        lambda run: sum(run.ledger["seconds"].values()),
        digits=0,
        better="less",
    ),
)


def transferred(run: Run, name: str) -> float:
    """Return a transfer number under the method's own prompt; NaN where the stream has too few stages for it."""
    value = run.metrics["transfer"]["system"].get(name)
    return math.nan if value is None else value


@dataclass(frozen=True)
class Place:
    """Where an entry stands in its league, best first from 1: somewhere in first..last."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}–{self.last}"


@dataclass(frozen=True, eq=False)
class Entry:
    """A row of the board: a submission that passed its check. Every text in it, its runs' too, is untrusted."""

    id: str
    """Characters of a-z, 0-9 and -: names its page."""
    league: League
    name: str
    organisation: str
    method: str
    runs: tuple[Run, ...]
    """One a seed, by seed; their metrics are those recomputed from the rows."""
    settings: dict[str, Any]
    """Dotted names of what is not at the preset's value."""
    code: str
    """'shipped', or the file's or package's digest."""
    note: str
    """The submitter's own words; may be empty."""
    command: str
    """Shell command that reproduces its runs."""
    bundle: str
    """sha256 of the submission's file."""
    scores: dict[str, Scores]
    """Ranked column -> task -> (seeds, problems), or (seeds,) where a seed has one number."""
    unranked: str | None = None
    """Why it has no place; None where it has one."""
    verified: list[str] = field(default_factory=list)
    """Findings of maintainers who ran one of its seeds again, in words."""

    @property
    def values(self) -> dict[str, Estimate]:
        """Means over seeds with their 95 % t-intervals, by column."""
        return {column.key: t_interval([column.of(run) for run in self.runs]) for column in COLUMNS}


@dataclass(frozen=True)
class Standing:
    """An entry among those of its league."""

    entry: Entry
    places: dict[str, Place]
    """Ranked column -> its place; empty where it is unranked."""
    differences: dict[str, dict[str, Estimate]]
    """Ranked column -> id of another ranked entry -> this one minus that one, paired."""


def standings(entries: Sequence[Entry]) -> list[Standing]:
    """Return every entry with its places: leagues by name, in each the ranked ones, best first, then the others."""
    return [
        standing
        for league in sorted({e.league for e in entries})
        for standing in ranked([e for e in entries if e.league == league])
    ]


def ranked(league: Sequence[Entry]) -> list[Standing]:
    """Return the entries of one league with their places, in order."""
    competing = [e for e in league if e.unranked is None]
    found: list[Standing] = []
    against: dict[str, dict[tuple[str, str], Estimate]] = {column.key: {} for column in COLUMNS if column.ranked}
    for key, pairs in against.items():
        for one, other in combinations(competing, 2):
            pairs[one.id, other.id] = d = difference(one.scores[key], other.scores[key])
            pairs[other.id, one.id] = Estimate(-d.value, -d.high, -d.low)
    for entry in league:
        differences = {
            key: {other: d for (one, other), d in pairs.items() if one == entry.id} for key, pairs in against.items()
        }
        places = {
            key: Place(
                1 + sum(d.high < 0 for d in mine.values()), len(competing) - sum(d.low > 0 for d in mine.values())
            )
            for key, mine in differences.items()
            if entry.unranked is None
        }
        found.append(Standing(entry, places, differences if places else {}))

    def order(standing: Standing) -> Any:
        entry, main = standing.entry, next(c.key for c in COLUMNS if c.ranked)
        place = standing.places.get(main)
        return (
            place is None,
            (place.first, place.last) if place else (0, 0),
            -entry.values[main].value,
            entry.name,
            entry.id,
        )

    return sorted(found, key=order)


def difference(ours: Scores, theirs: Scores) -> Estimate:
    """Return ours minus theirs, the mean over tasks, with the wider of two paired 95 % intervals on either side.

    The t-interval over seeds is about another seed on these problems. The bootstrap over seeds and problems is about
    other problems too, but with few seeds it makes too little of one that is unlike the others. Both sides are means:
    resampling the difference is resampling both with the same seeds and problems.
    """
    assert ours.keys() == theirs.keys(), "one league has one stream"
    apart = {task: np.asarray(ours[task], dtype=float) - np.asarray(theirs[task], dtype=float) for task in ours}
    problems = stratified_bootstrap(apart)
    seeds = t_interval(np.mean([values.reshape(len(values), -1).mean(1) for values in apart.values()], axis=0).tolist())
    return Estimate(problems.value, min(problems.low, seeds.low), max(problems.high, seeds.high))
