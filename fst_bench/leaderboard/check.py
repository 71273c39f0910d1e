"""Is a submission consistent? Every stored answer is scored again, every metric computed again from the rows, every rule looked at.

It proves consistency, not honesty: who invents whole runs with fitting answers is found by running a seed again (`adjudications.verify`). What can't be
recomputed without the weights, KL and what was spent, has to fit the other rows, no more.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import zip_longest
from typing import Any

import numpy as np

from fst_bench.analysis.runs import short
from fst_bench.core.registry import NAME
from fst_bench.harness.evaluate import TEST_SEED, ScheduledEvaluation, evaluation_schedule
from fst_bench.harness.protocol import flat
from fst_bench.leaderboard import rules
from fst_bench.leaderboard.bundle import MANIFEST, Bundle, Submitted, as_runs, private
from fst_bench.method.ledger import Ledger
from fst_bench.method.registry import METHODS
from fst_bench.metrics import summarise
from fst_bench.metrics.curve import Floats
from fst_bench.tasks import Problem, Task
from fst_bench.tasks.data import PROCEDURAL, task_from
from fst_bench.tasks.stream import Stream

Check = tuple[str, str | None]
Parts = dict[str, Callable[[Submitted], Iterator[str]]]
COUNTS = ("step", "stage", "problems", "rollouts", "tokens", "n_problems", "n_samples")
REALS = ("accuracy", "kl", "kl_per_answer", "tokens_per_answer")
ROW = {*COUNTS, *REALS, "boundary", "task", "prompt_mode", "context"}
LATER = {"fetched"}
"""What rows of older runs lack."""
ANSWER = {"step", "stage", "task", "prompt_modes", "problem", "text", "reward", "status"}
TURNS = {"turns"}
"""Of a conversation with a tool."""
ENVIRONMENT = {
    "python", "system", "cpu", "threads", "sandbox", "code", "fst-bench", "torch", "transformers", "tokenizers", "gepa", "math-verify", "numpy", "pandas",
}  # fmt: skip
LONGEST, MOST = 20_000, 100
"""Characters of a prompt, or of all disclosed settings; prompts of a population, parts of a ledger, characters of a name."""
COUNTED = {
    "problems",
    "rollouts",
    "prompt_tokens",
    "sampled_tokens",
    "reflections",
    "reflection_failures",
    "optimizer_steps",
    "seconds",
}
"""What every ledger has; the rest is younger than the first published runs."""
KL_ROUNDING = 1e-3
"""An exact KL is not negative, and that of the base to itself nothing, but for rounding."""


def check(bundle: Bundle) -> Iterator[Check]:
    """(part, None or what is wrong in it, with the row), in order; what rests on a broken part is not looked at."""
    for part, wrong in ((MANIFEST, about), ("private", nothing_private), ("rules", keeps_the_rules)):
        complaint = first(wrong(bundle))
        yield part, complaint
        if complaint:
            return
    for run in bundle.runs:
        yield from ((f"{run.where} {part}", complaint) for part, complaint in looked_at(run, PARTS))


def looked_at(run: Submitted, parts: Parts) -> Iterator[Check]:
    """(part, None or what is wrong in it) of one run, up to the first broken one."""
    for part, wrong in parts.items():
        complaint = first(wrong(run))
        yield part, complaint
        if complaint:
            return


def sound(bundle: Bundle) -> Bundle:
    """The bundle itself. ValueError with the first thing that its check finds."""
    for part, complaint in check(bundle):
        if complaint:
            raise ValueError(f"{part}: {complaint}")
    return bundle


def first(complaints: Iterator[str]) -> str | None:
    try:
        return next(complaints, None)
    except ValueError as error:  # in our words, from settings and metrics
        return str(error)


# --- the submission as a whole


def about(bundle: Bundle) -> Iterator[str]:
    """The manifest says what the runs' settings say."""
    said = bundle.submission
    for run in bundle.runs:
        saved, config, spec = run.saved, run.config, run.spec
        if config.data != PROCEDURAL:
            yield f"{run.where}/config.json: its problems are from {config.data}, and have to be procedural, so that everybody can score its answers again"
        named = {
            "stream": f"{spec.name}@{spec.version}",
            "model": config.model,
            "preset": config.preset,
            "method": config.method,
        }
        for key, value in named.items():
            if (claimed := getattr(said, key)) != value:
                yield f"{key} is {claimed!r}, {run.where}/config.json has {value!r}"
        written = {
            "stream": spec.name,
            "stream_version": spec.version,
            "method": config.method,
            "preset": config.preset,
            "seed": config.seed,
        }
        for key, below in (written | {"model": config.model, "seed_prompt": config.seed_prompt}).items():
            if saved.get(key) != below:
                yield f"{run.where}/config.json: {key} is {saved.get(key)!r} at the top and {below!r} below"
        if config.seed != run.seed:
            yield f"{run.where}/config.json is of seed {config.seed}"
        if dict(config.code) != dict(said.code):
            yield f"code differs from that of {run.where}/config.json"
        rules.expected(spec, config.preset)
        if said.settings != (found := rules.settings_of(config, spec)):
            key = next(k for k in said.settings | found if said.settings.get(k) != found.get(k))
            yield f"settings: {key} is disclosed as {said.settings.get(key)}, {run.where}/config.json has {found.get(key, 'the preset value')}"
    if len(json.dumps(said.settings)) > LONGEST:
        yield f"settings: more than {LONGEST:,} characters"
    if said.method not in METHODS and f"methods/{said.method}" not in said.code:
        yield f"method {said.method[:MOST]!r} is neither shipped nor in its code"
    own = bundle.code()
    for key, source in said.code.items():
        kind, _, name = key.partition("/")
        if kind != "methods" or name != said.method or not NAME.fullmatch(name):
            yield f"code: {key} is no method of this submission"
        if source.package is None and (
            name not in own or bundle.submission.files[f"code/methods/{name}.py"] != source.sha256
        ):
            yield f"code/methods/{name}.py is missing, or not the one its runs were made with"
    for name in own:
        if f"methods/{name}" not in said.code:
            yield f"code/methods/{name}.py: no run was made with it"
    as_runs(bundle)
    sampled: dict[tuple[Any, ...], str] = {}
    for run in bundle.runs:  # before learning nothing but the seed tells two runs of one model apart
        texts = tuple(record.get("text") for record in run.answers if record.get("step") == 0)
        if run.config.evaluation.temperature and (other := sampled.setdefault(texts, run.where)) != run.where:
            yield f"{run.where} has at step 0 the answers of {other}: the same run, handed in twice"


