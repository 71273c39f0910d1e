"""Entries of the board, their numbers and their places.

Entries are compared within their league: the same stream and version, model, preset and division. One is clearly better than another where
the 95 % interval of their paired difference excludes zero (see `difference`: both answered the same held-out problems after the same training
problems). A place is an interval: from one more than how many are clearly better, to how many are not clearly worse. Entries that
can't be told apart share places; nothing is corrected for the number of comparisons.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np

from fst_bench.analysis import Finished, interval
from fst_bench.analysis.runs import Runs
from fst_bench.metrics import Estimate, stratified_bootstrap
from fst_bench.metrics.intervals import Scores


class League(NamedTuple):
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
    of: Callable[[Finished], float]
    digits: int = 3
    better: Literal["more", "less"] = "more"
    ranked: bool = False


def mean_over_stages(name: str) -> Callable[[Finished], float]:
    return lambda run: sum(stage[name] for stage in run.metrics["stages"]) / len(run.metrics["stages"])


def at_the_end(mode: str) -> Callable[[Finished], float]:
    return lambda run: run.metrics["final_average"].get(mode, math.nan)


COLUMNS = (
    Column("end", "end of stream", "Accuracy on all tasks at the end of the stream, under the method's own prompt.", at_the_end("system"), ranked=True),
    Column(
        "within", "while learning", "Accuracy on the task being trained, under the method's own prompt: mean of all evaluations within stages.",
        mean_over_stages("within"), ranked=True,
    ),
    Column("weights", "weights only", "All tasks at the end of the stream, with the seed prompt in place of the method's.", at_the_end("seed")),
    Column(
        "recalled", "recalled (oracle)", "All tasks at the end of the stream, each under the prompt the method had at the end of that task's stage.",
        at_the_end("recalled"),
    ),
    Column("anytime", "anytime", "Mean over the stages' ends of the accuracy on all tasks met so far.", lambda run: transferred(run, "anytime")),
    Column(
        "forgetting", "forgetting", "How far each task fell from its best to the end of the stream; mean over all tasks but the last.",
        lambda run: transferred(run, "forgetting"), better="less",
    ),
    Column(
        "kl", "KL to the base", "Nats per sampled token, at the stages' ends, under the method's own prompt.",
        lambda run: sum(stage["kl"]["system"] for stage in run.metrics["stages"]) / len(run.metrics["stages"]), better="less",
    ),
    Column("rollouts", "rollouts", "Answers that learning sampled, all purposes.", lambda run: sum(run.ledger["rollouts"].values()), 0, "less"),
    Column("tokens", "sampled tokens", "Tokens of those answers.", lambda run: run.ledger["sampled_tokens"], 0, "less"),
    Column("seconds", "seconds", "Of the whole run, evaluations included, on its own machine.", lambda run: sum(run.ledger["seconds"].values()), 0, "less"),
)  # fmt: skip


def transferred(run: Finished, name: str) -> float:
    value = run.metrics["transfer"]["system"].get(name)
    return math.nan if value is None else value


@dataclass(frozen=True)
class Number:
    """A mean over seeds and the ends of its 95 % interval; NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Place:
    """Of an entry in its league, best first from 1: it is somewhere in first..last."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}–{self.last}"


@dataclass(frozen=True, eq=False)
class Entry:
    """One row of the board: a submission that passed its check. Every text in it is a stranger's."""

    id: str
    """Of a-z, 0-9 and -: names its page."""
    league: League
    name: str
    organisation: str
    method: str
    seeds: list[int]
    runs: Runs
    """One a seed; their metrics are those recomputed from the rows."""
    prompts: dict[int, list[dict[str, Any]]]
    """Seed -> rows of the run's prompts.jsonl; empty for a method that evolves none."""
    environment: dict[str, str]
    """Of the first seed's run."""
    settings: dict[str, Any]
    """Dotted names of what is not at the preset's value."""
    code: str
    """'shipped', the file's or package's digest."""
    note: str
    """The submitter's own words; may be empty."""
    command: str
    """What reproduces one of its runs."""
    bundle: str
    """sha256 of the submission's file."""
    scores: dict[str, Scores]
    """Ranked column -> task -> (seeds, problems), or (seeds,) where a seed has one number."""
    unranked: str | None = None
    """Why it has no place; None where it has one."""
    verified: list[str] = field(default_factory=list)
    """What maintainers found who ran one of its seeds again, in words."""

    @property
    def values(self) -> dict[str, Number]:
        return {column.key: over_seeds([column.of(run) for run in self.runs]) for column in COLUMNS}


def over_seeds(values: list[float]) -> Number:
    mean, half = interval(values)
    return Number(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Standing:
    """An entry among those of its league."""

    entry: Entry
    places: dict[str, Place]
    """Ranked column -> its place; empty where it is unranked."""
    differences: dict[str, dict[str, Estimate]]
    """Ranked column -> id of another ranked entry -> this one minus that one, paired."""


def standings(entries: Sequence[Entry]) -> list[Standing]:
    """Every entry with its places: leagues by name, in each the ranked ones first, best first, then the others by name."""
    return [
        standing
        for league in sorted({e.league for e in entries})
        for standing in ranked([e for e in entries if e.league == league])
    ]


def ranked(league: Sequence[Entry]) -> list[Standing]:
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
    """Ours minus theirs, the mean over tasks, with the wider of two paired 95 % intervals on either side.

    The t-interval over seeds says what another seed would do on these problems; the bootstrap over seeds and problems, what other problems would make of
    it too, but with few seeds it takes one that is unlike the others too lightly. Both sides are means, so that resampling the difference is
    resampling both with the same seeds and problems.
    """
    assert ours.keys() == theirs.keys(), "one league has one stream"
    apart = {task: np.asarray(ours[task], dtype=float) - np.asarray(theirs[task], dtype=float) for task in ours}
    found = stratified_bootstrap(apart)
    mean, half = interval(
        np.mean([values.reshape(len(values), -1).mean(1) for values in apart.values()], axis=0).tolist()
    )
    return Estimate(found.value, min(found.low, mean - half), max(found.high, mean + half))
