"""Evaluation: every task of the stream, past and future ones, outside of learning.

It runs on a frozen copy of the method that has no lab, with random numbers of its own: how often it happens
changes no training number. Rows are the raw material of every metric.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from fst_bench.config import EvaluationSettings
from fst_bench.contract import context_of, difference
from fst_bench.errors import ContractError
from fst_bench.lab import Lab, Method, conversation
from fst_bench.metrics import Drift
from fst_bench.policy import Ask, Policy
from fst_bench.seeds import seed_for
from fst_bench.stream import Stream
from fst_bench.tasks import Task
from fst_bench.turns import answers

TEST_SEED = 0
"""Held-out problems are the same for every run and seed."""


class _NoLab:
    def __getattr__(self, name: str) -> Any:
        raise ContractError("context", f"asked for lab.{name} where it has none: __init__ and context_for run on copies of the method, without a lab")


NO_LAB = cast(Lab, _NoLab())


@dataclass(frozen=True)
class Due:
    """An evaluation that a run owes: after which step, and what is asked there. Stage 0 is the base before learning."""

    step: int
    stage: int
    boundary: bool
    problems: int
    """Answered in training by then."""
    n: int
    """Held-out problems of each task."""
    ended: tuple[str, ...]
    """The tasks whose stage ends here: the method's state is remembered for them."""
    cells: tuple[tuple[str, str], ...]
    """(task, prompt mode), in the order of the rows."""


def calendar(stream: Stream, batch: int, settings: EvaluationSettings) -> dict[int, Due]:
    """Every evaluation of a run by its step: before learning, every `interval` problems, and where a stage ends. The run's settings alone decide."""
    ends = dict(zip(stream.ends(batch), stream.stages, strict=True))
    due: dict[int, Due] = {}
    known: set[str] = set()
    before = 0
    for step in range(-(-stream.total // batch) + 1):
        seen, boundary = min(step * batch, stream.total), step == 0 or step in ends
        ended = ends[step].tasks if step in ends else []
        known.update(ended)
        if boundary or seen // settings.interval > before // settings.interval:
            modes = settings.boundary_modes if boundary else settings.small_modes
            cells = tuple((task, mode) for task in stream.held_out() for mode in modes if mode != "recalled" or task in known)
            stage = ends[step] if step in ends else stream.stage_of(seen - 1) if step else None
            n = settings.boundary if boundary else settings.small
            due[step] = Due(step, stage.number if stage else 0, boundary, seen, n, tuple(ended), cells)
        before = seen
    return due


@dataclass(frozen=True)
class Point:
    """Where in the run an evaluation happens, and what learning has spent until then: the axes of sample efficiency."""

    step: int
    stage: int
    boundary: bool
    problems: int
    """Answered in training."""
    fetched: int
    """Those that a method has looked at ahead included."""
    rollouts: int
    tokens: int


class Frozen:
    """A copy of a method at one state, without a lab; `check` makes sure that answering changed nothing in it."""

    def __init__(self, method: Method, state: dict[str, Any]):
        self.text = json.dumps(state)
        self.method = self._built(method)

    def _built(self, method: Method) -> Method:
        copy = type(method)(NO_LAB, method.config)
        copy.load(json.loads(self.text))
        return copy

    def context_for(self, prompt: str, task: str | None = None) -> str:
        return context_of(self.method, prompt, task)

    def check(self) -> None:
        if found := difference(self._built(self.method), self.method, "self", set()):
            raise ContractError("context", f"changed itself in context_for: {found[0]} was {found[1]}, and is {found[2]}")


def evaluate(
    policy: Policy, contexts: dict[tuple[str, str], Callable[[str], str]], tasks: dict[str, Task], point: Point, *,
    seed: int, n: int, samples: int, temperature: float,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:  # fmt: skip
    """(rows, records of the answers) for each (task, prompt mode) of `contexts`, which says under which context a prompt is answered.

    Modes that answer under the same contexts share their samples. `kl` is the mean per sampled token of KL(policy ||
    base), exact over the vocabulary, on the policy's own answers, both models under the same context; `kl_per_answer`
    is its sum over an answer's tokens, averaged.
    """
    problems = {name: task.problems("test", TEST_SEED, n) for name, task in tasks.items()}
    wanted: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (name, mode), context_for in contexts.items():
        used = tuple(context_for(problem.prompt) for problem in problems[name])
        wanted.setdefault((name, used), []).append(mode)
    asks = [
        Ask(conversation(context, p.prompt), seed_for("evaluation", seed, point.step, p.id), samples)
        for name, used in wanted for p, context in zip(problems[name], used, strict=True)
    ]  # fmt: skip
    responds = [partial(tasks[name].respond, p) for name, _ in wanted for p in problems[name]]
    groups = answers(policy, asks, responds, temperature=temperature)  # all at once: the more rows at a time, the faster
    divergence = iter(policy.kl_to_base([a.sample for group in groups for a in group]))
    rest = iter(groups)
    rows: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for (name, used), modes in wanted.items():
        flat = [(p, a, next(divergence)) for p in problems[name] for a in next(rest)]
        verdicts = [tasks[name].verify(p, a.sample.text, a.said) for p, a, _ in flat]
        drift = Drift([kl for _, _, kl in flat], [a.sample.sampled for _, a, _ in flat])
        facts = {
            "accuracy": sum(v.reward for v in verdicts) / len(flat),
            "kl": drift.per_token, "kl_per_answer": drift.per_answer, "tokens_per_answer": sum(drift.tokens) / len(flat),
            "n_problems": n, "n_samples": samples, "context": used[0] if len(set(used)) == 1 else None,
        }  # fmt: skip
        rows += [
            {"step": point.step, "stage": point.stage, "boundary": point.boundary, "task": name, "prompt_mode": mode,
             "problems": point.problems, "fetched": point.fetched, "rollouts": point.rollouts, "tokens": point.tokens} | facts
            for mode in modes
        ]  # fmt: skip
        records += [
            {"step": point.step, "stage": point.stage, "task": name, "prompt_modes": modes, "problem": p.id, "text": a.sample.text,
             "reward": v.reward, "status": v.status, **a.record}
            for (p, a, _), v in zip(flat, verdicts, strict=True)
        ]  # fmt: skip
    order = list(contexts)
    rows.sort(key=lambda row: order.index((row["task"], row["prompt_mode"])))
    return rows, records
