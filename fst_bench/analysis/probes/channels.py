"""The channels that carry what was learned: base or trained weights, times seed or evolved prompt."""

from functools import partial
from typing import Any

from fst_bench.analysis.probes.opened import Opened, Work


def channels(run: Opened, n: int = 192) -> list[Work]:
    """Return the work: each of a stage's own tasks at its end, in four cells."""
    return [
        (
            {"stage": stage.number, "task": task, "weights": weights, "prompt": prompt, "n": n},
            partial(measure, run, stage.number, task, weights, prompt, n),
        )
        for stage in run.stream.stages
        for task in stage.tasks
        for weights in ("base", "trained")
        for prompt in ("seed", "evolved")
    ]


def measure(run: Opened, stage: int, task: str, weights: str, prompt: str, n: int) -> dict[str, Any]:
    run.load(run.ends[stage])
    context_for = run.contexts(run.ends[stage], task) if prompt == "evolved" else lambda text: run.config.seed_prompt
    _, accuracy = run.sample(run.stream.held_out()[task], context_for, n, run.model(weights))
    return {"accuracy": accuracy}
