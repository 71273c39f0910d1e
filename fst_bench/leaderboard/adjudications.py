"""What maintainers decided about submissions: a file that is only appended to, each line with a reason.

A line names the one before it by its hash, so that a line that was edited or dropped later is found. What a submission's file says is never changed: it is
verified or disputed by running one of its seeds again, removed, restored, or scored again where a verifier was mended.
"""

import hashlib
import json
import math
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fst_bench.analysis import interval
from fst_bench.core.errors import explain
from fst_bench.harness.config import REGISTRIES
from fst_bench.harness.environment import environment
from fst_bench.harness.loop import start
from fst_bench.leaderboard.bundle import Bundle, Submitted
from fst_bench.leaderboard.standings import COLUMNS

DECISIONS = "adjudications.jsonl"
"""In the board's folder."""
Action = Literal["verified", "disputed", "removed", "restored", "rescored"]


class Adjudication(BaseModel):
    """One line of adjudications.jsonl."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    entry: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """sha256 of the submission's file."""
    action: Action
    reason: Annotated[str, Field(min_length=1, max_length=2_000)]
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    """UTC."""
    seed: int | None = None
    """The one that was run again."""
    code: str | None = None
    """The commit it was run with."""
    previous: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """sha256 of the line before; zeros in the first one."""


def read(path: Path) -> list[Adjudication]:
    """Every decision, oldest first; none where there is no file. ValueError names the line that is not what was appended."""
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
                f"{path} line {number} does not follow the line before it: decisions are appended, never edited or dropped"
            )
        found.append(made)
        previous = hashlib.sha256(line).hexdigest()
    return found


def append(path: Path, entry: str, action: Action, reason: str, **facts: Any) -> Adjudication:
    """Add a decision, dated today."""
    read(path)
    last = path.read_bytes().splitlines()[-1:] if path.exists() else []
    previous = hashlib.sha256(last[0]).hexdigest() if last else "0" * 64
    values = {
        "entry": entry,
        "action": action,
        "reason": reason,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        **facts,
        "previous": previous,
    }
    made = explain(Adjudication, values, "adjudication")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as f:
        f.write(made.model_dump_json(exclude_none=True).encode() + b"\n")
    return made


def verify(bundle: Bundle, seed: int, out: Path) -> tuple[Action, str, str]:
    """(verified or disputed, the reason in words, the commit): what came out when a seed was run again, below `out`.

    It runs the submission's own method, a stranger's code where it does not ship: read it first. On the same kind of CPU and thread count
    the rows have to be the same, bit for bit. Elsewhere rounding makes it another draw, and each ranked number has to lie where one more seed
    would be expected: in the 95 % prediction interval of the submitted seeds.
    """
    run = next((run for run in bundle.runs if run.seed == seed), None)
    if run is None:
        raise ValueError(
            f"no seed {seed} in this submission: there are {', '.join(str(run.seed) for run in bundle.runs)}"
        )
    with tempfile.TemporaryDirectory() as folder:
        for name, text in bundle.code().items():
            copy = Path(folder) / f"{name}.py"
            copy.write_bytes(text)
            REGISTRIES["methods"].recall(name, bundle.submission.code[f"methods/{name}"], copy)
        made = start(run.config, run.spec, out)
    found = environment(run.config.threads)
    action, reason = judge(bundle, run, made.source.rows("evals"), made.metrics)
    return action, f"seed {seed} run again on {found['cpu']}: {reason}", found["code"]


def judge(bundle: Bundle, run: Submitted, rows: list[dict[str, Any]], metrics: dict[str, Any]) -> tuple[Action, str]:
    """What a run's new rows and metrics say of the submitted ones. ValueError where they differ and nothing says by how much they may."""
    shared = [{key: row[key] for key in theirs if key in row} for row, theirs in zip(rows, run.evals, strict=True)]
    differing = [
        number for number, (ours, theirs) in enumerate(zip(shared, run.evals, strict=True), 1) if ours != theirs
    ]
    if not differing:
        return "verified", f"all {len(rows)} evaluation rows are the same, bit for bit"
    if len(bundle.runs) < 2:
        raise ValueError(
            f"{len(differing)} of {len(rows)} evaluation rows differ, and one seed gives no interval to judge another draw by"
        )
    again = replace(run.finished(), metrics=metrics, rows=rows)
    said, inside = [], []
    for column in (c for c in COLUMNS if c.ranked):
        mean, half = interval([column.of(other.finished()) for other in bundle.runs])
        width, value = (
            half * math.sqrt(len(bundle.runs) + 1),
            column.of(again),
        )  # of a prediction: t * s * sqrt(1 + 1/n)
        inside.append(abs(value - mean) <= width)
        said.append(
            f"{column.label} {value:.3f}, one more seed is expected in {mean - width:.3f} to {mean + width:.3f}"
        )
    return "verified" if all(
        inside
    ) else "disputed", f"{len(differing)} of {len(rows)} evaluation rows differ; {'; '.join(said)}"
