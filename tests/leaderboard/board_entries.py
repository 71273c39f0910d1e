"""Entries made of the committed runs, as of a checked submission, and some whose every text tries to do harm."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from fst_bench.analysis import load
from fst_bench.harness.run import Run, Source
from fst_bench.leaderboard.site import Removed
from fst_bench.leaderboard.standings import Entry, League, Standing, standings
from fst_bench.metrics.intervals import Scores

RESULTS = Path(__file__).parents[2] / "results"


@cache
def entry(stream: str, method: str, seeds: int = 5) -> Entry:
    runs = load([RESULTS / stream / method])[:seeds]
    return Entry(
        id=f"{stream.replace('@', '-')}-{method}",
        league=League(stream, "embedded:tiny", "tiny", "open"),
        name=f"{method} as shipped",
        organisation="fst-bench",
        method=method,
        runs=runs,
        settings={"slow.ratio_clip_max": 5.0, "fast.cycle": 5} if method == "fst" else {},
        code="shipped",
        note="Reference runs of the paper's method.\nNothing was tuned on these seeds." if method == "fst" else "",
        command=f"fst-bench run --stream {stream.split('@')[0]} --method {method} --seed 0",
        bundle="ab" * 32,
        scores={"so-far": scores(runs, so_far), "end": scores(runs, at_the_end), "online": scores(runs, online)},
        verified=["seed 3, run again on another machine: the same numbers, bit for bit"] if method == "fst" else [],
    )


def scores(runs: tuple[Run, ...], of: Any) -> Scores:
    per_seed = [of(run) for run in runs]
    return {task: [values[task] for values in per_seed] for task in per_seed[0]}


def at_the_end(run: Run) -> dict[str, float]:
    return run.metrics["matrix"]["system"][str(len(run.stages))]


def so_far(run: Run) -> dict[str, float]:
    return {"so far": run.so_far}


def online(run: Run) -> dict[str, float]:
    return {str(stage["stage"]): stage["online"] for stage in run.metrics["stages"]}


@cache
def board() -> list[Standing]:
    """Four methods on one stream, one of them unranked, and two on another."""
    entries = [entry("continual-4@2", method) for method in ("base", "gepa", "rl", "fst")] + [
        entry("paper-3@2", method) for method in ("rl", "fst")
    ]
    entries[1] = replace(entries[1], unranked="its division asks for 10 seeds, it has 5")
    return standings(entries)


GONE = [Removed("Too good", "Somebody", "paper-3@2", "2026-05-01", "its runs could not be made again")]

HARM = [
    "<script>hacked = 1; alert(1)</script><img src=x onerror='hacked = 1; alert(1)'>",
    "&lt;img src=x onerror=&quot;hacked=1&quot;&gt; & <svg onload=hacked=1>",
    "</style></script></table></title>]]><iframe src=https://example.org/></iframe>",
    '"\' onmouseover=hacked=1 x="{{ 7 * 7 }} {% raw %} ${hacked=1} `hacked=1`',
    "\u202eright to left\u2066\u200f \x00\x01\x1b[31m\x7f\x85\u2028\ud800\ufffe\ufeff",
    '=HYPERLINK("http://example.org";"x")|| cmd|\' /C calc\'!A0',
    "\\input{/etc/passwd}\\write18{id} 100 % #1 ^^41 ~ $x_1$ & {} [1cm] *",
    "a | b\n\n| c |\r\n# d\n![e](http://example.org/f.png) [g](javascript:hacked=1) <http://example.org> "
    "www.example.org @h https://example.org",
    "W" * 10_000,
    "many words " * 1_000,
]


@dataclass(frozen=True, eq=False)
class Other:
    """A run's source; classes over it change something."""

    source: Source

    @property
    def path(self) -> Path:
        return self.source.path

    @property
    def finished(self) -> bool:
        return self.source.finished

    def read(self, name: str) -> dict[str, Any]:
        return self.source.read(name)

    def rows(self, name: str) -> list[dict[str, Any]]:
        return self.source.rows(name)


@dataclass(frozen=True, eq=False)
class Harmful(Other):
    """A run with an untrusted text wherever the page shows one."""

    text: str

    def read(self, name: str) -> dict[str, Any]:
        return {self.text: self.text} if name == "env" else self.source.read(name)

    def rows(self, name: str) -> list[dict[str, Any]]:
        rows = self.source.rows(name)
        population = [{"prompt": self.text, "score": 0.5}]
        return [row | {"population": population} for row in rows[:2]] if name == "prompts" else rows


def harmful(i: int) -> Entry:
    """Return an entry with the i-th text everywhere that a submitter writes."""
    text, made = HARM[i], entry("continual-4@2", "gepa", seeds=2)
    return replace(
        made,
        id=f"harm-{i}",
        name=text,
        organisation=text,
        method=text,
        note=text,
        command=text,
        code=text,
        settings={text: text, "a": [text]},
        runs=tuple(Run(Harmful(run.source, text)) for run in made.runs),
        verified=[text],
        unranked=text,
    )