def nothing_private(bundle: Bundle) -> Iterator[str]:
    for name, data in bundle.files.items():
        yield from private(name, data.decode("utf-8", "replace"))


def keeps_the_rules(bundle: Bundle) -> Iterator[str]:
    """The division's rules."""
    for run in bundle.runs:
        yield from (f"{run.where}/{complaint}" for complaint in ledger(run))
        for complaint in rules.broken(bundle.submission.division, run.config, run.spec, run.env, run.ledger):
            yield f"{run.where}: {complaint}"


# --- one run


def environment(run: Submitted) -> Iterator[str]:
    for key, value in run.env.items():
        if key not in ENVIRONMENT or not isinstance(value, str) or len(value) > 200:
            yield f"env.json: {key} is no part of an environment"


def ledger(run: Submitted) -> Iterator[str]:
    """It is one of ours, and holds counts."""
    usual = Ledger().to_dict()
    for key in COUNTED - run.ledger.keys() or run.ledger.keys() - usual.keys():
        yield f"ledger.json: {key} is {'missing' if key in COUNTED else 'no part of a ledger'}"
        return
    for key, value in run.ledger.items():
        parts = value if isinstance(usual[key], dict) else {key: value}
        small = isinstance(parts, dict) and len(parts) <= MOST and all(len(part) <= MOST for part in parts)
        sound = finite if key in ("seconds", "reflection_usd", "reflection_unanswered_usd") else whole
        if not small or not all(
            (value is None and key.endswith("_usd")) or (sound(value) and value >= 0) for value in parts.values()
        ):
            yield f"ledger.json: {key} is {short(value)}"


def whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def stream_of(run: Submitted) -> Stream:
    return Stream(run.spec, run.config.seed, run.config.difficulty, run.config.stage_problems, run.config.data)


def stages(run: Submitted) -> Iterator[str]:
    plan = [{"stage": s.number, "task": s.task, "start": s.start, "end": s.end} for s in stream_of(run).stages]
    for number, (said, due) in enumerate(zip_longest(run.saved.get("stages") or [], plan), 1):
        if said != due:
            yield f"config.json: stage {number} is {said}, the stream has {due}"


def rows(run: Submitted) -> Iterator[str]:
    """The evaluation rows are those that the settings ask for, each once, and what was spent only grows."""
    wanted = [
        (due, task, mode)
        for due in evaluation_schedule(stream_of(run), run.config.batch, run.config.evaluation).values()
        for task, mode in due.cells
    ]
    before = {"rollouts": 0, "tokens": 0}
    for number, (row, owed) in enumerate(zip_longest(run.evals, wanted), 1):
        where = f"evals.jsonl row {number}"
        if row is None or owed is None:
            yield f"{where} is {'missing' if row is None else 'one too many'}"
            return
        if row.keys() - LATER != ROW:
            yield f"{where}: {', '.join(sorted((row.keys() - LATER) ^ ROW))} is missing or unknown"
            return
        yield from unlike(where, row, run, *owed)
        for key in before:
            if row[key] < before[key]:
                yield f"{where}: {row[key]} {key}, the row before has {before[key]}"
            before[key] = row[key]
    counts = {"rollouts": sum(run.ledger["rollouts"].values()), "tokens": run.ledger["sampled_tokens"]}
    for key, value in counts.items():
        if before[key] != value:
            yield f"ledger.json: {value} {key}, the last row of evals.jsonl has {before[key]}"
    if run.ledger["problems"] != (total := stream_of(run).total):
        yield f"ledger.json: {run.ledger['problems']} problems, the stream has {total}"
    if run.ledger["sampled_tokens"] > sum(run.ledger["rollouts"].values()) * run.config.policy.max_tokens:
        yield f"ledger.json: {run.ledger['sampled_tokens']} sampled tokens are more than its rollouts can hold"


def unlike(
    where: str, row: dict[str, Any], run: Submitted, due: ScheduledEvaluation, task: str, mode: str
) -> Iterator[str]:
    asked = run.config.evaluation
    wanted = {
        "step": due.step, "stage": due.stage, "boundary": due.boundary, "task": task, "prompt_mode": mode, "problems": due.problems,
        "n_problems": due.n, "n_samples": asked.samples,
    }  # fmt: skip
    for key, value in wanted.items():
        if row[key] != value or isinstance(row[key], bool) != isinstance(value, bool):
            yield f"{where}: {key} is {row[key]!r}, owed is {value!r}: step {due.step}, {task}, {mode}"
    for key in COUNTS:
        if not whole(row[key]):
            yield f"{where}: {key} is {row[key]!r}"
    for key in REALS:
        if not finite(row[key]):
            yield f"{where}: {key} is {row[key]!r}"
    if not 0 <= row["accuracy"] <= 1 or not 0 <= row["tokens_per_answer"] <= run.config.policy.max_tokens:
        yield f"{where}: accuracy {row['accuracy']}, {row['tokens_per_answer']} tokens an answer"
    if row["kl"] < -KL_ROUNDING or (due.step == 0 and run.config.init is None and abs(row["kl"]) > KL_ROUNDING):
        yield f"{where}: a KL of {row['kl']}{' before learning' if due.step == 0 else ''}"
    if mode == "seed" and row["context"] != run.config.seed_prompt:
        yield f"{where}: its context is not the seed prompt"


