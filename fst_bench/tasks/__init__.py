"""The tasks: procedural problems, each with a verifier whose feedback would teach a reader.

Use:
    task = load_task("star-graph", degree=4, path_length=4, pool=20)
    problem = task.problems("train", seed=0, n=1)[0]
    task.verify(problem, text).reward
"""

from typing import Any

from fst_bench.core.errors import explain
from fst_bench.core.registry import Registry
from fst_bench.core.types import Problem, Score
from fst_bench.tasks.base import Difficulty, Task
from fst_bench.tasks.codeio import Codeio
from fst_bench.tasks.hover import Hover
from fst_bench.tasks.hover_search import HoverSearch
from fst_bench.tasks.math import Math
from fst_bench.tasks.physics import Physics
from fst_bench.tasks.reasoning_gym import FAMILY, find_set
from fst_bench.tasks.star_graph import StarGraph

TASKS: dict[str, type[Task]] = {task.name: task for task in (Math, Codeio, Hover, StarGraph, Physics, HoverSearch)}
"""The shipped tasks by name."""


def unsound(task: type[Task]) -> str | None:
    """Return the defect of a task that does not ship, or None, before any problem is drawn.

    `fst-bench validate tasks` checks its problems.
    """
    if not (isinstance(getattr(task, "Difficulty", None), type) and issubclass(task.Difficulty, Difficulty)):
        return f"{task.__name__}.Difficulty has to be a class over fst_bench.tasks.Difficulty"
    lacking = [name for name in ("protocol", "hint") if not isinstance(getattr(task, name, None), str)]
    levels = getattr(task, "levels", None)
    if not isinstance(levels, list) or len(levels) < 2:
        lacking.append("levels (two difficulties or more)")
    return f"{task.__name__} lacks {', '.join(lacking)}" if lacking else None


TASK_REGISTRY: Registry[Task] = Registry("task", Task, TASKS, unsound, {FAMILY: find_set})
find_task = TASK_REGISTRY.find

__all__ = ["TASKS", "TASK_REGISTRY", "Difficulty", "Problem", "Score", "Task", "find_task", "load_task"]


def load_task(name: str, **difficulty: Any) -> Task:
    """Return a task by its name or .py file, at a difficulty.

    Raise ValueError for an unknown task, and for a difficulty parameter that is unknown or out of range.
    """
    task = find_task(name)
    return task(explain(task.Difficulty, difficulty, f"difficulty of {name}"))
