"""KL along the run's checkpoints, both directions, per token and per answer."""

from collections.abc import Callable
from functools import partial
from typing import Any

from fst_bench.analysis.probes.opened import Opened, Work
from fst_bench.harness.evaluate import TEST_SEED
from fst_bench.metrics import Drift

NEUTRAL = ("You are a helpful assistant.", "Answer the question.", "")
"""Contexts that say nothing of a task or a format; problems have them in turn."""


def drift(run: Opened, n: int = 192) -> list[Work]:
    """Return the work: every task at every checkpoint, under three kinds of context.

    `system` is the method's own context then, `seed` the seed prompt, and `neutral` are those of NEUTRAL, the same for
    all methods: what moved there is in the weights, and not in what prompts make of them. Checkpoints are those at the
    ends of stages, and what `checkpoint.keep` left. Direction "policy||base", the paper's, is on the trained policy's
    own answers, "base||policy" on the base's.
    """
    return [
        (
            {"step": step, "task": name, "prompt_mode": mode, "direction": direction, "n": n},
            partial(measure, run, step, name, mode, direction, n),
        )
        for step in run.steps
        for name in run.stream.held_out()
        for mode in ("system", "seed", "neutral")
        for direction in ("policy||base", "base||policy")
    ]


def measure(run: Opened, step: int, name: str, mode: str, direction: str, n: int) -> dict[str, Any]:
    run.load(step)
    reverse = direction == "base||policy"
    task = run.stream.held_out()[name]
    neutral = {p.prompt: NEUTRAL[i % len(NEUTRAL)] for i, p in enumerate(task.problems("test", TEST_SEED, n))}
    contexts: dict[str, Callable[[str], str]] = {
        "system": run.contexts(step, name),
        "seed": lambda prompt: run.config.seed_prompt,
        "neutral": neutral.__getitem__,
    }
    samples, accuracy = run.sample(task, contexts[mode], n, run.model("base" if reverse else "trained"))
    kl = Drift(run.policy.kl_to_reference(samples, reverse=reverse), [s.sampled for s in samples])
    return {
        "kl_per_token": kl.per_token,
        "kl_per_answer": kl.per_answer,
        "tokens_per_answer": sum(kl.tokens) / n,
        "accuracy": accuracy,
    }
