"""Transfer between the tasks of a stream: the matrix R[i, j], accuracy on task j after stage i, in five numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fst_bench.core.errors import unknown
from fst_bench.metrics.curve import floats, listed


@dataclass(frozen=True)
class Transfer:
    """Transfer between tasks, in accuracy, signed.

    None where a number needs more stages than the stream has, or references that were not given.
    """

    final: float
    """Mean over tasks of the last row."""
    anytime: float
    """Mean over stages of the mean over the tasks met until then."""
    bwt: float | None
    """Backward transfer: a task's accuracy at the stream's end minus at its own stage's end. Negative is forgetting."""
    forgetting: float | None
    """A task's best accuracy, from its own stage on and before the last, minus that at the end."""
    fwt: float | None
    """Forward transfer: a task's accuracy before its first stage minus before the stream."""
    intransigence: float | None
    """The accuracy a task reaches alone minus the one at its stage here."""


def transfer(
    R: Sequence[Mapping[str, float]] | ArrayLike,
    order: Sequence[str | int | Sequence[str | int]] | None = None,
    single: Mapping[str, float] | ArrayLike | None = None,
) -> Transfer:
    """Return the transfer numbers of a stream.

    Row i of `R` is {task: accuracy} after stage i, row 0 before learning. `order` lists each stage's task, or its
    tasks; without it the columns of row 0 are the stages' tasks. `single` are accuracies of runs on each task alone.

    A DataFrame is rows of its columns. `R` may also be an array (stages + 1, tasks), and `single` one of (tasks,): the
    columns are the tasks in the order in which `order` first names them, or tasks 0, 1, ... where it names numbers.

    A task that comes back has an entry of its own for each of its stages in bwt and forgetting; fwt and intransigence
    count its first stage only. A stage that trains several tasks counts once, with the plain mean over them, whatever
    their weights were; in fwt and intransigence over those that are new there.

    Formulas: Lopez-Paz & Ranzato 2017 (bwt, fwt), Chaudhry et al. 2018 (forgetting, intransigence). Raises ValueError
    that names a missing cell, a NaN or an unknown task.
    """
    stages = [tasks_of(stage) for stage in (() if order is None else order)]
    rows = named(R, flat(stages))
    tasks = list(rows[0]) if rows else []
    if order is None:
        stages = [[task] for task in tasks]
    alone = None if single is None else references(single, tasks)
    if not stages or len(rows) != len(stages) + 1:
        needed = f"{len(stages)} stages need {len(stages) + 1} rows"
        raise ValueError(f"{needed}, the first before learning; got {len(rows)}")
    for name in [*flat(stages), *(alone or {})]:
        if name not in tasks:
            raise ValueError(unknown("task", name, tasks))
    for i, row in enumerate(rows):
        for name in row:
            if name not in tasks:
                raise ValueError(f"row {i}: {unknown('task', name, tasks)}")
        for name in tasks:
            if name not in row:
                raise ValueError(f"no accuracy of {name} after stage {i}")
            if not math.isfinite(row[name]):
                raise ValueError(f"the accuracy of {name} after stage {i} is {row[name]}")
    last = len(stages)
    own = list(enumerate(stages, start=1))
    met = [flat(stages[:i]) for i in range(last + 1)]
    first = [(i, new) for i, stage in own if (new := [task for task in stage if task not in met[i - 1]])]
    if alone is not None:
        for task in met[last]:
            if task not in alone:
                raise ValueError(f"no single-task reference of {task}")
    return Transfer(
        final=mean([rows[last][task] for task in tasks]),
        anytime=mean([mean([rows[i][task] for task in met[i]]) for i in range(1, last + 1)]),
        bwt=optional([mean([rows[last][task] - rows[i][task] for task in stage]) for i, stage in own[:-1]]),
        forgetting=optional(
            [
                mean([max(rows[k][task] for k in range(i, last)) - rows[last][task] for task in stage])
                for i, stage in own[:-1]
            ]
        ),
        fwt=optional([mean([rows[i - 1][task] - rows[0][task] for task in new]) for i, new in first if i > 1]),
        intransigence=None
        if alone is None
        else mean([mean([alone[task] - rows[i][task] for task in new]) for i, new in first]),
    )


def tasks_of(stage: str | int | Sequence[str | int]) -> list[str]:
    """Return the names of a stage's tasks; a number is its own name."""
    return [str(stage)] if isinstance(stage, str | int | np.integer) else [str(task) for task in stage]


def named(R: Any, tasks: list[str]) -> list[dict[str, float]]:
    """Return the rows of a matrix by the names of the tasks, `tasks` where it is an array.

    Raises ValueError for an array of another width.
    """
    if hasattr(R, "to_dict"):  # a DataFrame
        R = R.to_numpy() if numbered(R.columns) else R.to_dict("records")
    if all(isinstance(row, Mapping) for row in R):
        return [dict(zip(map(str, row), floats(list(row.values()), "accuracies").tolist(), strict=True)) for row in R]
    cells = floats(R, "accuracies")
    if cells.ndim != 2:
        raise ValueError(f"an array of accuracies is (stages + 1, tasks), got {cells.shape}")
    width = cells.shape[1]
    names = [str(i) for i in range(width)] if all(task.isdigit() for task in tasks) else tasks
    if len(names) != width:
        raise ValueError(f"an array of {width} columns has {len(names)} tasks in its order: {', '.join(names)}")
    return [dict(zip(names, row, strict=True)) for row in cells.tolist()]


def references(single: Any, tasks: list[str]) -> dict[str, float]:
    """Return single-task references by task. Raises ValueError for an array that has not one for each task."""
    if hasattr(single, "to_dict") and not numbered(single.index):  # a Series
        single = single.to_dict()
    if isinstance(single, Mapping):
        return {str(task): value for task, value in single.items()}
    values = listed(single, "single-task references")
    if len(values) != len(tasks):
        raise ValueError(f"{len(tasks)} tasks have a single-task reference each, got {len(values)}")
    return dict(zip(tasks, values, strict=True))


def numbered(names: Any) -> bool:
    """Return whether what pandas calls names are the numbers that it gives by itself."""
    return all(isinstance(name, int | np.integer) for name in names)


def flat(stages: Sequence[Sequence[str]]) -> list[str]:
    """Return the tasks of some stages, each once."""
    return list(dict.fromkeys(task for stage in stages for task in stage))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def optional(values: Sequence[float]) -> float | None:
    return mean(values) if values else None
