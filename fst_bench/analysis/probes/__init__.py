"""Probes: further measurements of a finished run, from its checkpoints. Rows go into RUN/probes/.

A probe lists its work; each piece has a key and becomes one row. What has a row already is not done again, so a probe
that was stopped continues by the same command. Nothing in the run itself is changed.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fst_bench.analysis.probes.channels import channels
from fst_bench.analysis.probes.diagnostics import diagnostics
from fst_bench.analysis.probes.drift import drift
from fst_bench.analysis.probes.forgetting import forgetting
from fst_bench.analysis.probes.ood import ood
from fst_bench.analysis.probes.opened import Opened, Work
from fst_bench.analysis.probes.plasticity import plasticity
from fst_bench.core.errors import unknown
from fst_bench.harness.store import records

PROBES: dict[str, Callable[..., list[Work]]] = {
    "drift": drift,
    "channels": channels,
    "ood": ood,
    "plasticity": plasticity,
    "forgetting": forgetting,
    "diagnostics": diagnostics,
}


def probe(
    name: str, run: str | Path, tell: Callable[[str], None] = lambda line: None, **options: Any
) -> list[dict[str, Any]]:
    """Run a probe of a finished run; return its rows, those already there included.

    `tell` is called with a line a row. Raises ValueError for an unknown probe, a run that is not finished or not sound,
    and one that another process works on.
    """
    if name not in PROBES:
        raise ValueError(unknown("probe", name, PROBES))
    opened = Opened(Path(run))
    with opened.store.held():
        return measured(name, opened, tell, options)


def measured(name: str, opened: Opened, tell: Callable[[str], None], options: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a probe's rows, those that are not there yet measured and written."""
    path = opened.path / "probes" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    drop_torn_line(path)
    there = {key_of(row["key"]): row for row in records(path)}
    rows = []
    for key, measure in PROBES[name](opened, **options):
        if key_of(key) not in there:
            row = {"key": key} | measure()
            with path.open("a") as f:
                f.write(json.dumps(row) + "\n")
            there[key_of(key)] = row
        rows.append(there[key_of(key)])
        shown = {k: v for k, v in (key | there[key_of(key)]).items() if k != "key" and not isinstance(v, list)}
        tell("  ".join(f"{k} {round(v, 4) if isinstance(v, float) else v}" for k, v in shown.items()))
    return rows


def drop_torn_line(path: Path) -> None:
    """Cut off what a kill left half written: it is measured again."""
    if path.exists() and (whole := path.read_bytes().rfind(b"\n") + 1) < path.stat().st_size:
        os.truncate(path, whole)


def key_of(key: dict[str, Any]) -> str:
    """Return a row's key as text, to compare by."""
    return json.dumps(key, sort_keys=True)