def judged(run: Submitted) -> Iterator[tuple[int, dict[str, Any], Problem, float, str]]:
    """(row, record, problem, reward, status) of every answer that the settings ask for, scored now. ValueError names the first row that is not owed."""
    stream, evaluation = stream_of(run), run.config.evaluation
    held_out, most = stream.held_out(), max(evaluation.boundary, evaluation.small)
    problems = {
        name: held_out_problems(run.config.data, task.name, task.difficulty.model_dump_json(), most)
        for name, task in held_out.items()
    }
    row = 0
    for due in evaluation_schedule(stream, run.config.batch, evaluation).values():
        for name, task in held_out.items():
            owed = [mode for of, mode in due.cells if of == name]
            while owed:  # modes that answered under the same contexts share their answers
                modes = run.answers[row].get("prompt_modes") if row < len(run.answers) else None
                if (
                    not isinstance(modes, list)
                    or modes[:1] != owed[:1]
                    or sorted(modes) != sorted(set(modes) & set(owed))
                ):
                    raise ValueError(
                        f"answers.jsonl row {row + 1}: owed is an answer of step {due.step} to {name} under {owed[0]}"
                    )
                owner = {"step": due.step, "stage": due.stage, "task": name, "prompt_modes": modes}
                for problem in (p for p in problems[name][: due.n] for _ in range(evaluation.samples)):
                    record = run.answers[row] if row < len(run.answers) else {}
                    row += 1
                    if any(record.get(key) != value for key, value in (owner | {"problem": problem.id}).items()):
                        raise ValueError(
                            f"answers.jsonl row {row}: owed is an answer of step {due.step} to {problem.id} under {' and '.join(modes)}"
                        )
                    if record.keys() - TURNS != ANSWER or not isinstance(record["text"], str):
                        raise ValueError(f"answers.jsonl row {row} is no answer")
                    yield row, record, problem, *scored(row, record, task, problem)
                owed = [mode for mode in owed if mode not in modes]
    if row < len(run.answers):
        raise ValueError(f"answers.jsonl row {row + 1} is one too many")


@cache  # every run of a stream answers the same ones
def held_out_problems(data: str, task: str, difficulty: str, n: int) -> list[Problem]:
    return task_from(data, task, json.loads(difficulty)).problems("test", TEST_SEED, n)


def scored(row: int, record: dict[str, Any], task: Task, problem: Problem) -> tuple[float, str]:
    """(reward, status) of a stored answer now. ValueError where its tool did not say what it was told."""
    turns = record.get("turns", [])
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict) and isinstance(turn.get("said"), str) for turn in turns
    ):
        raise ValueError(f"answers.jsonl row {row}: its turns are none")
    said = [turn["said"] for turn in turns]
    if any(task.respond(problem, said[: i + 1]) != turn.get("heard") for i, turn in enumerate(turns)):
        raise ValueError(f"answers.jsonl row {row}: {problem.id} was told what its tool does not say")
    verdict = task.verify(problem, record["text"], said)
    return verdict.reward, verdict.status


def accuracies(records: list[dict[str, Any]]) -> dict[tuple[int, str, str], float]:
    """(step, task, prompt mode) -> the mean reward of its answers."""
    earned: dict[tuple[int, str, str], list[float]] = {}
    for record in records:
        for mode in record["prompt_modes"]:
            earned.setdefault((record["step"], record["task"], mode), []).append(record["reward"])
    return {key: sum(rewards) / len(rewards) for key, rewards in earned.items()}


