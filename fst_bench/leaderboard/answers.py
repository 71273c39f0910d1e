"""The stored answers of a run, scored again by the verifiers of now, and the numbers that follow from them."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from fst_bench.core.types import Problem, Score
from fst_bench.harness.evaluate import TEST_SEED, evaluation_schedule, levels_of, samples_of
from fst_bench.harness.rows import AnswerRow, EvaluationRow, Row
from fst_bench.leaderboard.bundle import BundledRun, SubmittedRun
from fst_bench.metrics import summarise
from fst_bench.metrics.curve import Floats
from fst_bench.tasks import Task
from fst_bench.tasks.data import task_from


@dataclass(frozen=True)
class Rescored:
    """A stored answer and what it earns now."""

    row: int
    """Its row in answers.jsonl, from 1."""
    answer: AnswerRow
    score: Score


def rescore(run: SubmittedRun) -> Iterator[Rescored]:
    """Yield each answer that the settings ask for, scored now. Raises ValueError at the first row of another one."""
    evaluation, held_out = run.config.evaluation, run.stream.held_out()
    problems = problems_of(run)
    left = enumerate(run.answers, 1)
    row, answer = next(left, (len(run.answers) + 1, None))
    for scheduled in evaluation_schedule(run.stream, run.config.batch, evaluation).values():
        for name, task in held_out.items():
            expected = [mode for of, mode in scheduled.cells if of == name]
            while expected:  # modes that answered under the same contexts share their answers
                modes = answer.prompt_modes if answer else ()
                shareable = {mode for mode in expected if (mode == "greedy") == (expected[0] == "greedy")}
                if modes[:1] != (expected[0],) or len(set(modes)) < len(modes) or not set(modes) <= shareable:
                    what = f"step {scheduled.step} to {name} under {expected[0]}"
                    raise ValueError(f"answers.jsonl row {row}: expected an answer of {what}")
                samples = samples_of(expected[0], evaluation)
                for problem in (p for p in problems[name][: scheduled.n] for _ in range(samples)):
                    owner = (scheduled.step, scheduled.stage, name, modes, problem.id)
                    if answer is None or owner != owner_of(answer):
                        what = f"step {scheduled.step} to {problem.id} under {' and '.join(modes)}"
                        raise ValueError(f"answers.jsonl row {row}: expected an answer of {what}")
                    yield Rescored(row, answer, score_of(row, answer, task, problem))
                    row, answer = next(left, (len(run.answers) + 1, None))
                expected = [mode for mode in expected if mode not in modes]
    if answer is not None:
        raise ValueError(f"answers.jsonl row {row} is one too many")


def owner_of(answer: AnswerRow) -> tuple[Any, ...]:
    """Return what tells which answer of the run it is."""
    return answer.step, answer.stage, answer.task, answer.prompt_modes, answer.problem


@cache  # every run of a stream answers the same ones
def held_out_problems(data: str, task: str, difficulty: str, n: int) -> list[Problem]:
    return task_from(data, task, json.loads(difficulty)).problems("test", TEST_SEED, n)


def score_of(row: int, answer: AnswerRow, task: Task, problem: Problem) -> Score:
    """Score a stored answer again. Raises ValueError where its tool does not reply what is stored."""
    written = [turn.assistant for turn in answer.turns]
    for i, turn in enumerate(answer.turns):
        if task.at(problem).respond(problem, written[: i + 1]) != turn.tool:
            raise ValueError(f"answers.jsonl row {row}: a turn of {problem.id} has a reply that its tool does not give")
    return task.verify(problem, answer.text, written)


def earned(run: SubmittedRun, answers: Iterable[AnswerRow]) -> dict[tuple[int, str, str], dict[str, Any]]:
    """Return (step, task, prompt mode) -> the columns `accuracy` and `levels` of the row of those answers."""
    held_out = run.stream.held_out()
    level_of = {name: {p.id: p.level for p in problems} for name, problems in problems_of(run).items()}
    found: dict[tuple[int, str, str], list[AnswerRow]] = {}
    for answer in answers:
        for mode in answer.prompt_modes:
            found.setdefault((answer.step, answer.task, mode), []).append(answer)
    columns: dict[tuple[int, str, str], dict[str, Any]] = {}
    for key, own in found.items():
        name = key[1]
        rewards, levels = [answer.reward for answer in own], [level_of[name][answer.problem] for answer in own]
        accuracy = sum(rewards) / len(rewards)
        columns[key] = {"accuracy": accuracy, "levels": levels_of(held_out[name], levels, rewards)}
    return columns


def problems_of(run: SubmittedRun) -> dict[str, list[Problem]]:
    """Return the held-out problems of each task of a run, as many as its largest evaluation has."""
    most = max(run.config.evaluation.boundary, run.config.evaluation.small)
    return {
        name: held_out_problems(run.config.data, task.name, task.difficulty.model_dump_json(exclude_unset=True), most)
        for name, task in run.stream.held_out().items()
    }


def metrics_of(run: SubmittedRun, evaluations: Sequence[EvaluationRow]) -> dict[str, Any]:
    """Return the metrics.json of these evaluation rows."""
    stages = [{"stage": stage.number, "tasks": stage.tasks} for stage in run.stream.stages]
    spent = {key: value for key, value in run.ledger.items() if key != "seconds"}
    return summarise([row.model_dump() for row in evaluations], stages, spent)


def rescored(run: SubmittedRun) -> SubmittedRun:
    """Return the run with its answers scored by the verifiers of now, and the rows and metrics that follow."""
    scores = [found.score for found in rescore(run)]
    answers = [
        answer.model_copy(update={"reward": score.reward, "status": score.status})
        for answer, score in zip(run.answers, scores, strict=True)
    ]
    return with_answers(run, answers)


def with_answers(run: SubmittedRun, answers: Sequence[AnswerRow]) -> SubmittedRun:
    """Return the run with other answers, and the accuracies and metrics of those."""
    assert isinstance(run.source, BundledRun), "a submission's run"
    found = earned(run, answers)
    evaluations = [row.model_copy(update=found[row.step, row.task, row.prompt_mode]) for row in run.evaluations]
    rows: dict[str, Sequence[Row]] = {"evals": evaluations, "answers": answers}
    records = {name: [row.model_dump(mode="json") for row in own] for name, own in rows.items()}
    settings = run.source.settings | {"metrics": metrics_of(run, evaluations)}
    return SubmittedRun(replace(run.source, settings=settings, records=run.source.records | records))


def final_scores(runs: Sequence[SubmittedRun]) -> dict[str, Floats]:
    """Return task -> (seeds, problems): the rewards at the end of the stream under the method's own prompt."""
    found: dict[str, list[list[float]]] = {}
    for run in runs:
        end, samples = run.evaluations[-1].step, run.config.evaluation.samples
        by_task: dict[str, list[float]] = {}
        for answer in run.answers:
            if answer.step == end and "system" in answer.prompt_modes:
                by_task.setdefault(answer.task, []).append(answer.reward)
        for task, rewards in by_task.items():
            found.setdefault(task, []).append(np.array(rewards).reshape(-1, samples).mean(1).tolist())
    return {task: np.array(values) for task, values in found.items()}
