"""Real data: the tasks math, codeio, hover and physics with their problems taken from a data set's rows.

The setting `data` says where a stream's problems come from: `procedural`; `hub`, the data sets by their hub ids; or a
folder with one file for each task that is needed:

    math      polaris.jsonl, .parquet or .csv     problem, answer, difficulty
    codeio    codeio.jsonl                        refcode, funcname, io_requirements, ios
    hover     hover.jsonl, .parquet or .csv       claim, supporting_facts, label, num_hops
    physics   physics.jsonl, .parquet or .csv     question, choices, answer

star-graph and hover-search are always procedural. Physics has no hub default: the paper does not name the set it used,
and a procedural stand-in in a run on real data would mislead, so `hub` refuses it.

Columns and definitions are in each task's file here; `base.py` defines how rows become splits. The difficulty
parameters differ from those of procedural problems; what a preset or stream sets for procedural ones does not apply
(see `harness.config.resolve`).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fst_bench.core.errors import explain
from fst_bench.tasks import TASKS, Task, load_task
from fst_bench.tasks.data.base import HUB, FromRows, files, load, locate
from fst_bench.tasks.data.codeio import CodeioRows
from fst_bench.tasks.data.hover import HoverRows
from fst_bench.tasks.data.physics import PhysicsRows
from fst_bench.tasks.data.polaris import Polaris

PROCEDURAL = "procedural"
DATA: dict[str, type[FromRows]] = {task.name: task for task in (Polaris, CodeioRows, HoverRows, PhysicsRows)}
"""The tasks whose problems a data set can replace, by name."""

__all__ = [
    "DATA",
    "HUB",
    "PROCEDURAL",
    "FromRows",
    "check_source",
    "expect",
    "load",
    "refuse_other",
    "task_from",
    "tasks_in",
]


def task_from(data: str, name: str, difficulty: Mapping[str, Any]) -> Task:
    """Return a task at a difficulty, its problems from `data`.

    Raise ValueError in one line for unknown names and parameters, and for missing data.
    """
    if data == PROCEDURAL or name not in DATA:
        return load_task(name, **difficulty)
    return DATA[name](check_difficulty(data, name, difficulty), load(DATA[name], data))


def expect(data: str, tasks: Iterable[str]) -> None:
    """Raise ValueError in one line where `data` has nothing for one of the tasks: before the first of them is read."""
    for name in tasks:
        if data != PROCEDURAL and name in DATA:
            locate(DATA[name], data)


def check_difficulty(data: str, name: str, difficulty: Mapping[str, Any]) -> Any:
    """Return the typed difficulty parameters of a task, before any row is read.

    Raise ValueError as `task_from` does.
    """
    if data == PROCEDURAL or name not in DATA:
        return load_task(name, **difficulty).difficulty
    return explain(DATA[name].Difficulty, difficulty, f"difficulty of {name} with data")


def check_source(data: str) -> str:
    """Return `data` itself. Raise ValueError where it names no source of problems."""
    if data not in (PROCEDURAL, HUB) and not Path(data).is_dir():
        raise ValueError(f"{data!r} is not a folder, and neither procedural nor hub")
    return data


def tasks_in(data: str) -> list[str]:
    """Return the tasks that `data` has problems for."""
    return [
        name
        for name in TASKS
        if data == PROCEDURAL or name not in DATA or (DATA[name].hub if data == HUB else files(DATA[name], data))
    ]


def refuse_other(data: str, tasks: Iterable[str], recorded: Mapping[str, Any]) -> None:
    """Raise ValueError where the rows are not those that a run recorded when it began: its numbers would differ."""
    for name in dict.fromkeys(tasks):
        if data != PROCEDURAL and name in DATA:
            now, then = load(DATA[name], data).facts, recorded.get(name, {})
            if now["fingerprint"] != then.get("fingerprint"):
                raise ValueError(
                    f"the run was begun on other data: {then.get('source')} gave {then.get('kept')} problems of {name} "
                    f"with fingerprint {str(then.get('fingerprint'))[:12]}, "
                    f"now {now['source']} gives {now['kept']} with {now['fingerprint'][:12]}"
                )
