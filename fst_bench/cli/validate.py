"""Proofs that what ships is sound: each check yields (name, None) or (name, complaint)."""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from fst_bench.core.errors import RunError
from fst_bench.core.registry import PLACES, place_of
from fst_bench.harness import protocol
from fst_bench.harness.config import for_methods, load_preset, preset_files, resolve
from fst_bench.harness.store import Store
from fst_bench.method.registry import METHODS, find_method
from fst_bench.tasks import TASKS, Problem, Task, find_task, load_task
from fst_bench.tasks.base import Split
from fst_bench.tasks.data import DATA, PROCEDURAL, check_source, load, task_from, tasks_in
from fst_bench.tasks.formats import WRAPPERS, Wrapped
from fst_bench.tasks.stream import Stream, load_spec, schedule, stream_files

if TYPE_CHECKING:
    from fst_bench.harness.loop import Run

Check = tuple[str, str | None]
SEEDS = 20
"""How many seeds' stage lengths are looked at."""
LOOKED_AT, JUDGED = 200, 50
"""Problems of each split that are searched for one that both hold; those of them whose answers are judged."""
HOSTILE = (
    "",
    "{" * 9000,
    "\\boxed{" * 3000,
    "\\boxed{\ud800}",
    "\x00",
    "```json\n" + "[" * 9000,
    "9" * 9000,
    "</think>" * 99,
    "<think>",
)
"""Texts that earn nothing anywhere, and that no verifier may stumble over."""


def tasks(name: str | None) -> Iterator[Check]:
    """For every task, difficulty and answer format: problems are the same when they are drawn again, none is both held out and in training, the
    gold answer earns 1.0, listed wrong answers, hostile texts and gold in another format 0.0."""
    for task_name in [name] if name else TASKS:
        kind = find_task(task_name)
        formats: list[dict[str, Any]] = (
            [{"answer_format": name} for name in WRAPPERS] if issubclass(kind, Wrapped) else []
        )
        for knobs in [*kind.levels, *(kind.levels[1] | more for more in [{"format_given": True}, *formats])]:
            task = load_task(task_name, **knobs)
            train, test = (task.problems(split, 0, LOOKED_AT) for split in ("train", "test"))
            same = [task.problem("train", 0, i) for i in range(5)] == train[:5]
            again = (
                None
                if same
                else "problem 0 is another one when it is drawn again: every choice has to be taken from rng"
            )
            complaint = again or leaking(train, test) or misjudged(task, train[:JUDGED] + test[:JUDGED])
            different = len({problem.id for problem in test})
            yield (
                f"{task_name} {json.dumps(knobs)}, {different} different problems among {LOOKED_AT} held out",
                complaint,
            )


def methods(name: str | None) -> Iterator[Check]:
    """Each method keeps its contract on a short stream: it runs, samples no more than it says, runs the same again, and ends the same where it
    was stopped and resumed."""
    from fst_bench.harness import loop
    from fst_bench.harness.planning.cost import estimate

    for method in [name] if name else METHODS:
        with TemporaryDirectory() as folder:
            whole, again, cut = (Path(folder) / part for part in ("whole", "again", "cut"))
            short: dict[str, Any] = {"preset": "smoke", "stage_problems": 16, "checkpoint": {"every": 1, "keep": 9}}
            try:
                first = loop.run("single-math", method, whole, **short)
                second = loop.run("single-math", method, again, **short)
                shutil.copytree(first.path, cut)
                for path in [
                    cut / "manifest.json",
                    *Store(cut).checkpoints()[3:],
                ]:  # as it was after the second of four steps
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                resumed = loop.resume(cut)
            except RunError as error:
                yield f"{method}: a run", str(error)
                continue
            yield f"{method}: a run", None
            said = estimate(*loop.recorded(Store(first.path)))
            spent, most = sum(first.ledger["rollouts"].values()), said["training_rollouts"] + said["evolution_rollouts"]
            yield (
                f"{method}: what a dry run says",
                f"it sampled {spent} rollouts, at most {most} by its most_rollouts" if spent > most else None,
            )
            for how, other in (("run again", second), ("stopped and resumed", resumed)):
                differing = [
                    part
                    for part in ("metrics.json", "rollouts.jsonl", "answers.jsonl")
                    if content(first, part) != content(other, part)
                ]
                complaint = f"{' and '.join(differing)} came out otherwise: a choice is not taken from lab.random, or depends on what state() does not hold"
                yield f"{method}: {how}", complaint if differing else None


def content(run: "Run", name: str) -> bytes | None:
    return (run.path / name).read_bytes() if (run.path / name).exists() else None


def leaking(train: list[Problem], test: list[Problem]) -> str | None:
    """A held-out problem that is in training too, if there is any: a split is decided by the key, so one problem has to have one key."""
    trained = {problem.prompt: problem.id for problem in train}
    for problem in test:
        if key := trained.get(problem.prompt):
            return f"a held-out problem is in training, under another key ({key}, {problem.id}): the key is to be the problem's content, and nothing else"
    return None


def misjudged(task: Task, problems: list[Problem]) -> str | None:
    """A gold answer that earns no reward, a listed wrong one or a hostile text that does, or a text on which the verifier raises, if there is any."""
    for problem in problems:
        elsewhere = (
            [w.write(problem.answer) for w in WRAPPERS.values() if w is not task.wrapper]
            if isinstance(task, Wrapped)
            else []
        )
        wrong = [*task.wrong_texts(problem), *elsewhere, *(HOSTILE if problem is problems[0] else ())]
        for text, due in ((task.write(problem.answer), 1.0), *((text, 0.0) for text in wrong)):
            try:
                verdict = task.verify(problem, text)
            except Exception as error:
                where = place_of(error, PLACES) or task.name
                return f"{problem.id}: its verifier raised {type(error).__name__} ({error}) at {where}, on {text[:80]!r}: a verifier never raises"
            if verdict.reward != due and due:
                return f"{problem.id}: the gold answer {problem.answer} earns {verdict.reward}: {verdict.feedback}"
            if verdict.reward != due:
                return f"{problem.id}: the wrong answer {text[:80]!r} earns a reward"
    return None


