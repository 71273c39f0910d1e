"""Proofs that something is sound: each check yields (name, None) or (name, complaint)."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fst_bench.core.errors import RunError
from fst_bench.core.registry import PLACES, place_of
from fst_bench.core.types import Problem
from fst_bench.harness import protocol
from fst_bench.harness.config import for_methods, load_preset, preset_files, resolve
from fst_bench.harness.store import Store
from fst_bench.method.registry import METHODS, find_method
from fst_bench.tasks import TASKS, Task, find_task, load_task, reasoning_gym
from fst_bench.tasks.base import Split
from fst_bench.tasks.data import DATA, PROCEDURAL, check_source, load, task_from, tasks_in
from fst_bench.tasks.formats import WRAPPERS, Wrapped
from fst_bench.tasks.stream import Stream, load_spec, of_package, schedule, stream_files

if TYPE_CHECKING:
    from fst_bench.harness.run import Run

# torch takes seconds to import: the checks of methods and runs import what needs it

Check = tuple[str, str | None]
SEEDS = 20
"""Seeds whose stage lengths are checked."""
DRAWN = 200
"""Problems of each split among which one that both hold is searched for."""
JUDGED = 50
"""Problems of those whose answers are scored."""
FEW = 10
"""Both for each of a package's many sets, where all are checked: `validate tasks NAME` takes as many of one as else."""
ADVERSARIAL = (
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
"""Texts that earn nothing anywhere, and on which no verifier may raise."""


# --- tasks


def tasks(name: str | None) -> Iterator[Check]:
    """Check every difficulty and answer format of a task, or of all shipped ones and the sets of reasoning-gym.

    Problems are the same when they are drawn again, and none is both held out and in training. The gold answer earns
    1.0; listed wrong answers, adversarial texts, and the gold answer in another format earn 0.0.
    """
    installed = reasoning_gym.version() is not None
    if not (name or installed):
        yield f"{reasoning_gym.FAMILY}: not checked, the package is not installed: pip install 'fst-bench[gym]'", None
    for task_name in [name] if name else [*TASKS, *(reasoning_gym.allowed() if installed else ())]:
        made = find_task(task_name)
        drawn, judged = (DRAWN, JUDGED) if name or task_name in TASKS else (FEW, FEW)
        variants: list[dict[str, Any]] = [{"format_given": True}]
        if issubclass(made, Wrapped):
            variants += [{"answer_format": wrapper} for wrapper in WRAPPERS]
        for difficulty in [*made.levels, *(made.levels[1] | variant for variant in variants)]:
            task = load_task(task_name, **difficulty)
            train, test = task.problems("train", 0, drawn), task.problems("test", 0, drawn)
            different = len({problem.id for problem in test})
            yield (
                f"{task_name} {json.dumps(difficulty)}, {different} different problems among {drawn} held out",
                unrepeatable(task, train)
                or leaking(task, train, test)
                or misjudged(task, train[:judged] + test[:judged]),
            )


def unrepeatable(task: Task, train: list[Problem]) -> str | None:
    """Return that problems differ when they are drawn again, if they do."""
    if [task.problem("train", 0, i) for i in range(5)] == train[:5]:
        return None
    return "problem 0 is another one when it is drawn again: every choice has to be taken from rng"


def leaking(task: Task, train: list[Problem], test: list[Problem]) -> str | None:
    """Return which held-out problem is in training too, if one is.

    A key decides the split, so one problem has to have one key. Where a tool replies, what it knows is part of the
    problem: the same claim over other passages is another one.
    """

    def content(problem: Problem) -> str:
        return problem.prompt + (repr(problem.data) if task.has_tool else "")

    trained = {content(problem): problem.id for problem in train}
    for problem in test:
        if key := trained.get(content(problem)):
            keys = f"under another key ({key}, {problem.id})"
            return (
                f"a held-out problem is in training, {keys}: the key is to be the problem's content, and nothing else"
            )
    return None


def misjudged(task: Task, problems: list[Problem]) -> str | None:
    """Return the first text that is scored wrongly, if one is.

    These are a gold answer without a reward, a listed wrong or adversarial text with one, and a text on which the
    verifier raises.
    """
    others = [wrapper for wrapper in WRAPPERS.values() if isinstance(task, Wrapped) and wrapper is not task.wrapper]
    for problem in problems:
        wrong = [*task.wrong_texts(problem), *(wrapper.write(problem.answer) for wrapper in others)]
        if problem is problems[0]:
            wrong += ADVERSARIAL
        for text, expected in ((task.write(problem.answer), 1.0), *((text, 0.0) for text in wrong)):
            try:
                score = task.verify(problem, text)
            except Exception as error:
                raised = f"{type(error).__name__} ({error}) at {place_of(error, PLACES) or task.name}"
                return f"{problem.id}: its verifier raised {raised}, on {text[:80]!r}: a verifier never raises"
            if score.reward != expected and expected:
                return f"{problem.id}: the gold answer {problem.answer} earns {score.reward}: {score.feedback}"
            if score.reward != expected:
                return f"{problem.id}: the wrong answer {text[:80]!r} earns a reward"
    return None


# --- methods


def methods(name: str | None) -> Iterator[Check]:
    """Check on a short stream that a method, or each shipped one, keeps its contract.

    It runs, samples no more than its estimate, runs the same again, and ends the same where it was stopped and resumed.
    """
    from fst_bench.harness import loop
    from fst_bench.harness.planning.cost import estimate

    short: dict[str, Any] = {"preset": "smoke", "stage_problems": 16, "checkpoint": {"every": 1, "keep": 9}}
    for method in [name] if name else METHODS:
        with TemporaryDirectory() as folder:
            whole, again, cut = (Path(folder) / part for part in ("whole", "again", "cut"))
            try:
                first = loop.run("single-math", method, whole, **short)
                second = loop.run("single-math", method, again, **short)
                shutil.copytree(first.path, cut)
                forget_after_second_step(Store(cut))
                resumed = loop.resume(cut)
            except RunError as error:
                yield f"{method}: a run", str(error)
                continue
            yield f"{method}: a run", None
            estimated = estimate(*loop.recorded(Store(first.path)))
            most = estimated["training_rollouts"] + estimated["evolution_rollouts"]
            spent = sum(first.ledger["rollouts"].values())
            yield (
                f"{method}: what a dry run says",
                f"it sampled {spent} rollouts, at most {most} by its most_rollouts" if spent > most else None,
            )
            for how, other in (("run again", second), ("stopped and resumed", resumed)):
                yield f"{method}: {how}", differing(first, other)


def forget_after_second_step(store: Store) -> None:
    """Make a finished run of four steps one that was killed after its second."""
    (store.path / "manifest.json").unlink()
    for checkpoint in store.checkpoints()[3:]:
        shutil.rmtree(checkpoint)


def differing(one: "Run", other: "Run") -> str | None:
    """Return which records of two runs differ, if some do."""
    files = [
        file
        for file in ("metrics.json", "rollouts.jsonl", "answers.jsonl")
        if content(one, file) != content(other, file)
    ]
    if not files:
        return None
    reason = "a choice is not taken from lab.random, or depends on what state() does not hold"
    return f"{' and '.join(files)} came out otherwise: {reason}"


def content(run: "Run", file: str) -> bytes | None:
    return (run.path / file).read_bytes() if (run.path / file).exists() else None


# --- streams


def streams(name: str | None) -> Iterator[Check]:
    """Check that a stream, or each shipped one, can be run with every preset and any seed.

    Its difficulties are in range all along, its held-out problems exist, and no batch holds the ends of two stages. For
    methods that evolve prompts, the budget and the lookahead hold what one round needs.
    """
    for stream in [name] if name else stream_files():
        if name is None and of_package(stream) and reasoning_gym.version() is None:
            yield f"{stream}: not checked, {reasoning_gym.FAMILY} is not installed: pip install 'fst-bench[gym]'", None
            continue
        try:
            spec = load_spec(stream)
        except ValueError as error:
            yield stream, str(error)
            continue
        if name is None and spec.name != stream:
            yield stream, f"its file has the name {spec.name}"
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
    """Return whether two stages end in one batch, for any seed. Raises ValueError where a problem does not exist."""
    config, spec = resolve(stream, "base", preset)
    for seed in range(SEEDS):
        stages = schedule(spec, seed, config.stage_problems)
        if len({math.ceil(stage.end / config.batch) for stage in stages}) < len(stages):
            return f"with seed {seed} a batch of {config.batch} problems holds the ends of two stages"
    if config.data != PROCEDURAL:
        return None  # which rows exist, `validate data` checks
    made = Stream(spec, 0, config.difficulty, config.stage_problems)
    for task in made.passed():
        draw(task.name, task.difficulty.model_dump_json(exclude_unset=True), "train", 1)
    for task in made.held_out().values():
        draw(task.name, task.difficulty.model_dump_json(exclude_unset=True), "test", config.evaluation.boundary)
    return None


@cache  # most streams and presets share their difficulties
def draw(task: str, difficulty: str, split: Split, n: int) -> None:
    """Raise ValueError where a task has fewer than n problems in a split. The difficulty is JSON: it may hold lists."""
    made = find_task(task)
    made(made.Difficulty.model_validate_json(difficulty)).problems(split, 0, n)


def unaffordable(stream: str, preset: str) -> str | None:
    """Return why a round of prompt evolution can't be what its settings ask for, if it can't.

    Checked are the settings for all methods, and those of each method that has its own. Raises ValueError where the
    settings themselves are refused, such as a budget that is too small for a round.
    """
    own = for_methods(load_preset(preset), preset) | for_methods(load_spec(stream).settings, stream)
    for method in ["base", *(name for name in own if find_method(name).evolves)]:
        config, spec = resolve(stream, method, preset)
        fast = config.fast
        shortest = min(schedule(spec, seed, config.stage_problems)[-1].end for seed in range(SEEDS))
        ahead = min(fast.cycle * config.batch, shortest)
        if ahead < fast.valset_size + fast.reflection_minibatch_size:
            sizes = f"a valset of {fast.valset_size} and a minibatch of {fast.reflection_minibatch_size}"
            return f"a cycle looks {ahead} problems ahead, too few for {sizes}"
    return None


# --- runs and data


def run(name: str | None) -> Iterator[Check]:
    """Check a finished run by the parts that the leaderboard checks of a submission.

    Its files are those of its manifest, its steps one after another, its evaluation rows those that its settings ask
    for, its rewards those of the verifiers, its metrics those of its rows.
    """
    from fst_bench.harness.loop import recorded
    from fst_bench.harness.run import Run, disorder
    from fst_bench.leaderboard.bundle import SubmittedRun
    from fst_bench.leaderboard.check_run import MEASURED, ledger, parts_of

    if not name:
        raise ValueError("validate run requires a run directory")
    store = Store(Path(name))
    recorded(store, ["tasks"])  # loads the tasks' code; the method's is not needed, so it is not run
    broken = store.broken()
    yield "manifest", f"changed since the run: {', '.join(broken)}" if broken else None
    yield "order", next(disorder(Run(store)), None)
    yield from parts_of(SubmittedRun(store), {"ledger": ledger, **MEASURED})


def data(name: str | None) -> Iterator[Check]:
    """Check every data set of a folder or the hub.

    Shown are the rows that were kept, those that were skipped and why, and each difficulty's splits; answers to some
    problems are scored.
    """
    if not name or name == PROCEDURAL:
        raise ValueError("validate data requires hub or a folder")
    found = [task for task in tasks_in(check_source(name)) if task in DATA]
    if not found:
        files = ", ".join(f"{made.stem}.{ending}" for made in DATA.values() for ending in made.endings)
        raise ValueError(f"{name} holds none of {files}")
    for task_name in found:
        made = DATA[task_name]
        try:
            rows = load(made, name)
        except ValueError as error:
            yield task_name, str(error)
            continue
        yield f"{task_name}: {rows.source}, {len(rows.items)} problems kept, {len(rows.skipped)} skipped", None
        for reason, count in rows.facts["skipped"].items():
            names = ", ".join(row for row, why in rows.skipped if why == reason)
            yield f"{task_name}: skipped {count} for {reason}: {names}", None
        for difficulty in made.levels:
            task = task_from(name, task_name, difficulty)
            train, test = (
                [task.problem(split, 0, i) for i in range(min(JUDGED, task.sizes[split]))]
                for split in ("train", "test")
            )
            yield (
                f"{task_name} {json.dumps(difficulty)}: {task.sizes['train']} train, {task.sizes['test']} test",
                misjudged(task, train + test),
            )


VALIDATE: dict[str, Callable[[str | None], Iterator[Check]]] = {
    "tasks": tasks,
    "methods": methods,
    "streams": streams,
    "run": run,
    "protocol": protocol.check,
    "data": data,
}
