"""What the weights alone do elsewhere: other tasks and other difficulties, no prompt, base against trained."""

from functools import partial
from typing import Any

from fst_bench.analysis.probes.opened import Opened, Work
from fst_bench.tasks import Task
from fst_bench.tasks.data import task_from, tasks_in


def ood(run: Opened, n: int = 192) -> list[Work]:
    """At the stream's end: tasks the stream does not hold, at the preset's difficulty, and its own at their ladders' other rungs.

    A rung whose problems leave the model no room for an answer is left out.
    """
    own = {task.name: task for task in run.stream.held_out().values()}
    cases = [(name, run.config.difficulty.get(name, {})) for name in tasks_in(run.config.data) if name not in own]
    cases += [
        (name, rung)
        for name, task in own.items()
        for rung in task.levels
        if task_from(run.config.data, name, rung).difficulty != task.difficulty
    ]
    work: list[Work] = []
    for name, knobs in cases:
        task = task_from(run.config.data, name, knobs)
        if fits(run, task, n):
            work += [
                (
                    {"task": name, "difficulty": knobs, "weights": weights, "n": n},
                    partial(measure, run, task, weights, n),
                )
                for weights in ("base", "trained")
            ]
    return work


def fits(run: Opened, task: Task, n: int) -> bool:
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
