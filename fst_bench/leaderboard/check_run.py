"""The check of one run: its files fit its settings, and its numbers are those of its rows.

The parts in `MEASURED` hold for any finished run; `fst-bench validate run` looks at the same ones.
"""

import math
from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

from fst_bench.analysis.runs import short
from fst_bench.harness.evaluate import ScheduledEvaluation, evaluation_schedule, samples_of, takes_kl
from fst_bench.harness.loop import stage_rows
from fst_bench.harness.protocol import flat
from fst_bench.harness.rows import EvaluationRow
from fst_bench.leaderboard.answers import earned, metrics_of, rescore
from fst_bench.leaderboard.bundle import SubmittedRun
from fst_bench.method.ledger import Ledger

Check = tuple[str, str | None]
"""(part, None or what is wrong in it)"""
Parts = dict[str, Callable[[SubmittedRun], Iterator[str]]]
ENVIRONMENT = {
    "python", "system", "cpu", "threads", "sandbox", "code", "fst-bench", "torch", "transformers", "tokenizers", "gepa",
    "math-verify", "numpy", "pandas",
}  # fmt: skip
LONGEST, MOST = 20_000, 100
"""Characters of a prompt, or of all disclosed settings; parts of a ledger's entry, characters of a name."""
COUNTED = {
    "problems", "rollouts", "prompt_tokens", "sampled_tokens", "reflections", "reflection_failures", "optimizer_steps",
    "seconds",
}  # fmt: skip
"""Entries that every ledger has; the others were added after the first published runs."""
MOST_SPENT = 10**15
"""More than a run can spend of anything."""
KL_ROUNDING = 1e-3
"""An exact KL is not negative, and that of the reference policy to itself is 0, but for rounding."""


def parts_of(run: SubmittedRun, parts: Parts) -> Iterator[Check]:
    """Yield (part, None or what is wrong in it) of one run, up to the first broken one."""
    for part, wrong in parts.items():
        complaint = first(wrong(run))
        yield part, complaint
        if complaint:
            return


def first(complaints: Iterator[str]) -> str | None:
    """Return the first complaint, or None: one printable line, whatever text of the submission it quotes."""
    try:
        complaint = next(complaints, None)
    except ValueError as error:  # in our words, from settings, rows and metrics
        complaint = str(error)
    except (KeyError, TypeError, AttributeError) as error:  # a file of another shape, where no model checks it
        complaint = f"not as a run records it: {type(error).__name__}: {error}"
    if complaint is None:
        return None
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(complaint.split()))


def environment(run: SubmittedRun) -> Iterator[str]:
    """Yield entries of env.json that belong to no environment."""
    for key, value in run.env.items():
        if key not in ENVIRONMENT or not isinstance(value, str) or len(value) > 200:
            yield f"env.json: {key} is not a part of an environment"


def ledger(run: SubmittedRun) -> Iterator[str]:
    """Yield entries that a ledger does not have, or that are not counts."""
    usual = Ledger().to_dict()
    for key in COUNTED - run.ledger.keys() or run.ledger.keys() - usual.keys():
        yield f"ledger.json: {key} is {'missing' if key in COUNTED else 'not a part of a ledger'}"
        return
    for key, value in run.ledger.items():
        parts = value if isinstance(usual[key], dict) else {key: value}
        small = isinstance(parts, dict) and len(parts) <= MOST and all(len(part) <= MOST for part in parts)
        is_count = is_real if key in ("seconds", "reflection_usd", "reflection_unanswered_usd") else is_whole
        unpriced = key.endswith("_usd")
        if not small or not all((part is None and unpriced) or is_count(part) for part in parts.values()):
            yield f"ledger.json: {key} is {short(value)}"


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and is_real(value)


def is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MOST_SPENT


def stages(run: SubmittedRun) -> Iterator[str]:
    """Yield stages that are not those of the stream for the run's seed."""
    for number, (written, expected) in enumerate(zip_longest(run.stages, stage_rows(run.stream)), 1):
        if written != expected:
            yield f"config.json: stage {number} is {written}, the stream has {expected}"


def rows(run: SubmittedRun) -> Iterator[str]:
    """Yield evaluation rows that the settings do not ask for, or that do not fit what was spent, which only grows."""
    schedule = evaluation_schedule(run.stream, run.config.batch, run.config.evaluation)
    cells = [(scheduled, task, mode) for scheduled in schedule.values() for task, mode in scheduled.cells]
    before = {"rollouts": 0, "tokens": 0}
    for number, (row, cell) in enumerate(zip_longest(run.evaluations, cells), 1):
        where = f"evals.jsonl row {number}"
        if row is None or cell is None:
            yield f"{where} is {'missing' if row is None else 'one too many'}"
            return
        yield from unlike(where, row, run, *cell)
        spent = {"rollouts": row.rollouts, "tokens": row.tokens}
        for key, value in spent.items():
            if value < before[key]:
                yield f"{where}: {value} {key}, the row before has {before[key]}"
        before = spent
    counts = {"rollouts": sum(run.ledger["rollouts"].values()), "tokens": run.ledger["sampled_tokens"]}
    for key, value in counts.items():
        if before[key] != value:
            yield f"ledger.json: {value} {key}, the last row of evals.jsonl has {before[key]}"
    if run.ledger["problems"] != run.stream.total:
        yield f"ledger.json: {run.ledger['problems']} problems, the stream has {run.stream.total}"
    if counts["tokens"] > counts["rollouts"] * run.config.policy.max_tokens:
        yield f"ledger.json: {counts['tokens']} sampled tokens are more than its rollouts can hold"


