"""Transfer between the tasks of a stream: the matrix R[i, j], accuracy on task j after stage i, in five numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fst_bench.core.errors import unknown


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
    R: Sequence[Mapping[str, float]],
    order: Sequence[str | Sequence[str]] | None = None,
    single: Mapping[str, float] | None = None,
) -> Transfer:
    """Return the transfer numbers of a stream.

    Row i of `R` is {task: accuracy} after stage i, row 0 before learning. `order` lists each stage's task, or its
    tasks; without it the columns of row 0 are the stages' tasks. `single` are accuracies of runs on each task alone.

    A task that comes back has an entry of its own for each of its stages in bwt and forgetting; fwt and intransigence
    count its first stage only. A stage that trains several tasks counts once, with the plain mean over them, whatever
    their weights were; in fwt and intransigence over those that are new there.

    Formulas: Lopez-Paz & Ranzato 2017 (bwt, fwt), Chaudhry et al. 2018 (forgetting, intransigence). Raises ValueError
    that names a missing cell, a NaN or an unknown task.
    """
    tasks = list(R[0]) if R else []
    named = tasks if order is None else order
    stages = [[stage] if isinstance(stage, str) else list(stage) for stage in named]
    if not stages or len(R) != len(stages) + 1:
        raise ValueError(f"{len(stages)} stages need {len(stages) + 1} rows, the first before learning; got {len(R)}")
    for name in flat(stages):
        if name not in tasks:
            raise ValueError(unknown("task", name, tasks))
    for name in single or {}:
        if name not in tasks:
            raise ValueError(unknown("task", name, tasks))
    for i, row in enumerate(R):
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
    if single is not None:
        for task in met[last]:
            if task not in single:
                raise ValueError(f"no single-task reference of {task}")
    return Transfer(
        final=mean([R[last][task] for task in tasks]),
        anytime=mean([mean([R[i][task] for task in met[i]]) for i in range(1, last + 1)]),
        bwt=optional([mean([R[last][task] - R[i][task] for task in stage]) for i, stage in own[:-1]]),
        forgetting=optional(
            [mean([max(R[k][task] for k in range(i, last)) - R[last][task] for task in stage]) for i, stage in own[:-1]]
        ),
        fwt=optional([mean([R[i - 1][task] - R[0][task] for task in new]) for i, new in first if i > 1]),
        intransigence=None
        if single is None
        else mean([mean([single[task] - R[i][task] for task in new]) for i, new in first]),
    )


def flat(stages: Sequence[Sequence[str]]) -> list[str]:
    """Return the tasks of some stages, each once."""
    return list(dict.fromkeys(task for stage in stages for task in stage))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def optional(values: Sequence[float]) -> float | None:
    return mean(values) if values else None
