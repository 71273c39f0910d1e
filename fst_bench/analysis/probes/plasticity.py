"""Plasticity, how well the weights still learn: a fresh RL pass on a task that the stream does not hold.

It begins from the base, and from the weights at each stage's end.
"""

from functools import partial
from typing import Any

from fst_bench.analysis.probes.opened import Opened, Work
from fst_bench.harness import loop
from fst_bench.harness.config import code_of
from fst_bench.method.settings import ReflectionSettings
from fst_bench.tasks import TASKS, find_task
from fst_bench.tasks.stream import StageSpec, StreamSpec, load_spec, stream_files


def plasticity(run: Opened, task: str, problems: int = 400) -> list[Work]:
    """Return the work: a pass from the base, and one from each stage's end.

    A pass is the method `rl` under the seed prompt, with a fresh optimizer and the same problems for every start; it is
    a run of its own in RUN/probes/plasticity. `task` is a name or a file. Raises ValueError where the stream holds the
    task, or nobody knows it.
    """
    task = find_task(task).name
    if task in run.stream.spec.tasks:
        others = ", ".join(name for name in TASKS if name not in run.stream.spec.tasks)
        raise ValueError(f"the stream holds {task}: plasticity requires one of {others}")
    starts: list[tuple[int, str | None]] = [(0, None)]
    starts += [(stage, str(run.store.at(step).absolute())) for stage, step in run.ends.items()]
    return [
        ({"task": task, "stage": stage, "problems": problems}, partial(measure, run, task, stage, init, problems))
        for stage, init in starts
    ]


def alone(name: str, task: str) -> StreamSpec:
    """Return the stream of one task, for one that does not ship."""
    return StreamSpec(name=name, version=1, description=f"{task} alone.", stages=[StageSpec(task=task, problems=400)])


def measure(run: Opened, task: str, stage: int, init: str | None, problems: int) -> dict[str, Any]:
    plain = task.replace("/", "-")
    folder = run.path / "probes" / "plasticity" / f"{plain}-{problems}-from-stage-{stage}"
    begun = sorted(path.parent for path in folder.rglob("config.json"))
    if begun:
        done = loop.resume(begun[0])
    else:
        name = f"single-{plain}"
        spec = load_spec(name) if name in stream_files() else alone(name, task)
        own: dict[str, Any] = {"stream": name, "method": "rl", "settings": {}, "init": init, "stage_problems": problems}
        own["code"] = code_of(name, spec, "rl")
        # rl does not reflect: a served reflector, and with it its key, is not needed
        own["fast"] = run.config.fast.model_copy(update={"reflector": "extractive", "reflection": ReflectionSettings()})
        own["difficulty"] = {k: v for k, v in run.config.difficulty.items() if k in TASKS or k == task}
        done = loop.start(run.config.model_copy(update=own), spec, folder)
    rows = done.evals[done.evals.prompt_mode == "system"]
    x, y = rows.problems.to_numpy(float), rows.accuracy.to_numpy(float)
    area = float(((y[1:] + y[:-1]) / 2 * (x[1:] - x[:-1])).sum() / (x[-1] - x[0]))
    return {"start": float(y[0]), "final": float(y[-1]), "area": area, "run": str(done.path.relative_to(run.path))}
