"""The loop of a run: stream -> method.step -> evaluate -> checkpoint, and the same again after a kill.

run = fst_bench.run(stream="continual-4", method="fst", seed=0)
run.evals, run.metrics, run.ledger
"""

import hashlib
import math
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from weakref import WeakKeyDictionary

import torch
from pydantic import BaseModel, Field

from fst_bench.core.errors import NotFinite, Taken, Unwritable, explain
from fst_bench.core.registry import Source
from fst_bench.core.types import ProblemHandle, Score
from fst_bench.fast.reflectors import load_reflector
from fst_bench.harness.config import REGISTRIES, Config, resolve
from fst_bench.harness.environment import environment
from fst_bench.harness.evaluate import (
    TEST_SEED,
    Cell,
    ScheduledEvaluation,
    Snapshot,
    evaluate,
    evaluation_schedule,
)
from fst_bench.harness.evaluator import Evaluator
from fst_bench.harness.planning.memory import with_cache
from fst_bench.harness.rows import AnswerRow, EvaluationRow, PopulationRow, Row, StageRow, StepRow
from fst_bench.harness.run import Fingerprint, Run
from fst_bench.harness.store import Store, complete, sha256, written
from fst_bench.method.contract import check_memory, metrics_of, state_of
from fst_bench.method.lab import Lab
from fst_bench.method.ledger import Ledger
from fst_bench.method.settings import MethodConfig
from fst_bench.metrics import summarise
from fst_bench.policy import load_policy
from fst_bench.policy.interface import Progress
from fst_bench.policy.models import fingerprint, refuse_other_model
from fst_bench.tasks.data import refuse_other
from fst_bench.tasks.stream import Stream, StreamSpec

LATER = {"hover-search"}
"""Tasks whose difficulty the presets did not have when the first published runs got their ids."""


class Callback:
    """An observer of the loop. This one does nothing; the terminal's display and the trackers are callbacks.

    What a callback of your own raises ends the run as it is: `resume` continues it from its last checkpoint. The
    display and the trackers raise nothing.
    """

    def on_begin(self, config: Config, stream: Stream, path: Path, step: int) -> None:
        """Called before the first step, with the steps that a checkpoint holds already."""

    def on_step(self, row: StepRow, ledger: Ledger) -> None:
        """Called after each training step."""

    def on_progress(self, answers: int, total: int) -> None:
        """Called often while an evaluation samples, with the answers of a turn that are whole, and all of them."""

    def on_evaluation(self, rows: Sequence[EvaluationRow]) -> None:
        """Called after each evaluation."""

    def on_population(self, row: PopulationRow) -> None:
        """Called after each round of prompt evolution."""

    def on_note(self, text: str) -> None:
        """Called with what a person should know, in one line."""

    def on_end(self) -> None:
        """Called when the loop ends, whether the run is finished or not."""


def run(
    stream: str,
    method: str,
    out: str | Path = "runs",
    seed: int = 0,
    preset: str = "tiny",
    callback: Callback | None = None,
    once: bool = False,
    **settings: Any,
) -> Run:
    """Run a method on a stream, each a name or a file, from the start.

    `settings` are sections or values, as in slow={"ratio_clip_max": 4.0}, batch=8. Raises ValueError in one line for a
    wrong setting; with `once`, Taken where these settings have a run already, which otherwise gets a number.
    """
    return start(*resolve(stream, method, preset, seed, settings), Path(out), callback, once)


def start(config: Config, spec: StreamSpec, out: Path, callback: Callback | None = None, once: bool = False) -> Run:
    """Run a resolved configuration from the start. Raises Taken as `run` does."""
    bench = Bench(config, spec)  # raises what is wrong with the settings before a directory is made
    # takes a moment: before the directory is made, so that a kill rarely leaves one without a config.json
    found = environment(config.threads)
    parts = run_parts(config, spec)
    store = Store(out.joinpath(*parts)) if once else Store.create(out, parts)
    with store.held():
        if once and store.begun:
            raise Taken(f"{store.path} exists already: fst-bench resume {store.path}")
        keep_code(config, store)
        store.write("env", found)
        store.write("config", described(config, spec))  # last: with it the directory is a run
        return bench.loop(store, callback or Callback())


