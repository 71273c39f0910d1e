"""All methods side by side, and of each ablation what it was made to tell: python results/ablations.py writes ablations.md beside itself.

Read from the committed runs. A claim is confirmed where the 95 % t-interval of its paired difference lies on its side of zero, refuted where it
lies on the other side. The ablations' own settings were not tuned.
"""

import math
from pathlib import Path

from fst_bench.analysis import Finished, interval, load
from fst_bench.leaderboard.standings import COLUMNS

HERE = Path(__file__).parent
STREAMS = ("continual-4@2", "continual-4-formats-given@1")
MAIN = ("base", "gepa", "rl", "fst")
SEEDS = 3
"""Of a claim at least."""
OF = {column.key: column for column in COLUMNS}

# (ablation, what it claims, the side that should have more, the other side, of which column)
CLAIMS = (
    ("rl-grpo", "tokens past the clip still teach: rl learns more than rl-grpo", "rl", "rl-grpo", "within"),
    (
        "rl-kl",
        "fst's small drift is worth more than a penalty buys: it learns more than rl-kl",
        "fst",
        "rl-kl",
        "within",
    ),
    ("rl-replay", "rehearsal repairs forgetting: rl-replay knows more at the end than rl", "rl-replay", "rl", "end"),
    (
        "gepa-matched",
        "sampling less is not why gepa is below fst: with fst's rollouts it still is",
        "fst",
        "gepa-matched",
        "within",
    ),
    (
        "gepa-archive",
        "an archive alone retains: gepa-archive knows more at the end than gepa",
        "gepa-archive",
        "gepa",
        "end",
    ),
    ("gepa-then-rl", "interleaving beats phases, prompts first", "fst", "gepa-then-rl", "within"),
    ("rl-then-gepa", "interleaving beats phases, weights first", "fst", "rl-then-gepa", "within"),
    ("fst-single", "a population is worth more than one prompt", "fst", "fst-single", "within"),
    ("fst-frozen", "prompts have to follow the policy and the stream", "fst", "fst-frozen", "within"),
    ("fst-no-lookahead", "looking ahead is worth something", "fst", "fst-no-lookahead", "within"),
    (
        "fst-prompt-advantage",
        "one normalisation per problem is better than one per prompt",
        "fst",
        "fst-prompt-advantage",
        "within",
    ),
    ("fst-random", "it is evolution that helps, not any variety of prompts", "fst", "fst-random", "within"),
    ("fst-drop", "rollouts under weak prompts cost more than they teach", "fst-drop", "fst", "within"),
    (
        "fst-archive",
        "an archive retains in the prompts: fst-archive knows more at the end than fst",
        "fst-archive",
        "fst",
        "end",
    ),
    ("fst-reuse", "fresh rollouts are worth something to reflection", "fst", "fst-reuse", "within"),
    (
        "fst-distill",
        "the weights can take over what prompts earn: more under the seed prompt at the end than fst",
        "fst-distill",
        "fst",
        "weights",
    ),
)

OverSeeds = dict[int, Finished]


def of_stream(stream: str) -> dict[str, OverSeeds]:
    """Method -> seed -> its committed run."""
    found: dict[str, OverSeeds] = {}
    for run in load([HERE / stream]) if (HERE / stream).exists() else ():
        found.setdefault(run.method, {})[run.seed] = run
    return found


def table(methods: dict[str, OverSeeds]) -> list[str]:
    """A row a method: the main ones, then the ablations in the claims' order."""
    order = [m for m in (*MAIN, *(claim[0] for claim in CLAIMS)) if m in methods]
    lines = [
        "| method | seeds | " + " | ".join(column.label for column in COLUMNS) + " |",
        "| --- " * (len(COLUMNS) + 2) + "|",
    ]
    for method in order:
        cells = []
        for column in COLUMNS:
            mean, half = interval([column.of(run) for run in methods[method].values()])
            cells.append(
                f"{mean:,.0f}" if column.digits == 0 else f"{mean:.3f}" + ("" if math.isnan(half) else f" ± {half:.3f}")
            )
        lines.append(f"| {method} | {len(methods[method])} | {' | '.join(cells)} |")
    return lines


def verdict(methods: dict[str, OverSeeds], more: str, less: str, key: str) -> str:
    """What the runs say of a claim, in a line; a difference is over the seeds that both sides have."""
    shared = sorted(methods.get(more, {}).keys() & methods.get(less, {}).keys())
    if len(shared) < SEEDS:
        return f"{len(shared)} of {SEEDS} seeds so far"
    mean, half = interval([OF[key].of(methods[more][s]) - OF[key].of(methods[less][s]) for s in shared])
    said = "confirmed" if mean - half > 0 else "refuted" if mean + half < 0 else "not clear"
    return f"{said}: {mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


def page() -> str:
    runs = {stream: of_stream(stream) for stream in STREAMS}
    lines = [
        "# Every method, and what each ablation tells",
        "",
        "Embedded model, preset tiny; means over seeds with 95 % t-intervals, differences paired by seed. The ablations ran with three seeds and with settings that nobody tuned, "
        "so *not clear* is no proof of nothing. Columns are the leaderboard's; rollouts, tokens and seconds are what a method cost. "
        "Seconds are of one core, most of them with other work beside it (which can double them): compare them across methods with care.",
    ]
    for stream, methods in runs.items():
        lines += ["", f"## {stream}", "", *(table(methods) if methods else ["Not run yet."])]
    lines += [
        "",
        "## The claims",
        "",
        "| ablation | claim | column | " + " | ".join(STREAMS) + " |",
        "| --- " * (len(STREAMS) + 3) + "|",
    ]
    for ablation, claim, more, less, key in CLAIMS:
        lines.append(
            f"| {ablation} | {claim} | {OF[key].label}, {more} minus {less} | "
            + " | ".join(verdict(runs[s], more, less, key) for s in STREAMS)
            + " |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (HERE / "ablations.md").write_text(page())
    print(page())
