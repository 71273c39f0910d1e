"""A run, read: the one reader of what it recorded, in a directory, in a submission or in committed Parquet files."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from pydantic import BaseModel

from fst_bench.core.errors import explain
from fst_bench.harness.config import refuse_renamed
from fst_bench.harness.rows import ROWS, PopulationRow, Row, StageRow
from fst_bench.metrics import area, seen_so_far

IDENTITY = {
    "stream": str,
    "stream_version": int,
    "method": str,
    "preset": str,
    "seed": int,
    "model": str,
    "stages": list,
    "config": dict,
}
"""Key of config.json -> its type, of those that every reader relies on."""


class Source(Protocol):
    """Where a run's files come from."""

    @property
    def path(self) -> Path:
        """Return the run's place, by which messages name it."""
        ...

    @property
    def finished(self) -> bool:
        """Return whether the run has ended."""
        ...

    def read(self, name: str) -> dict[str, Any]:
        """Return a JSON file of the run by its stem. Raises ValueError in one line where it is missing or broken."""
        ...

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the records of a file by its stem, such as evals or probes/ood; none where it does not exist."""
        ...

    def broken(self) -> list[str]:
        """Return the files that were changed since the run ended; none where the source keeps rows only."""
        ...


class Fingerprint(BaseModel):
    """What a run's weights began as, by content; nothing in a run of an older fst-bench."""

    model: dict[str, str] = {}
    """See `fst_bench.policy.models.fingerprint`."""
    init: str | None = None
    """sha256 of the weights of the setting `init`."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run by what it recorded. Each object is a key of its own, so that what is computed from runs can be cached.

    A run that has not ended has its rows so far; `metrics` and `ledger` raise ValueError.
    """

    source: Source
    label: str | None = None
    """The name that tables show instead of the method's."""

    @property
    def path(self) -> Path:
        return self.source.path

    @property
    def finished(self) -> bool:
        return self.source.finished

    @cached_property
    def saved(self) -> dict[str, Any]:
        """The whole of config.json. Raises ValueError where it is not a run's, or has settings of fst-bench 0.1."""
        saved = self.source.read("config")
        for key, kind in IDENTITY.items():
            if not isinstance(saved.get(key), kind):
                raise ValueError(f"{self.path} is not a run: config.json has no {key}")
        refuse_renamed(saved["config"], str(self.path))
        return saved

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The identity of the model and of the weights that the run began with."""
        return explain(Fingerprint, self.saved.get("fingerprint", {}), f"{self.path}: config.json: fingerprint")

    @cached_property
    def env(self) -> dict[str, Any]:
        """The versions and the machine that the run had (env.json)."""
        return self.source.read("env")

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The summary of a finished run (metrics.json, see `fst_bench.metrics.summarise`)."""
        return self.source.read("metrics")

    @cached_property
    def ledger(self) -> dict[str, Any]:
        """The expenses of a finished run (ledger.json, see `fst_bench.method.ledger`)."""
        return self.source.read("ledger")

    @property
    def method(self) -> str:
        """The label, or the method's name."""
        return self.label or self.saved["method"]

    @property
    def seed(self) -> int:
        return self.saved["seed"]

    @cached_property
    def stages(self) -> list[StageRow]:
        """The stages of the run's stream, in order."""
        return [explain(StageRow, stage, f"{self.path}: config.json: stages") for stage in self.saved["stages"]]

    def typed(self, name: str) -> list[Row]:
        """Return the records of a file as typed rows. Raises ValueError that names the first row which is not one."""
        rows = enumerate(self.source.rows(name), 1)
        return [explain(ROWS[name], row, f"{self.path}: {name}.jsonl row {i}") for i, row in rows]

    @cached_property
    def evals(self) -> pd.DataFrame:
        """One row per (evaluation, task, prompt mode): the columns of `EvaluationRow`, and method and seed."""
        return self.frame("evals")

    @cached_property
    def so_far(self) -> float:
        """The own prompt's accuracy on the tasks whose stage has begun, mean over the stream's problems."""
        return area(seen_so_far(self.evals.to_dict("records"), [stage.model_dump() for stage in self.stages]))

    @cached_property
    def steps(self) -> pd.DataFrame:
        """The training steps: the columns of `StepRow`, what the method returned, and method and seed."""
        return self.frame("events")

    @cached_property
    def populations(self) -> list[PopulationRow]:
        """The population after each round of prompt evolution; none for a method that evolves none."""
        return [row for row in self.typed("prompts") if isinstance(row, PopulationRow)]

    def frame(self, name: str) -> pd.DataFrame:
        """Return typed records as a table; with the columns of their model where none exist."""
        rows = [row.model_dump() for row in self.typed(name)]
        table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(ROWS[name].model_fields))
        return table.assign(method=self.method, seed=self.seed)

    def probe(self, kind: str) -> pd.DataFrame:
        """Return the rows of a probe, each with its key as columns; none where it was not run."""
        rows = [row["key"] | {k: v for k, v in row.items() if k != "key"} for row in self.source.rows(f"probes/{kind}")]
        return pd.DataFrame(rows).assign(method=self.method, seed=self.seed)


def sound(run: Run) -> Run:
    """Return a run itself. Raises ValueError where a finished one is not as one process left it."""
    if run.finished:
        if broken := run.source.broken():
            raise ValueError(f"{run.path} was changed since the run: {', '.join(broken)}")
        for complaint in disorder(run):
            raise ValueError(f"{run.path}: {complaint}: see fst-bench validate run")
    return run


def disorder(run: Run) -> Iterator[str]:
    """Yield the first row of steps, and of evaluations, that is out of order, as where two processes wrote a run.

    Rows are not typed for it: that takes ten times as long, and is done where they are used.
    """
    events, evals = ([row for row in run.source.rows(name) if isinstance(row, dict)] for name in ("events", "evals"))
    problems, end = 0, max((stage.end for stage in run.stages), default=0)
    for number, row in enumerate(events, 1):
        step, at = row.get("step"), row.get("problems")
        if step != number or not isinstance(at, int) or not problems < at <= end:
            yield f"events.jsonl row {number} is of step {step} at {at} of {end} problems"
            break
        problems = at
    else:
        if events and problems < end:
            yield f"events.jsonl ends at {problems} of {end} problems"
    problems, seen = 0, set[str]()
    for number, row in enumerate(evals, 1):
        cell, at = ", ".join(str(row.get(key)) for key in ("step", "task", "prompt_mode")), row.get("problems")
        if cell in seen or not isinstance(at, int) or not problems <= at <= end:
            yield f"evals.jsonl row {number} is out of order or there twice: step {cell}"
            break
        problems = at
        seen.add(cell)