def data(name: str | None) -> Iterator[Check]:
    """Every data set of a folder or the hub: what was kept, which rows were skipped and why, each difficulty's splits, and the verdicts on some."""
    if not name or name == PROCEDURAL:
        raise ValueError("validate data wants hub or a folder")
    there = [task for task in tasks_in(check_source(name)) if task in DATA]
    if not there:
        raise ValueError(
            f"{name} holds none of {', '.join(f'{kind.stem}.{ending}' for kind in DATA.values() for ending in kind.endings)}"
        )
    for task_name in there:
        kind = DATA[task_name]
        try:
            rows = load(kind, name)
        except ValueError as error:
            yield task_name, str(error)
            continue
        yield f"{task_name}: {rows.source}, {len(rows.items)} problems kept, {len(rows.skipped)} skipped", None
        for reason, count in rows.facts["skipped"].items():
            yield (
                f"{task_name}: skipped {count} for {reason}: {', '.join(row for row, why in rows.skipped if why == reason)}",
                None,
            )
        for knobs in kind.levels:
            task = task_from(name, task_name, knobs)
            problems = [
                task.problem(split, 0, i) for split in ("train", "test") for i in range(min(JUDGED, task.sizes[split]))
            ]
            yield (
                f"{task_name} {json.dumps(knobs)}: {task.sizes['train']} train, {task.sizes['test']} test",
                misjudged(task, problems),
            )


def streams(name: str | None) -> Iterator[Check]:
    """Every stream reads, and every preset can run it whatever the seed: difficulties in range all along, held-out problems to be had, stages that
    batches tell apart, and for methods that evolve prompts a budget and a lookahead that hold what one round needs."""
    for stream in [name] if name else stream_files():
        try:
            spec = load_spec(stream)
        except ValueError as error:
            yield stream, str(error)
            continue
        if name is None and spec.name != stream:
            yield stream, f"its file says it is named {spec.name}"
        found: dict[str, str | None] = {}
        for preset in preset_files():
            try:
                found[preset] = unaffordable(stream, preset) or unplayable(stream, preset)
            except ValueError as error:
                found[preset] = str(error)
        if len(complaints := set(found.values())) == 1 and None not in complaints:
            yield f"{stream} with any preset", complaints.pop()
        else:
            yield from ((f"{stream} with preset {preset}", complaint) for preset, complaint in found.items())


def unplayable(stream: str, preset: str) -> str | None:
    """Where two stages would end in one batch; ValueError where a problem can't be had."""
    config, spec = resolve(stream, "base", preset)
    for seed in range(SEEDS):
        stages = schedule(spec, seed, config.stage_problems)
        if len({-(-stage.end // config.batch) for stage in stages}) < len(stages):
            return f"with seed {seed} a batch of {config.batch} problems holds the ends of two stages"
    if config.data != PROCEDURAL:
        return None  # what rows there are, `validate data` says
    made = Stream(spec, 0, config.difficulty, config.stage_problems)
    for task in made.passed():
        draw(task.name, task.difficulty, "train", 1)
    for task in made.held_out().values():
        draw(task.name, task.difficulty, "test", config.evaluation.boundary)
    return None


@cache  # most streams and presets share their difficulties
def draw(task: str, difficulty: BaseModel, split: Split, n: int) -> None:
    """ValueError where a task has fewer than n problems in a split."""
    find_task(task)(difficulty).problems(split, 0, n)


def unaffordable(stream: str, preset: str) -> str | None:
    """Why a round of evolution can't be what its settings say: everyone's, and those of each method that has its own. ValueError where the
    settings themselves are refused, such as a budget that a round can't be paid from."""
    own = for_methods(load_preset(preset), preset) | for_methods(load_spec(stream).settings, stream)
    for method in ["base", *(name for name in own if find_method(name).evolves)]:
        config, spec = resolve(stream, method, preset)
        fast, shortest = config.fast, min(schedule(spec, seed, config.stage_problems)[-1].end for seed in range(SEEDS))
        ahead = min(fast.cycle * config.batch, shortest)
        if ahead < fast.valset_size + fast.reflection_minibatch_size:
            return f"a cycle looks {ahead} problems ahead, too few for an valset of {fast.valset_size} and a minibatch of {fast.reflection_minibatch_size}"
    return None


def run(name: str | None) -> Iterator[Check]:
    """A finished run: its files are those of its manifest, its evaluation rows those that its settings ask for, its rewards those of the
    verifiers, its metrics those of its rows. The leaderboard looks at the same parts of what is submitted."""
    from fst_bench.harness.loop import recorded
    from fst_bench.leaderboard.bundle import run_of
    from fst_bench.leaderboard.check import MEASURED, ledger, looked_at
    from fst_bench.leaderboard.submit import files_of

    if not name:
        raise ValueError("validate run wants a run directory")
    store = Store(Path(name))
    seed = recorded(store, ["tasks"])[0].seed  # who learned is no matter here, so its code is not run
    broken = store.broken()
    yield "manifest", f"changed since the run: {', '.join(broken)}" if broken else None
    yield from looked_at(run_of(seed, files_of(store, seed)), {"ledger": ledger, **MEASURED})


VALIDATE: dict[str, Callable[[str | None], Iterator[Check]]] = {
    "tasks": tasks,
    "methods": methods,
    "streams": streams,
    "run": run,
    "protocol": protocol.check,
    "data": data,
}