def answers(run: Submitted) -> Iterator[str]:
    """Every stored answer earns what was recorded, and the rows' accuracies are those of their answers."""
    for row, record, problem, reward, status in judged(run):
        if (record["reward"], record["status"]) != (reward, status):
            said = f"was scored {record['reward']} ({record['status']}), the verifier says {reward} ({status})"
            yield f"answers.jsonl row {row}: {problem.id} at step {record['step']} {said}"
    found = accuracies(run.answers)
    for number, row_ in enumerate(run.evals, 1):
        if row_["accuracy"] != (earned := found[row_["step"], row_["task"], row_["prompt_mode"]]):
            yield f"evals.jsonl row {number}: accuracy {row_['accuracy']}, its answers earn {earned}"


def summed_up(run: Submitted, evals: list[dict[str, Any]]) -> dict[str, Any]:
    """metrics.json of these rows."""
    plan = [{"number": s.number, "task": s.task} for s in stream_of(run).stages]
    return summarise(evals, plan, {key: value for key, value in run.ledger.items() if key != "seconds"})


def metrics(run: Submitted) -> Iterator[str]:
    said, found = (dict(flat(numbered(values))) for values in (run.metrics, summed_up(run, run.evals)))
    for key in said | found:
        if said.get(key) != found.get(key) or isinstance(said.get(key), bool) != isinstance(found.get(key), bool):
            yield f"metrics.json: {key} is {said.get(key)}, the rows say {found.get(key)}"


def numbered(summary: dict[str, Any]) -> dict[str, Any]:
    """With the list of stages as a mapping, so that a number in it has a name."""
    stages = summary.get("stages")
    return summary | {"stages": dict(enumerate(stages)) if isinstance(stages, list) else stages}


def prompts(run: Submitted) -> Iterator[str]:
    """Of a size that a page can show: the method's own limit on a prompt may be anything."""
    if len(run.prompts) > (steps := -(-stream_of(run).total // run.config.batch)):
        yield f"prompts.jsonl: {len(run.prompts)} populations, the run has {steps} steps"
    for number, row in enumerate(run.prompts, 1):
        population = row.get("population")
        sound = (
            isinstance(population, list)
            and population
            and all(
                isinstance(p, dict)
                and isinstance(p.get("prompt"), str)
                and len(p["prompt"]) <= LONGEST
                and (p.get("score") is None or finite(p["score"]))
                for p in population
            )
        )
        if not sound or not whole(row.get("stage")) or not whole(row.get("problems")) or not whole(row.get("step")):
            yield f"prompts.jsonl row {number} is no population"


MEASURED: Parts = {"stages": stages, "rows": rows, "answers": answers, "metrics": metrics}
"""What was measured, of any finished run."""
PARTS: Parts = {"environment": environment, **MEASURED, "prompts": prompts}


# --- what a sound submission is worth


def rescored(run: Submitted) -> Submitted:
    """The run with its answers scored by the verifiers of now, and the rows and metrics that follow from them."""
    again = [record | {"reward": reward, "status": status} for _, record, _, reward, status in judged(run)]
    found = accuracies(again)
    evals = [row | {"accuracy": found[row["step"], row["task"], row["prompt_mode"]]} for row in run.evals]
    return replace(run, answers=again, evals=evals, metrics=summed_up(run, evals))


def final_scores(runs: list[Submitted]) -> dict[str, Floats]:
    """Task -> (seeds, problems): mean reward of every held-out problem at the end of the stream, under the method's own prompt."""
    found: dict[str, list[list[float]]] = {}
    for run in runs:
        end, n = run.evals[-1]["step"], run.config.evaluation.samples
        by_task: dict[str, list[float]] = {}
        for record in run.answers:
            if record["step"] == end and "system" in record["prompt_modes"]:
                by_task.setdefault(record["task"], []).append(record["reward"])
        for task, rewards in by_task.items():
            found.setdefault(task, []).append(np.array(rewards).reshape(-1, n).mean(1).tolist())
    return {task: np.array(values) for task, values in found.items()}