def resume(path: str | Path, callback: Callback | None = None) -> Run:
    """Continue a killed run from its last checkpoint; a finished run is returned as it is.

    Raises Taken where another process works on it.
    """
    store = Store(Path(path))
    store.read("config")
    if store.finished:
        return Run(store)
    if owner := store.holder():  # said before the model is loaded
        raise Taken(f"{store.path} is in use by {owner}: wait until that has ended")
    bench = Bench(*recorded(store))  # on several machines only the first one comes back from here
    with store.held():
        if store.finished:
            return Run(store)
        refuse_other_weights(store, bench.config)
        return bench.loop(store, callback or Callback())


def refuse_other_weights(store: Store, config: Config) -> None:
    """Raise ValueError where the model that a run was begun on, or the checkpoint it started from, is now another."""
    then = Run(store).fingerprint
    refuse_other_model(config.model, then.model)
    if then.init and then.init != start_of(config):
        raise ValueError(f"the run was begun from other weights than those that {config.init} now holds")


def start_of(config: Config) -> str | None:
    """Return the sha256 of the weights that a run starts with, where they are not the model's."""
    return None if config.init is None else sha256(complete(Path(config.init)) / "weights.safetensors")


def run_parts(config: Config, spec: StreamSpec) -> tuple[str, str, str]:
    """Return the run directory below <out>: stream, method, and an id of every setting that is not at its default.

    So a setting that is added later, with a default that changes nothing, leaves the ids of finished runs alone; and so
    does a task that came later, in the ids of streams without it.
    """
    unused = LATER - {stage.task for stage in spec.stages}
    counted = {task: values for task, values in config.difficulty.items() if task not in unused}
    text = config.model_copy(update={"difficulty": counted}).model_dump_json(exclude_defaults=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{spec.name}@{spec.version}", config.method, f"{config.preset}-s{config.seed}-{digest}"


def described(config: Config, spec: StreamSpec) -> dict[str, Any]:
    """Return config.json: the run's identity, its stages in problems, and all that is required to run it again.

    Its `data` is the identity of the data set's rows, its `fingerprint` that of the model and of what it starts from.
    """
    stream = Stream(spec, config.seed, config.difficulty, config.stage_problems, config.data)
    return {
        "stream": spec.name,
        "stream_version": spec.version,
        "method": config.method,
        "preset": config.preset,
        "seed": config.seed,
        "model": config.model,
        "seed_prompt": config.seed_prompt,
        "stages": [stage.model_dump(mode="json") for stage in stage_rows(stream)],
        "announced": spec.announced,
        "task_visible": spec.task_visible,
        "data": stream.sources(),
        "fingerprint": Fingerprint(model=fingerprint(config.model), init=start_of(config)).model_dump(),
        "config": config.model_dump(mode="json"),
        "spec": spec.model_dump(mode="json"),
    }


def stage_rows(stream: Stream) -> list[StageRow]:
    """Return the stages of a stream as config.json has them."""
    return [StageRow(stage=s.number, tasks=tuple(s.tasks), start=s.start, end=s.end) for s in stream.stages]


def keep_code(config: Config, store: Store) -> None:
    """Copy the files of a run's method and tasks into it, under `code/`.

    A resume uses the copies, whatever becomes of the originals.
    """
    for key in config.code:
        kind, _, name = key.partition("/")
        if kind in REGISTRIES and (text := REGISTRIES[kind].loaded[name].text) is not None:
            path = store.path / "code" / f"{key}.py"
            with written(path, len(text)):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text)


class Written(BaseModel):
    """The part of a config.json that has to be known before its settings can be checked."""

    code: dict[Annotated[str, Field(pattern=r"^(methods|tasks(/reasoning-gym)?|streams)/[^/\\]+$")], Source] = {}


