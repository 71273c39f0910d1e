"""Evaluation: every task of the stream, past and future ones, outside of learning.

It uses a snapshot of the method that has no lab, and random numbers of its own: how often it happens changes no
training number. Its rows are the raw material of every metric.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from fst_bench.core.errors import ContractError
from fst_bench.core.seeds import seed_for
from fst_bench.core.types import SampleRequest, Trajectory
from fst_bench.harness.config import EvaluationSettings
from fst_bench.harness.rows import AnswerRow, EvaluationRow, LevelRow, PromptMode
from fst_bench.method.contract import context_of, difference
from fst_bench.method.lab import Lab, conversation
from fst_bench.method.ledger import Ledger
from fst_bench.method.method import Method
from fst_bench.metrics import Drift
from fst_bench.policy import Policy
from fst_bench.policy.interface import Progress
from fst_bench.policy.rollout import generate
from fst_bench.tasks import Task
from fst_bench.tasks.stream import Stream

TEST_SEED = 0
"""Held-out problems are the same for every run and seed."""
Cell = tuple[str, PromptMode]
"""(task, prompt mode)"""


class _NoLab:
    """The lab of a snapshot. Every use of it is an error."""

    def __getattr__(self, name: str) -> Any:
        where = "__init__ and context_for run on copies of the method, without a lab"
        raise ContractError("context", f"asked for lab.{name} where it has none: {where}")


NO_LAB = cast(Lab, _NoLab())


@dataclass(frozen=True)
class ScheduledEvaluation:
    """An evaluation of the schedule: after which step it happens, and what is evaluated."""

    step: int
    stage: int
    """0 before learning."""
    boundary: bool
    """Whether a stage ends here, or learning has not begun."""
    problems: int
    """Problems answered in training by then."""
    n: int
    """Held-out problems of each task."""
    ended: tuple[str, ...]
    """The tasks whose stage ends here: the method's state is kept for their oracle prompt."""
    cells: tuple[Cell, ...]
    """The (task, prompt mode) pairs, in the order of the rows."""


def evaluation_schedule(stream: Stream, batch: int, settings: EvaluationSettings) -> dict[int, ScheduledEvaluation]:
    """Return every evaluation of a run by its step: before learning, every `interval` problems, and where a stage ends.

    The schedule depends on the run's settings alone.
    """
    ends = dict(zip(stream.ends(batch), stream.stages, strict=True))
    schedule: dict[int, ScheduledEvaluation] = {}
    known: set[str] = set()
    before = 0
    for step in range(math.ceil(stream.total / batch) + 1):
        seen = min(step * batch, stream.total)
        boundary = step == 0 or step in ends
        ended = ends[step].tasks if step in ends else ()
        known.update(ended)
        if boundary or seen // settings.interval > before // settings.interval:
            modes = settings.boundary_modes if boundary else settings.small_modes
            cells = tuple(
                (task, mode) for task in stream.held_out() for mode in modes if mode != "oracle" or task in known
            )
            stage = ends[step] if step in ends else stream.stage_of(seen - 1) if step else None
            schedule[step] = ScheduledEvaluation(
                step=step,
                stage=stage.number if stage else 0,
                boundary=boundary,
                problems=seen,
                n=settings.boundary if boundary else settings.small,
                ended=tuple(ended),
                cells=cells,
            )
        before = seen
    return schedule


def takes_kl(mode: PromptMode, boundary: bool, settings: EvaluationSettings) -> bool:
    """Return whether the row of a prompt mode has the KL to the base."""
    return settings.kl == "all" or (boundary and mode == "system")


def samples_of(mode: PromptMode, settings: EvaluationSettings) -> int:
    """Return the answers per problem under a mode: one where nothing is drawn."""
    return 1 if mode == "greedy" else settings.samples


def answers(schedule: Mapping[int, ScheduledEvaluation], settings: EvaluationSettings, evolves: bool) -> dict[int, int]:
    """Return step -> the answers that its evaluation samples, for a method that evolves prompts or one that does not.

    Modes with the same prompts share them: all sampled ones where no prompt has evolved, and the oracle prompt of a
    task whose stage ends is the method's own.
    """
    found = {}
    for step, scheduled in schedule.items():
        tasks = len({task for task, _ in scheduled.cells})
        greedy = sum(mode == "greedy" for _, mode in scheduled.cells)
        shared = sum(mode == "oracle" and task in scheduled.ended for task, mode in scheduled.cells)
        cells = len(scheduled.cells) - greedy - shared if evolves and step else tasks
        found[step] = (cells * settings.samples + greedy) * scheduled.n
    return found


class Snapshot:
    """A copy of a method at one state, without a lab; `check` makes sure that answering changed nothing in it."""

    def __init__(self, method: Method, state: dict[str, Any]):
        self.text = json.dumps(state)
        self.method = self._built(method)

    def _built(self, method: Method) -> Method:
        """Return a new method with the snapshot's state."""
        copy = type(method)(NO_LAB, method.config)
        copy.load(json.loads(self.text))
        return copy

    def context_for(self, prompt: str, task: str | None = None) -> str:
        """Return the context under which the method would answer a prompt."""
        return context_of(self.method, prompt, task)

    def check(self) -> None:
        """Raise ContractError where answering changed the copy."""
        if found := difference(self._built(self.method), self.method, "self", set()):
            where, before, after = found
            raise ContractError("context", f"changed itself in context_for: {where} was {before}, and is {after}")


