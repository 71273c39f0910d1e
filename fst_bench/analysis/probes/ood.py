"""The weights on other tasks and at other difficulties, without a prompt: base against trained."""

from functools import partial
from typing import Any

from fst_bench.analysis.probes.opened import Opened, Work
from fst_bench.tasks import Task
from fst_bench.tasks.data import task_from, tasks_in


def ood(run: Opened, n: int = 192) -> list[Work]:
    """Return the work, at the stream's end: tasks that the stream does not hold, and its own at other difficulties.

    The former are at the preset's difficulty, the latter at each of the task's other levels. A level whose problems
    leave the model no room for an answer is left out.
    """
    own = {task.name: task for task in run.stream.held_out().values()}
    cases = [(name, run.config.difficulty.get(name, {})) for name in tasks_in(run.config.data) if name not in own]
    cases += [
        (name, level)
        for name, task in own.items()
        for level in task.levels
        if task_from(run.config.data, name, level).difficulty != task.difficulty
    ]
    work: list[Work] = []
    for name, difficulty in cases:
        task = task_from(run.config.data, name, difficulty)
        if not fits(run, task, n):
            continue
        for weights in ("base", "trained"):
            key = {"task": name, "difficulty": difficulty, "weights": weights, "n": n}
            work.append((key, partial(measure, run, task, weights, n)))
    return work


def fits(run: Opened, task: Task, n: int) -> bool:
    """Return whether the model has room for an answer to the longest of the problems."""
    try:
        longest = max(task.problems("test", 0, n), key=lambda p: len(p.prompt))
        run.policy.sample([run.request("", longest.prompt)])
    except ValueError:
        return False
    return True


def measure(run: Opened, task: Task, weights: str, n: int) -> dict[str, Any]:
    run.load(max(run.ends.values()))
    _, accuracy = run.sample(task, lambda prompt: "", n, run.model(weights))
    return {"accuracy": accuracy}
