"""The tasks: procedural problems, each with a verifier whose feedback would teach a reader.

Use:
    task = load_task("star-graph", degree=4, path_length=4, pool=20)
    problem = task.problems("train", seed=0, n=1)[0]
    task.verify(problem, text).reward
"""

from typing import Any

from fst_bench.errors import explain
from fst_bench.plugins import Shelf

from .base import Difficulty, Problem, Task, Verdict
from .codeio import Codeio
from .hover import Hover
from .hover_search import HoverSearch
from .math import Math
from .physics import Physics
from .star_graph import StarGraph

TASKS: dict[str, type[Task]] = {task.name: task for task in (Math, Codeio, Hover, StarGraph, Physics, HoverSearch)}
"""The shipped ones."""


def unsound(task: type[Task]) -> str | None:
    """What a task that does not ship lacks, before any problem is drawn; `fst-bench validate tasks` looks at its problems."""
    if not (isinstance(getattr(task, "Difficulty", None), type) and issubclass(task.Difficulty, Difficulty)):
        return f"{task.__name__}.Difficulty has to be a class over fst_bench.tasks.Difficulty"
    lacking = [name for name in ("protocol", "hint") if not isinstance(getattr(task, name, None), str)]
    lacking += [] if isinstance(ladder := getattr(task, "ladder", None), list) and len(ladder) >= 2 else ["ladder (two difficulties or more)"]
    return f"{task.__name__} lacks {', '.join(lacking)}" if lacking else None


SHELF: Shelf[Task] = Shelf("task", Task, TASKS, unsound)
find_task = SHELF.find

__all__ = ["SHELF", "TASKS", "Difficulty", "Problem", "Task", "Verdict", "find_task", "load_task"]


def load_task(name: str, **difficulty: Any) -> Task:
    """A task by its name or .py file, at a difficulty. ValueError names an unknown task, an unknown knob or a knob out of range."""
    task = find_task(name)
    return task(explain(task.Difficulty, difficulty, f"difficulty of {name}"))