def evaluate(
    policy: Policy,
    contexts: dict[Cell, Callable[[str], str]],
    tasks: dict[str, Task],
    scheduled: ScheduledEvaluation,
    ledger: Ledger,
    settings: EvaluationSettings,
    seed: int,
    progress: Progress | None = None,
) -> tuple[list[EvaluationRow], list[AnswerRow]]:
    """Evaluate each (task, prompt mode) of `contexts`, which gives the context under which a prompt is answered.

    Modes that answer under the same contexts share their samples; `greedy` has answers of its own. `kl` is the mean per
    sampled token of KL(policy || reference policy), exact over the vocabulary, on the policy's own answers, both models
    under the same context. `kl_per_answer` is its sum over an answer's tokens, averaged over answers.
    """
    n, step = scheduled.n, scheduled.step
    problems = {name: task.problems("test", TEST_SEED, n) for name, task in tasks.items()}
    groups_of_modes: dict[tuple[str, tuple[str, ...], bool], list[PromptMode]] = {}
    for (name, mode), context_for in contexts.items():
        used = tuple(context_for(problem.prompt) for problem in problems[name])
        groups_of_modes.setdefault((name, used, mode == "greedy"), []).append(mode)
    found: dict[tuple[str, tuple[str, ...], bool], list[list[Trajectory]]] = {}
    for greedy in sorted({key[2] for key in groups_of_modes}):
        keys = [key for key in groups_of_modes if key[2] == greedy]
        samples, temperature = (1, 0.0) if greedy else (settings.samples, settings.temperature)
        requests = [
            SampleRequest(conversation(context, p.prompt), seed_for("evaluation", seed, step, p.id), samples)
            for name, used, _ in keys
            for p, context in zip(problems[name], used, strict=True)
        ]
        tools = [partial(tasks[name].at(p).respond, p) for name, _, _ in keys for p in problems[name]]
        if progress:
            progress(0, sum(request.n for request in requests))
        # all at once: the more rows at a time, the faster
        groups = iter(generate(policy, requests, tools, temperature=temperature, progress=progress))
        found |= {key: [next(groups) for _ in problems[key[0]]] for key in keys}
    measured = {
        key for key, modes in groups_of_modes.items() if any(takes_kl(m, scheduled.boundary, settings) for m in modes)
    }
    answered = [t.sample for key in groups_of_modes if key in measured for group in found[key] for t in group]
    divergence = iter(policy.kl_to_reference(answered))
    rows: list[EvaluationRow] = []
    answers: list[AnswerRow] = []
    for key, modes in groups_of_modes.items():
        name, used, _ = key
        pairs = zip(problems[name], found[key], strict=True)
        flat = [(p, t, next(divergence) if key in measured else 0.0) for p, group in pairs for t in group]
        scores = [tasks[name].verify(p, t.sample.text, t.earlier) for p, t, _ in flat]
        levels = levels_of(tasks[name], [p.level for p, _, _ in flat], [score.reward for score in scores])
        drift = Drift([kl for _, _, kl in flat], [t.sample.sampled for _, t, _ in flat])
        rows += [
            EvaluationRow(
                step=step,
                stage=scheduled.stage,
                boundary=scheduled.boundary,
                task=name,
                prompt_mode=mode,
                problems=scheduled.problems,
                fetched=max(scheduled.problems, ledger.problems),
                rollouts=ledger.total_rollouts,
                tokens=ledger.sampled_tokens,
                accuracy=sum(score.reward for score in scores) / len(flat),
                kl=drift.per_token if takes_kl(mode, scheduled.boundary, settings) else None,
                kl_per_answer=drift.per_answer if takes_kl(mode, scheduled.boundary, settings) else None,
                tokens_per_answer=sum(drift.tokens) / len(flat),
                n_problems=n,
                n_samples=samples_of(mode, settings),
                context=used[0] if len(set(used)) == 1 else None,
                levels=levels,
            )
            for mode in modes
        ]
        answers += [
            AnswerRow(
                step=step,
                stage=scheduled.stage,
                task=name,
                prompt_modes=tuple(modes),
                problem=p.id,
                text=t.sample.text,
                reward=score.reward,
                status=score.status,
                **t.record,
            )
            for (p, t, _), score in zip(flat, scores, strict=True)
        ]
    order = list(contexts)
    rows.sort(key=lambda row: order.index((row.task, row.prompt_mode)))
    return rows, answers


def levels_of(task: Task, levels: Sequence[str], rewards: Sequence[float]) -> tuple[LevelRow, ...]:
    """Return the accuracy at each level of the task's mixture, in its order; () without one."""
    earned = {level: [r for r, of in zip(rewards, levels, strict=True) if of == level] for level in task.parts}
    return tuple(
        LevelRow(level=level, n=len(found), accuracy=sum(found) / len(found))
        for level, found in earned.items()
        if found
    )
