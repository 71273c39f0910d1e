"""Maintainers' decisions about submissions: a file that is only appended to, each line with a reason.

A line names the one before it by its hash, so that a line that was edited or dropped later is found. A submission's
file is never changed: it is verified or disputed by running one of its seeds again, removed, restored, or scored again
where a verifier was mended.
"""

import hashlib
import json
import math
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fst_bench.core.errors import explain
from fst_bench.harness.config import REGISTRIES
from fst_bench.harness.environment import environment
from fst_bench.harness.loop import start
from fst_bench.harness.run import Run
from fst_bench.leaderboard.bundle import Bundle
from fst_bench.leaderboard.standings import COLUMNS
from fst_bench.metrics.intervals import t_interval
from fst_bench.policy.models import refuse_other_model

DECISIONS = "adjudications.jsonl"
"""Name of the file in the board's folder."""
Action = Literal["verified", "disputed", "removed", "restored", "rescored"]


class Adjudication(BaseModel):
    """One line of adjudications.jsonl."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    entry: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """sha256 of the submission's file."""
    action: Action
    reason: Annotated[str, Field(min_length=1, max_length=2_000)]
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    """Day of the decision, UTC."""
    seed: int | None = None
    """Seed that was run again."""
    code: str | None = None
    """Commit that it was run with."""
    previous: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """sha256 of the line before; zeros in the first line."""


def read(path: Path) -> list[Adjudication]:
    """Return every decision, oldest first. Raises ValueError that names a line that is not as it was appended."""
    found: list[Adjudication] = []
    previous = "0" * 64
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], 1):
        try:
            values = json.loads(line)
        except ValueError:
            raise ValueError(f"{path} line {number} is not JSON") from None
        made = explain(Adjudication, values if isinstance(values, dict) else {}, f"{path} line {number}")
        if made.previous != previous:
            raise ValueError(
                f"{path} line {number} does not follow the line before it: decisions are appended, "
                "never edited or dropped"
            )
        found.append(made)
        previous = hashlib.sha256(line).hexdigest()
    return found


def append(path: Path, entry: str, action: Action, reason: str, **more: Any) -> Adjudication:
    """Add a decision, dated today, with what else is known of it: `seed` and `code`."""
    read(path)
    last = path.read_bytes().splitlines()[-1:] if path.exists() else []
    previous = hashlib.sha256(last[0]).hexdigest() if last else "0" * 64
    values = {
        "entry": entry,
        "action": action,
        "reason": reason,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        **more,
        "previous": previous,
    }
    made = explain(Adjudication, values, "adjudication")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as f:
        f.write(made.model_dump_json(exclude_none=True).encode() + b"\n")
    return made


def verify(bundle: Bundle, seed: int, out: Path) -> tuple[Action, str, str]:
    """Run a seed again, below `out`. Return (verified or disputed, the reason in words, the commit).

    It runs the submission's own method, untrusted code where it does not ship: read it first. On the same kind of CPU
    and thread count the rows have to be the same, bit for bit. Elsewhere rounding makes it another draw: each ranked
    number has to lie where one more seed would be expected, in the 95 % prediction interval of the submitted seeds.
    """
    run = next((run for run in bundle.runs if run.seed == seed), None)
    if run is None:
        seeds = ", ".join(str(run.seed) for run in bundle.runs)
        raise ValueError(f"no seed {seed} in this submission: its seeds are {seeds}")
    refuse_other_model(run.config.model, run.fingerprint.model)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in bundle.code().items():
            copy = Path(folder) / f"{name}.py"
            copy.write_bytes(text)
            REGISTRIES["methods"].recall(name, bundle.submission.code[f"methods/{name}"], copy)
        again = start(run.config, run.spec, out)
    machine = environment(run.config.threads)
    action, reason = judge(bundle, run, again)
    return action, f"seed {seed} run again on {machine['cpu']}: {reason}", machine["code"]


def judge(bundle: Bundle, run: Run, again: Run) -> tuple[Action, str]:
    """Compare a submitted run with the same seed run again. Return (verified or disputed, the reason in words).

    Raises ValueError where they differ and nothing tells by how much they may.
    """
    theirs, ours = run.source.rows("evals"), again.source.rows("evals")
    # rows of older runs have fewer columns
    differing = sum({key: new[key] for key in old if key in new} != old for old, new in zip(theirs, ours, strict=True))
    if not differing:
        return "verified", f"all {len(ours)} evaluation rows are the same, bit for bit"
    differ = f"{differing} of {len(ours)} evaluation rows differ"
    if (n := len(bundle.runs)) < 2:
        raise ValueError(f"{differ}, and one seed gives no interval to judge another draw by")
    found, inside = [differ], []
    for column in (column for column in COLUMNS if column.ranked):
        submitted, value = t_interval([column.of(other) for other in bundle.runs]), column.of(again)
        # from t s / sqrt(n), of the mean, to t s sqrt(1 + 1 / n), of one more seed
        half = submitted.half * math.sqrt(n + 1)
        low, high = submitted.value - half, submitted.value + half
        inside.append(low <= value <= high)
        found.append(f"{column.label} {value:.3f}, one more seed is expected in {low:.3f} to {high:.3f}")
    return "verified" if all(inside) else "disputed", "; ".join(found)
