"""KL along the run's checkpoints, both directions, per token and per answer."""

from functools import partial
from typing import Any

from fst_bench.analysis.probes.opened import Opened, Work
from fst_bench.metrics import Drift


def drift(run: Opened, n: int = 192) -> list[Work]:
    """Return the work: every task at every checkpoint, under the method's own context then and under the seed prompt.

    Checkpoints are those at the ends of stages, and what `checkpoint.keep` left. Direction "policy||base", the paper's,
    is on the trained policy's own answers, "base||policy" on the base's.
    """
    return [
        (
            {"step": step, "task": name, "prompt_mode": mode, "direction": direction, "n": n},
            partial(measure, run, step, name, mode, direction, n),
        )
        for step in run.steps
        for name in run.stream.held_out()
        for mode in ("system", "seed")
        for direction in ("policy||base", "base||policy")
    ]


def measure(run: Opened, step: int, name: str, mode: str, direction: str, n: int) -> dict[str, Any]:
    run.load(step)
    reverse = direction == "base||policy"
    context_for = run.contexts(step, name) if mode == "system" else lambda prompt: run.config.seed_prompt
    samples, accuracy = run.sample(
        run.stream.held_out()[name], context_for, n, run.model("base" if reverse else "trained")
    )
    kl = Drift(run.policy.kl_to_reference(samples, reverse=reverse), [s.sampled for s in samples])
    return {
        "kl_per_token": kl.per_token,
        "kl_per_answer": kl.per_answer,
        "tokens_per_answer": sum(kl.tokens) / n,
        "accuracy": accuracy,
    }
