"""Write ablations.md: all methods side by side, and what each ablation was made to tell. python results/ablations.py

It is read from the committed runs. A claim is confirmed where the 95 % t-interval of its paired difference lies on its
side of zero, and refuted where it lies on the other side. The ablations' own settings were not tuned.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from fst_bench.analysis import load
from fst_bench.analysis.writers import markdown_table
from fst_bench.harness.run import Run
from fst_bench.leaderboard.standings import COLUMNS, Column
from fst_bench.metrics import t_interval

HERE = Path(__file__).parent
STREAMS = ("continual-4@2", "continual-4-formats-given@1")
MAIN = ("base", "gepa", "rl", "fst")
SEEDS = 3
"""Seeds that a claim needs at least."""
COLUMN = {column.key: column for column in COLUMNS}


@dataclass(frozen=True)
class Claim:
    """The claim behind an ablation: one method has more than another in a column."""

    ablation: str
    text: str
    more: str
    less: str
    column: str


CLAIMS = (
    Claim("rl-grpo", "tokens past the clip still teach: rl learns more than rl-grpo", "rl", "rl-grpo", "online"),
    Claim(
        "rl-kl",
        "fst's small drift is worth more than a penalty buys: it learns more than rl-kl",
        "fst",
        "rl-kl",
        "online",
    ),
    Claim(
        "rl-replay", "rehearsal repairs forgetting: rl-replay knows more at the end than rl", "rl-replay", "rl", "end"
    ),
    Claim(
        "gepa-matched",
        "sampling less is not why gepa is below fst: with fst's rollouts it still is",
        "fst",
        "gepa-matched",
        "online",
    ),
    Claim(
        "gepa-archive",
        "an archive alone retains: gepa-archive knows more at the end than gepa",
        "gepa-archive",
        "gepa",
        "end",
    ),
    Claim("gepa-then-rl", "interleaving beats phases, prompts first", "fst", "gepa-then-rl", "online"),
    Claim("rl-then-gepa", "interleaving beats phases, weights first", "fst", "rl-then-gepa", "online"),
    Claim("fst-single", "a population is worth more than one prompt", "fst", "fst-single", "online"),
    Claim("fst-frozen", "prompts have to follow the policy and the stream", "fst", "fst-frozen", "online"),
    Claim("fst-no-lookahead", "looking ahead is worth something", "fst", "fst-no-lookahead", "online"),
    Claim(
        "fst-prompt-advantage",
        "one normalisation per problem is better than one per prompt",
        "fst",
        "fst-prompt-advantage",
        "online",
    ),
    Claim("fst-random", "it is evolution that helps, not any variety of prompts", "fst", "fst-random", "online"),
    Claim("fst-drop", "rollouts under weak prompts cost more than they teach", "fst-drop", "fst", "online"),
    Claim(
        "fst-archive",
        "an archive retains in the prompts: fst-archive knows more at the end than fst",
        "fst-archive",
        "fst",
        "end",
    ),
    Claim("fst-reuse", "fresh rollouts are worth something to reflection", "fst", "fst-reuse", "online"),
    Claim(
        "fst-distill",
        "the weights can take over what prompts earn: more under the seed prompt at the end than fst",
        "fst-distill",
        "fst",
        "seed",
    ),
)

BySeed = dict[int, Run]


def of_stream(stream: str) -> dict[str, BySeed]:
    """Return method -> seed -> its committed run."""
    found: dict[str, BySeed] = {}
    for run in load([HERE / stream]) if (HERE / stream).exists() else ():
        found.setdefault(run.method, {})[run.seed] = run
    return found


def table(methods: dict[str, BySeed]) -> str:
    """Return a row a method: the main ones, then the ablations in the claims' order."""
    order = [m for m in (*MAIN, *(claim.ablation for claim in CLAIMS)) if m in methods]
    rows = [[m, str(len(methods[m])), *(cell(column, methods[m]) for column in COLUMNS)] for m in order]
    return markdown_table(["method", "seeds", *(column.label for column in COLUMNS)], rows)


def cell(column: Column, runs: BySeed) -> str:
    found = t_interval([column.of(run) for run in runs.values()])
    if column.digits == 0:
        return f"{found.value:,.0f}"
    return f"{found.value:.3f}" + ("" if math.isnan(found.half) else f" ± {found.half:.3f}")


def verdict(methods: dict[str, BySeed], claim: Claim) -> str:
    """Return what the runs tell of a claim, in a line; a difference is over the seeds that both sides have."""
    more, less = methods.get(claim.more, {}), methods.get(claim.less, {})
    shared = sorted(more.keys() & less.keys())
    if len(shared) < SEEDS:
        return f"{len(shared)} of {SEEDS} seeds so far"
    of = COLUMN[claim.column].of
    found = t_interval([of(more[seed]) - of(less[seed]) for seed in shared])
    word = "confirmed" if found.low > 0 else "refuted" if found.high < 0 else "not clear"
    return f"{word}: {found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def page() -> str:
    runs = {stream: of_stream(stream) for stream in STREAMS}
    parts = [
        "# Every method, and what each ablation tells",
        "Embedded model, preset tiny; means over seeds with 95 % t-intervals, differences paired by seed. The "
        "ablations ran with three seeds and with settings that nobody tuned, so *not clear* is no proof of nothing. "
        "Columns are the leaderboard's; rollouts, tokens and seconds are what a method cost. Seconds are of one core, "
        "most of them with other work alongside (which can double them): compare them across methods with care.",
    ]
    for stream, methods in runs.items():
        parts += [f"## {stream}", table(methods) if methods else "Not run yet."]
    rows = [
        [
            claim.ablation,
            claim.text,
            f"{COLUMN[claim.column].label}, {claim.more} minus {claim.less}",
            *(verdict(methods, claim) for methods in runs.values()),
        ]
        for claim in CLAIMS
    ]
    parts += ["## The claims", markdown_table(["ablation", "claim", "column", *STREAMS], rows)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    (HERE / "ablations.md").write_text(page())
    print(page())