def unlike(
    where: str, row: EvaluationRow, run: SubmittedRun, scheduled: ScheduledEvaluation, task: str, mode: str
) -> Iterator[str]:
    """Yield what in a row is not as its place in the schedule has it, or can't be."""
    expected = {
        "step": scheduled.step,
        "stage": scheduled.stage,
        "boundary": scheduled.boundary,
        "task": task,
        "prompt_mode": mode,
        "problems": scheduled.problems,
        "n_problems": scheduled.n,
        "n_samples": samples_of(row.prompt_mode, run.config.evaluation),
    }
    for key, value in expected.items():
        if (found := getattr(row, key)) != value:
            yield f"{where}: {key} is {found!r}, expected {value!r}: step {scheduled.step}, {task}, {mode}"
    if row.tokens_per_answer > run.config.policy.max_tokens:
        yield f"{where}: {row.tokens_per_answer} tokens an answer"
    untrained = scheduled.step == 0 and run.config.init is None
    measured = takes_kl(row.prompt_mode, scheduled.boundary, run.config.evaluation)
    if {row.kl is None, row.kl_per_answer is None} != {not measured}:
        yield f"{where}: its KL is {row.kl}, with evaluation.kl={run.config.evaluation.kl}"
    elif row.kl is not None and (row.kl < -KL_ROUNDING or (untrained and row.kl > KL_ROUNDING)):
        yield f"{where}: a KL of {row.kl}{' before learning' if scheduled.step == 0 else ''}"
    if mode == "seed" and row.context != run.config.seed_prompt:
        yield f"{where}: its context is not the seed prompt"


def answers(run: SubmittedRun) -> Iterator[str]:
    """Yield answers that don't earn what was recorded, and rows whose accuracy is not that of their answers."""
    for found in rescore(run):
        answer, score = found.answer, found.score
        if (answer.reward, answer.status) != (score.reward, score.status):
            yield (
                f"answers.jsonl row {found.row}: {answer.problem} at step {answer.step} was scored {answer.reward} "
                f"({answer.status}), the verifier gives {score.reward} ({score.status})"
            )
    columns = earned(run, run.answers)
    for number, row in enumerate(run.evaluations, 1):
        own = columns[row.step, row.task, row.prompt_mode]
        if row.accuracy != own["accuracy"]:
            yield f"evals.jsonl row {number}: accuracy {row.accuracy}, its answers earn {own['accuracy']}"
        elif row.levels != own["levels"]:
            yield f"evals.jsonl row {number}: its levels are not those of its answers"


def metrics(run: SubmittedRun) -> Iterator[str]:
    """Yield metrics that are not those of the rows."""
    written, found = (dict(flat(numbered(values))) for values in (run.metrics, metrics_of(run, run.evaluations)))
    for key in written | found:
        ours, theirs = found.get(key), written.get(key)
        if theirs != ours or isinstance(theirs, bool) != isinstance(ours, bool):
            yield f"metrics.json: {key} is {theirs}, the rows give {ours}"


def numbered(summary: dict[str, Any]) -> dict[str, Any]:
    """Return metrics with the list of stages as a mapping, so that a number in it has a name."""
    stages = summary.get("stages")
    return summary | {"stages": dict(enumerate(stages)) if isinstance(stages, list) else stages}


def prompts(run: SubmittedRun) -> Iterator[str]:
    """Yield populations beyond what a page can show: the method's own limit on a prompt may be anything."""
    if len(run.populations) > (steps := math.ceil(run.stream.total / run.config.batch)):
        yield f"prompts.jsonl: {len(run.populations)} populations, the run has {steps} steps"
    for number, row in enumerate(run.populations, 1):
        if row.stage is None:
            yield f"prompts.jsonl row {number} has no stage"
        if any(len(candidate.prompt) > LONGEST for candidate in row.population):
            yield f"prompts.jsonl row {number}: a prompt has more than {LONGEST:,} characters"


MEASURED: Parts = {"stages": stages, "rows": rows, "answers": answers, "metrics": metrics}
"""Parts of any finished run: what was measured."""
PARTS: Parts = {"environment": environment, **MEASURED, "prompts": prompts}
"""Parts of a submitted run."""
