"""Which channel carries what was learned: base or trained weights, times seed or evolved prompt."""

from functools import partial
from typing import Any

from .opened import Opened, Work


def channels(run: Opened, n: int = 192) -> list[Work]:
    """A stage's own task at its end, in four cells."""
    return [
        (
            {"stage": stage.number, "task": stage.task, "weights": weights, "prompt": prompt, "n": n},
            partial(measure, run, stage.number, weights, prompt, n),
        )
        for stage in run.stream.stages
        for weights in ("base", "trained")
        for prompt in ("seed", "evolved")
    ]


def measure(run: Opened, stage: int, weights: str, prompt: str, n: int) -> dict[str, Any]:
    run.load(run.ends[stage])
    task = run.stream.stages[stage - 1].task
    context_for = run.answering(run.ends[stage]).context_for if prompt == "evolved" else lambda text: run.config.seed_prompt
    _, accuracy = run.sample(run.stream.held_out()[task], context_for, n, base=weights == "base")
    return {"accuracy": accuracy}
