"""How well the weights still learn: a fresh RL pass on a task the stream does not hold, from each stage's end and from the base."""

from functools import partial
from typing import Any

from fst_bench import bench
from fst_bench.errors import unknown
from fst_bench.stream import load_spec
from fst_bench.tasks import TASKS

from .opened import Opened, Work


def plasticity(run: Opened, task: str, problems: int = 400) -> list[Work]:
    """The method `rl` under the seed prompt, a fresh optimizer, the same problems for every start. Each pass is a run of its own
    in RUN/probes/plasticity. ValueError where the stream holds the task, or nobody knows it.
    """
    if task not in TASKS:
        raise ValueError(unknown("task", task, TASKS))
    if task in run.stream.spec.tasks:
        raise ValueError(f"the stream holds {task}: plasticity wants one of {', '.join(t for t in TASKS if t not in run.stream.spec.tasks)}")
    starts: list[tuple[int, str | None]] = [(0, None)]
    starts += [(stage, str(run.store.at(step))) for stage, step in run.ends.items()]
    return [({"task": task, "stage": stage, "problems": problems}, partial(measure, run, task, stage, init, problems)) for stage, init in starts]


def measure(run: Opened, task: str, stage: int, init: str | None, problems: int) -> dict[str, Any]:
    folder = run.path / "probes" / "plasticity" / f"{task}-{problems}-from-stage-{stage}"
    begun = sorted(path.parent for path in folder.rglob("config.json"))
    if begun:
        done = bench.resume(begun[0])
    else:
        own: dict[str, Any] = {"stream": f"single-{task}", "method": "rl", "settings": {}, "code": {}, "init": init, "stage_problems": problems}
        own["difficulty"] = {name: knobs for name, knobs in run.config.difficulty.items() if name in TASKS}
        done = bench.start(run.config.model_copy(update=own), load_spec(f"single-{task}"), folder)
    rows = done.evals[done.evals.prompt_mode == "system"]
    x, y = rows.problems.to_numpy(float), rows.accuracy.to_numpy(float)
    area = float(((y[1:] + y[:-1]) / 2 * (x[1:] - x[:-1])).sum() / (x[-1] - x[0]))
    return {"start": float(y[0]), "final": float(y[-1]), "area": area, "run": str(done.path.relative_to(run.path))}