def recorded(store: Store, kinds: Collection[str] = tuple(REGISTRIES)) -> tuple[Config, StreamSpec]:
    """Return the configuration and the stream of a run; the code of `kinds` that it was made with is loaded.

    Raises ValueError in one line where its config.json is not that of a run or has settings of an older fst-bench,
    where its data is no longer the same, or where its code is missing.
    """
    saved = Run(store).saved
    written = explain(Written, saved["config"], "config.json").code
    for key, source in written.items():
        kind, _, name = key.partition("/")
        if kind in kinds:
            REGISTRIES[kind].recall(name, source, store.path / "code" / f"{key}.py")
    config = explain(Config, saved["config"], "config.json")
    spec = explain(StreamSpec, saved.get("spec", {}), "config.json")
    refuse_other(config.data, spec.tasks, saved.get("data", {}))
    return config, spec


_STREAMS: WeakKeyDictionary["StreamProblems", Stream] = WeakKeyDictionary()
_LONGEST: WeakKeyDictionary["StreamProblems", list[str]] = WeakKeyDictionary()
MEASURED = 5_000
"""Problems of a stream among which the longest is searched for."""


class StreamProblems:
    """The lab's `ProblemSource` over a stream.

    The stream is kept in a table of this module, and not in an attribute: a method that walks attributes from its lab
    finds no task and no answer.
    """

    def __init__(self, stream: Stream, batch: int, held_out: int):
        self._batch, self._held_out = batch, held_out
        _STREAMS[self] = stream

    def batch(self, step: int) -> range:
        return _STREAMS[self].batch(step, self._batch)

    def handle(self, index: int) -> ProblemHandle:
        stream = _STREAMS[self]
        return ProblemHandle(index, stream.problem(index).prompt, **stream.visible(index))

    def respond(self, index: int, turns: Sequence[str]) -> str | None:
        stream = _STREAMS[self]
        problem = stream.problem(index)
        return stream.verifier_of(index).at(problem).respond(problem, turns)

    def verify(self, index: int, text: str, earlier: Sequence[str]) -> Score:
        stream = _STREAMS[self]
        return stream.verifier_of(index).verify(stream.problem(index), text, earlier)

    def longest(self) -> list[str]:
        if self not in _LONGEST:
            stream, found = _STREAMS[self], dict[str, str]()
            problems = [task.problems("test", TEST_SEED, self._held_out) for task in stream.held_out().values()]
            problems.append([stream.problem(i) for i in range(0, stream.total, 1 + stream.total // MEASURED)])
            for problem in (one for some in problems for one in some):
                task = problem.id.rpartition("-")[0]
                found[task] = max(found.get(task, ""), problem.prompt, key=lambda text: len(text.encode()))
            _LONGEST[self] = list(found.values())
        return _LONGEST[self]


class Bench:
    """A run in progress: the stream and its answers on this side, the method behind its lab on the other.

    Raises ValueError in one line where the data, the model or the reflector that the settings name cannot be used.
    """

    def __init__(self, config: Config, spec: StreamSpec):
        torch.set_num_threads(config.threads)
        # on a GPU it refuses matrix products, cumsum and more
        torch.use_deterministic_algorithms(config.policy.device == "cpu")
        self.config = config
        self.stream = Stream(spec, config.seed, config.difficulty, config.stage_problems, config.data)
        self.steps = math.ceil(self.stream.total / config.batch)
        self.ends = self.stream.ends(config.batch)
        self.schedule = evaluation_schedule(self.stream, config.batch, config.evaluation)
        for stage in self.stream.stages:  # too few rows are an error now, and not in the run
            self.stream.problem(stage.start)
        held_out = max(config.evaluation.small, config.evaluation.boundary)
        for task in self.stream.held_out().values():
            task.problem("test", TEST_SEED, held_out - 1)
        self.ledger = Ledger()
        self.policy = load_policy(config.model, with_cache(config), config.backend)
        if any(task.has_tool for task in self.stream.held_out().values()):
            self.policy.template.check_replies()
        if config.init:
            self.policy.start_from(complete(Path(config.init)))
        self.pending: list[tuple[str, dict[str, Any]]] = []
        """(record file, row) that the lab has recorded in this step."""
        self.lab = Lab(
            self.policy,
            self.ledger,
            config.seed,
            StreamProblems(self.stream, config.batch, held_out),
            load_reflector(config.fast, self.policy, self.ledger),
            partial(record, self.pending),
            config.training.temperature,
        )
        own = config.method_class().Settings.model_validate(config.settings)
        self.method = config.method_class()(self.lab, MethodConfig(config.seed_prompt, config.slow, config.fast, own))
        self.noted = False
        """Whether the callback knows that the ceiling of reflection was met."""
        self.oracle: dict[str, dict[str, Any]] = {}
        """Task -> the method's state at the end of that task's last stage."""
        self.evaluator: Evaluator | None = None
        """The process that evaluates, where it is not this one."""

    def loop(self, store: Store, callback: Callback) -> Run:
        """Run from the last checkpoint in the run directory, or the start, to the end of the stream."""
        done = self._restore(store)
        if self.config.evaluator == "process":
            evaluated = {row["step"] for row in store.rows("evals")}
            self.evaluator = Evaluator(
                store, [step for step in self.schedule if step <= done and step not in evaluated]
            )
        step = max(done, 0)
        callback.on_begin(self.config, self.stream, store.path, step)
        for note in self.policy.template.notes:
            callback.on_note(note)
        try:
            if done < 0:
                self._evaluate(store, callback, self.schedule[0])
                self._checkpoint(store, 0)
                done = 0
            for step in range(done + 1, self.steps + 1):
                start = time.perf_counter()
                batch = self.lab.begin(step - 1)
                metrics = metrics_of(self.method.step(batch))
                self.lab.audit()
                row = StepRow(
                    step=step,
                    stage=self.stream.stage_of(batch[-1].index).number,
                    problems=batch[-1].index + 1,
                    **{"reward": None} | metrics,
                    seconds=round(time.perf_counter() - start, 3),
                )
                self._flush(store, callback, row)
                if step in self.schedule:
                    self._evaluate(store, callback, self.schedule[step])
                self._collect(store, callback)
                ending = self.config.checkpoint.stages and step in self.ends
                if step % self.config.checkpoint.every == 0 or step == self.steps or ending:
                    self._checkpoint(store, step)
            self._collect(store, callback, everything=True)
            return self._finish(store, callback)
        except NotFinite as error:
            raise NotFinite(f"step {step}: {error}") from None
        except Unwritable as error:
            again = f"no step before its last checkpoint is lost: fst-bench resume {store.path}"
            raise Unwritable(f"step {step}: {error}; {again}") from None
        finally:
            if self.evaluator:
                self.evaluator.close()
            callback.on_end()

    def _flush(self, store: Store, callback: Callback, row: StepRow) -> None:
        """Write what the lab has recorded in a step, and the step."""
        for name in dict.fromkeys(name for name, _ in self.pending):
            rows = [record for n, record in self.pending if n == name]
            if name == "prompts":
                rows = [record | {"stage": row.stage} for record in rows]  # known on this side of the lab only
                for record in rows:
                    callback.on_population(explain(PopulationRow, record, "prompts"))
            store.append(name, rows)
        self.pending.clear()
        store.append("events", dumped([row]))
        callback.on_step(row, self.ledger)
        if self.ledger.reflection_reasons["ceiling"] and not self.noted:
            self.noted = True
            why = "it could have exceeded the ceiling"
            callback.on_note(f"a reflection was not sent: {why}. Prompts stay as they are where that happens")

    def _evaluate(self, store: Store, callback: Callback, scheduled: ScheduledEvaluation) -> None:
        """Evaluate the method as it is, here or from its snapshot beside learning.

        The method's state is kept for the oracle prompt of the tasks that end here.
        """
        state = state_of(self.method)
        self.oracle |= dict.fromkeys(scheduled.ended, state)
        if self.evaluator:
            with self.ledger.timed("checkpoint"):
                job = {"method": state, "oracle": self.oracle, "ledger": self.ledger.to_dict()}
                self.evaluator.submit(scheduled.step, job, self.policy.save)
            return
        with self.ledger.timed("evaluate"):
            found = self.evaluated(scheduled, state, self.oracle, self.ledger, callback.on_progress)
        self._keep(store, callback, *found)

    def evaluated(
        self,
        scheduled: ScheduledEvaluation,
        state: dict[str, Any],
        oracle: dict[str, dict[str, Any]],
        ledger: Ledger,
        progress: Progress | None = None,
    ) -> tuple[list[EvaluationRow], list[AnswerRow]]:
        """Return rows and answers of the policy under the prompts of a state of the method, and of its oracles."""
        own = Snapshot(self.method, state)
        oracles = {task: Snapshot(self.method, kept) for task, kept in oracle.items()}

        def context_for(task: str, mode: str) -> Callable[[str], str]:
            if mode == "seed":
                return lambda prompt: self.config.seed_prompt
            snapshot = oracles[task] if mode == "oracle" else own
            return partial(snapshot.context_for, task=self.stream.id_of(task))

        contexts: dict[Cell, Callable[[str], str]] = {cell: context_for(*cell) for cell in scheduled.cells}
        settings, tasks = self.config.evaluation, self.stream.held_out()
        found = evaluate(self.policy, contexts, tasks, scheduled, ledger, settings, self.config.seed, progress)
        for snapshot in (own, *oracles.values()):
            snapshot.check()
        return found

    def _keep(
        self, store: Store, callback: Callback, rows: Sequence[EvaluationRow], answers: Sequence[AnswerRow]
    ) -> None:
        """Record an evaluation."""
        store.append("evals", dumped(rows))
        store.append("answers", dumped(answers))
        callback.on_evaluation(rows)

    def _collect(self, store: Store, callback: Callback, everything: bool = False) -> None:
        """Record the evaluations that were done beside learning since, or all that are open."""
        if self.evaluator:
            for rows, answers, seconds in self.evaluator.rows(everything):
                self.ledger.seconds["evaluate"] += seconds
                self._keep(store, callback, rows, answers)

    def _checkpoint(self, store: Store, step: int) -> None:
        """Save the run, and check that the method's state holds all that the method remembers."""
        with self.ledger.timed("checkpoint"):
            memory = state_of(self.method)
            check_memory(self.method, Snapshot(self.method, memory).method)
            state = {"method": memory, "oracle": self.oracle, "ledger": self.ledger.to_dict()}
            stay = self.ends if self.config.checkpoint.stages else []
            store.checkpoint(step, state, self.policy.save, self.config.checkpoint.keep, stay)
        if self.evaluator:
            self.evaluator.forget()

    def _restore(self, store: Store) -> int:
        """Load the last checkpoint and cut the records back to it. Return its steps, or -1 where none exists."""
        found = store.latest()
        if found is None:
            store.rewind({})
            return -1
        folder, state = found
        store.rewind(state["records"])
        self.policy.load(folder)
        self.method.load(state["method"])
        self.oracle = state["oracle"]
        # in place: the lab and the reflector hold it too
        vars(self.ledger).update(vars(Ledger.from_dict(state["ledger"])))
        return state["step"]

    def _finish(self, store: Store, callback: Callback) -> Run:
        """Write the summary and the ledger, and the manifest last."""
        stages = [stage.model_dump(mode="json") for stage in stage_rows(self.stream)]
        store.write("metrics", summarise(store.rows("evals"), stages, self.ledger.counts()))
        store.write("ledger", self.ledger.to_dict())
        if self.ledger.reflections and self.ledger.reflection_failures >= self.ledger.reflections:
            reasons = ", ".join(f"{n} {reason}" for reason, n in self.ledger.reflection_reasons.most_common())
            callback.on_note(f"EVERY reflection of this run failed ({reasons}): no prompt was ever proposed")
        if self.evaluator:
            self.evaluator.end()
        store.seal()
        return Run(store)


def record(pending: list[tuple[str, dict[str, Any]]], name: str, row: dict[str, Any]) -> None:
    """Keep a row until the step ends."""
    pending.append((name, row))


def dumped(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return typed rows as JSON values."""
    return [row.model_dump(mode="json") for row in rows]
