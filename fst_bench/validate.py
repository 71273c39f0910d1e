"""Proofs that what ships is sound: each check yields (name, None) or (name, complaint)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from fst_bench import protocol
from fst_bench.config import preset_files, resolve
from fst_bench.data import DATA, PROCEDURAL, check_source, load, task_from, tasks_in
from fst_bench.store import Store
from fst_bench.stream import Stream, stream_files
from fst_bench.tasks import TASKS, Problem, Task, load_task

Check = tuple[str, str | None]


def tasks(name: str | None) -> Iterator[Check]:
    """For every task and difficulty: the gold answer earns 1.0, listed wrong answers 0.0."""
    for task_name in [name] if name else TASKS:
        ladder = type(load_task(task_name)).ladder
        for knobs in [*ladder, ladder[1] | {"format_given": True}]:
            task = load_task(task_name, **knobs)
            yield f"{task_name} {json.dumps(knobs)}", misjudged(task, task.problems("train", 0, 50) + task.problems("test", 0, 50))


def misjudged(task: Task, problems: list[Problem]) -> str | None:
    """A gold answer that earns no reward, or a listed wrong one that does, if there is any."""
    complaint = None
    for problem in problems:
        gold = task.verify(problem, task.write(problem.answer))
        if gold.reward != 1.0:
            complaint = f"{problem.id}: the gold answer {problem.answer} earns {gold.reward}: {gold.feedback}"
        for text in task.wrong_texts(problem):
            if task.verify(problem, text).reward != 0.0:
                complaint = f"{problem.id}: the wrong answer {text!r} earns a reward"
    return complaint


def data(name: str | None) -> Iterator[Check]:
    """Every data set of a folder or the hub: what was kept, which rows were skipped and why, each difficulty's splits, and the verdicts on some."""
    if not name or name == PROCEDURAL:
        raise ValueError("validate data wants hub or a folder")
    there = [task for task in tasks_in(check_source(name)) if task in DATA]
    if not there:
        raise ValueError(f"{name} holds none of {', '.join(f'{kind.stem}.{ending}' for kind in DATA.values() for ending in kind.endings)}")
    for task_name in there:
        kind = DATA[task_name]
        try:
            rows = load(kind, name)
        except ValueError as error:
            yield task_name, str(error)
            continue
        yield f"{task_name}: {rows.source}, {len(rows.items)} problems kept, {len(rows.skipped)} skipped", None
        for reason, count in rows.facts["skipped"].items():
            yield f"{task_name}: skipped {count} for {reason}: {', '.join(row for row, why in rows.skipped if why == reason)}", None
        for knobs in kind.ladder:
            task = task_from(name, task_name, knobs)
            problems = [task.problem(split, 0, i) for split in ("train", "test") for i in range(min(50, task.sizes[split]))]
            yield f"{task_name} {json.dumps(knobs)}: {task.sizes['train']} train, {task.sizes['test']} test", misjudged(task, problems)


def streams(name: str | None) -> Iterator[Check]:
    """Every stream reads, and every preset can run it: difficulties in range, held-out problems to be had."""
    for stream in [name] if name else stream_files():
        for preset in preset_files():
            try:
                config, spec = resolve(stream, "base", preset)
                if config.data != PROCEDURAL:
                    continue  # what rows there are, `validate data` says
                made = Stream(spec, 0, config.difficulty, config.stage_problems, config.data)
                for task in made.held_out().values():
                    task.problems("test", 0, config.evaluation.boundary)
                empty = [s.task for s in made.stages if s.start == s.end]
                yield f"{stream} with preset {preset}", f"empty stages: {empty}" if empty else None
            except ValueError as error:
                yield f"{stream} with preset {preset}", str(error)


def run(name: str | None) -> Iterator[Check]:
    """A finished run: its files are those of its manifest, its rewards those of the verifiers, its metrics those of its rows."""
    from fst_bench.bench import recorded
    from fst_bench.metrics import summarise

    if not name:
        raise ValueError("validate run wants a run directory")
    store = Store(Path(name))
    saved = store.read("config")
    broken = store.broken()
    yield "manifest", f"changed since the run: {', '.join(broken)}" if broken else None
    config, spec = recorded(saved)
    stream = Stream(spec, config.seed, config.difficulty, config.stage_problems, config.data)
    problems = {
        p.id: (task, p)
        for task in stream.held_out().values()
        for p in task.problems("test", 0, max(config.evaluation.boundary, config.evaluation.small))
    }
    wrong = None
    for answer in store.rows("answers"):
        if answer["problem"] not in problems:
            wrong = f"{answer['problem']} at step {answer['step']} is no problem of this stream"
            continue
        task, problem = problems[answer["problem"]]
        said = [turn["said"] for turn in answer.get("turns", [])]
        if task.verify(problem, answer["text"], said).reward != answer["reward"]:
            wrong = f"{answer['problem']} at step {answer['step']} was scored {answer['reward']}"
        if any(task.respond(problem, said[: i + 1]) != turn["heard"] for i, turn in enumerate(answer.get("turns", []))):
            wrong = f"{answer['problem']} at step {answer['step']} was told what its tool does not say"
    yield "stored answers, scored again", wrong
    metrics = summarise(store.rows("evals"), [{"number": s.number, "task": s.task} for s in stream.stages], store.read("metrics")["ledger"])
    yield "metrics, computed again", None if metrics == store.read("metrics") else "metrics.json differs from the evaluation rows"


VALIDATE: dict[str, Callable[[str | None], Iterator[Check]]] = {
    "tasks": tasks,
    "streams": streams,
    "run": run,
    "protocol": protocol.check,
    "data": data,
}
