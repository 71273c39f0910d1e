"""Committed runs: the rows of one stream as typed Parquet, one file a kind.

    results/<stream>@<version>/
      runs.parquet           a row a run: its id, and config, env, metrics and ledger as JSON texts
      evals.parquet          the evaluation rows of all runs, with the run's id
      events.parquet         training steps; a column that a method's `step` did not return is null
      prompts.parquet        populations, nested
      probes-KIND.parquet    rows of a probe, its key as a JSON text

Answers and rollouts are not committed: they are in the submissions. Parquet holds whole characters only: half of one (a
lone surrogate) becomes its escape, as in "\\ud800".
"""

import json
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fst_bench.harness.rows import ROWS
from fst_bench.harness.run import Run, sound

PARTS = ("config", "env", "metrics", "ledger")
"""JSON files of a run that a collection keeps."""
RECORDS = ("evals", "events", "prompts")
"""Record files of a run that a collection keeps."""


@dataclass(frozen=True)
class CollectedRun:
    """A `Source` of one run in a collection."""

    collection: "Collection"
    id: str

    @property
    def path(self) -> Path:
        return self.collection.path / self.id

    @property
    def finished(self) -> bool:
        return True

    def read(self, name: str) -> dict[str, Any]:
        if name not in PARTS:
            raise ValueError(f"{self.path} has no {name}.json: a collection keeps {', '.join(PARTS)}")
        found: dict[str, Any] = json.loads(self.collection.rows("runs")[self.id][0][name])
        return found

    def broken(self) -> list[str]:
        return []

    def rows(self, name: str) -> list[dict[str, Any]]:
        rows = self.collection.rows(name.replace("/", "-")).get(self.id, [])
        if name.startswith("probes/"):
            return [present(row) | {"key": json.loads(row["key"])} for row in rows]
        return [present(row, ROWS[name].model_fields if name in ROWS else ()) for row in rows]


@dataclass(frozen=True)
class Collection:
    """The committed runs of one stream."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> "Collection | None":
        """Return the collection in a folder; None where the folder holds none."""
        return cls(path) if (path / "runs.parquet").is_file() else None

    def rows(self, kind: str) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of a kind by the run's id; empty where none were collected."""
        return read(self.path / f"{kind}.parquet")

    def runs(self) -> list[Run]:
        """Return every run, in the order of the file."""
        return [Run(CollectedRun(self, id)) for id in self.rows("runs")]


def present(row: dict[str, Any], columns: Container[str] = ()) -> dict[str, Any]:
    """Return a row without the nulls of columns that other rows have; those of `columns` are its own."""
    return {key: value for key, value in row.items() if value is not None or key in columns}


@cache
def read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a Parquet file by their run; empty where the file does not exist."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(path).to_pylist() if path.is_file() else []:
        found.setdefault(row.pop("run_id"), []).append(row)
    return found


def collect(runs: Sequence[tuple[str, Run]], out: Path, probes: Iterable[str] = ()) -> None:
    """Write runs, each with its id, as the collection of their stream. Raises ValueError for one that is not sound."""
    for _, run in runs:
        sound(run)
    out.mkdir(parents=True, exist_ok=True)
    heads = [{"run_id": id} | {part: json.dumps(run.source.read(part)) for part in PARTS} for id, run in runs]
    write(out, "runs", heads)
    for kind in RECORDS:
        write(out, kind, [{"run_id": id} | row.model_dump(mode="json") for id, run in runs for row in run.typed(kind)])
    for name in probes:
        rows = [(id, row) for id, run in runs for row in run.source.rows(f"probes/{name}")]
        write(out, f"probes-{name}", [{"run_id": id} | row | {"key": json.dumps(row["key"])} for id, row in rows])


def write(out: Path, kind: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of a kind; a key that a row lacks is null there."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    if rows:
        table = pa.Table.from_pylist([{key: whole(row.get(key)) for key in keys} for row in rows])
        pq.write_table(table, out / f"{kind}.parquet", compression="zstd")
        read.cache_clear()


def whole(value: Any) -> Any:
    """Return a JSON value with whole characters only."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    return value
