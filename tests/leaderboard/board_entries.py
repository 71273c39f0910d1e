"""Entries made of the committed runs, as a check would make them of a submission, and one whose every text wants to do harm."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from fst_bench.analysis import Finished, load
from fst_bench.leaderboard.site import Removed
from fst_bench.leaderboard.standings import Entry, League, Standing, standings
from fst_bench.metrics.intervals import Scores
from fst_bench.harness.store import records

RESULTS = Path(__file__).parents[2] / "results"


@cache
def entry(stream: str, method: str, seeds: int = 5) -> Entry:
    runs = load([RESULTS / stream / method])[:seeds]
    prompts = {run.seed: rows for run in runs if (rows := records(run.path / "prompts.jsonl"))}
    return Entry(
        id=f"{stream.replace('@', '-')}-{method}",
        league=League(stream, "embedded:tiny", "tiny", "open"),
        name=f"{method} as shipped",
        organisation="fst-bench",
        method=method,
        seeds=[run.seed for run in runs],
        runs=runs,
        prompts=prompts,
        environment=json.loads((runs[0].path / "env.json").read_text()),
        settings={"slow.ratio_clip_max": 5.0, "fast.cycle": 5} if method == "fst" else {},
        code="shipped",
        note="Reference runs of the paper's method.\nNothing was tuned on these seeds." if method == "fst" else "",
        command=f"fst-bench run --stream {stream.split('@')[0]} --method {method} --seed 0",
        bundle="ab" * 32,
        scores={"end": scores(runs, at_the_end), "within": scores(runs, within)},
        verified=["seed 3, run again on another machine: the same numbers, bit for bit"] if method == "fst" else [],
    )


def scores(runs: tuple[Finished, ...], of: Any) -> Scores:
    per_seed = [of(run) for run in runs]
    return {task: [values[task] for values in per_seed] for task in per_seed[0]}


def at_the_end(run: Finished) -> dict[str, float]:
    return run.metrics["matrix"]["system"][str(len(run.stages))]


def within(run: Finished) -> dict[str, float]:
    return {f"{stage['stage']} {stage['task']}": stage["within"] for stage in run.metrics["stages"]}


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
    "a | b\n\n| c |\r\n# d\n![e](http://example.org/f.png) [g](javascript:hacked=1) <http://example.org> www.example.org @h https://example.org",
    "W" * 10_000,
    "many words " * 1_000,
]


def harmful(i: int) -> Entry:
    """An entry with the i-th text everywhere that a stranger writes."""
    text, made = HARM[i], entry("continual-4@2", "gepa", seeds=2)
    rows = {
        s: [row | {"population": [{"prompt": text, "score": 0.5}]} for row in some[:2]]
        for s, some in made.prompts.items()
    }
    return replace(
        made, id=f"harm-{i}", name=text, organisation=text, method=text, note=text, command=text, code=text, settings={text: text, "a": [text]},
        environment={text: text}, prompts=rows, verified=[text], unranked=text,
    )  # fmt: skip
