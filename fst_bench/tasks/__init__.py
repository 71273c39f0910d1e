"""The tasks: procedural problems, each with a verifier whose feedback would teach a reader.

Use:
    task = load_task("star-graph", degree=4, path_length=4, pool=20)
    problem = task.problems("train", seed=0, n=1)[0]
    task.verify(problem, text).reward
"""

from typing import Any

from fst_bench.errors import explain, unknown

from .base import Difficulty, Problem, Task, Verdict
from .codeio import Codeio
from .hover import Hover
from .hover_search import HoverSearch
from .math import Math
from .physics import Physics
from .star_graph import StarGraph

TASKS: dict[str, type[Task]] = {task.name: task for task in (Math, Codeio, Hover, StarGraph, Physics, HoverSearch)}

__all__ = ["TASKS", "Difficulty", "Problem", "Task", "Verdict", "load_task"]


def load_task(name: str, **difficulty: Any) -> Task:
    """A task at a difficulty. ValueError names an unknown task, an unknown knob or a knob out of range."""
    if name not in TASKS:
        raise ValueError(unknown("task", name, TASKS))
    task = TASKS[name]
    return task(explain(task.Difficulty, difficulty, f"difficulty of {name}"))
