"""THE loop: stream -> method.step -> evaluate -> checkpoint, and back again after a kill.

run = fst_bench.run(stream="continual-4", method="fst", seed=0)
run.evals, run.metrics, run.ledger
"""

import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
from pydantic import BaseModel, Field

from fst_bench.config import SHELVES, Config, resolve
from fst_bench.contract import check_memory, facts_of, state_of
from fst_bench.data import refuse_other
from fst_bench.environment import environment
from fst_bench.errors import NotFinite, explain
from fst_bench.evaluate import TEST_SEED, Due, Frozen, Point, calendar, evaluate
from fst_bench.fast.reflectors import load_reflector
from fst_bench.fit import with_cache
from fst_bench.lab import Handle, Lab, MethodConfig
from fst_bench.ledger import Ledger
from fst_bench.metrics import summarise
from fst_bench.plugins import Source
from fst_bench.policy import load_policy
from fst_bench.report import write_report
from fst_bench.store import Store, complete
from fst_bench.stream import Stream, StreamSpec
from fst_bench.tasks import Verdict

LATER = {"hover-search"}
"""Tasks whose difficulty the presets did not have when the first published runs got their ids."""


class Watcher:
    """Whoever looks on: told of each step, evaluation and population. This one says nothing; see `display`."""

    def begin(self, config: Config, stream: Stream, path: Path, step: int) -> None: ...
    def step(self, row: dict[str, Any], ledger: Ledger) -> None: ...
    def evaluation(self, rows: list[dict[str, Any]]) -> None: ...
    def population(self, row: dict[str, Any]) -> None: ...
    def note(self, text: str) -> None: ...
    def end(self) -> None: ...


@dataclass(frozen=True)
class Run:
    """A run directory, read."""

    path: Path

    @property
    def store(self) -> Store:
        return Store(self.path)

    @cached_property
    def evals(self) -> pd.DataFrame:
        """One row per (evaluation point, task, prompt mode)."""
        return pd.DataFrame(self.store.rows("evals"))

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return self.store.read("metrics")

    @cached_property
    def ledger(self) -> dict[str, Any]:
        return self.store.read("ledger")


def run(
    stream: str, method: str, out: str | Path = "runs", seed: int = 0, preset: str = "tiny", watcher: Watcher | None = None, **settings: Any
) -> Run:  # fmt: skip
    """Run a method on a stream, each a name or a file, from the start; `settings` are sections or values, as in slow={"cap": 4.0}, batch=8."""
    return start(*resolve(stream, method, preset, seed, settings), Path(out), watcher)


def start(config: Config, spec: StreamSpec, out: Path, watcher: Watcher | None = None) -> Run:
    """A run from its resolved configuration."""
    bench = Bench(config, spec)  # whatever is wrong with the settings is said before a directory is made
    found = environment(config.threads)  # takes a moment: before the directory, so that a kill hardly leaves one that is no run
    store = Store.create(out, run_parts(config, spec))
    keep_code(config, store)
    store.write("env", found)
    store.write("config", described(config, spec))  # last: with it the directory is a run
    return bench.loop(store, watcher or Watcher())


def run_parts(config: Config, spec: StreamSpec) -> tuple[str, str, str]:
    """The run directory below <out>: stream, method, and an id in which every setting counts that is not at its default.

    So a setting that is added later, with a default that changes nothing, leaves the ids of finished runs alone; and so does a task that
    came later, in the ids of streams without it.
    """
    alien = LATER - {stage.task for stage in spec.stages}
    counted = config.model_copy(update={"difficulty": {task: knobs for task, knobs in config.difficulty.items() if task not in alien}})
    digest = hashlib.sha256(counted.model_dump_json(exclude_defaults=True).encode()).hexdigest()[:6]
    return f"{spec.name}@{spec.version}", config.method, f"{config.preset}-s{config.seed}-{digest}"


def resume(path: str | Path, watcher: Watcher | None = None) -> Run:
    """Continue a killed run from its last checkpoint; a finished run is returned as it is."""
    store = Store(Path(path))
    store.read("config")
    if (store.path / "manifest.json").exists():
        return Run(store.path)
    config, spec = recorded(store)
    return Bench(config, spec).loop(store, watcher or Watcher())


def described(config: Config, spec: StreamSpec) -> dict[str, Any]:
    """config.json: what the run is, its stages in problems, and all that is needed to run it again; of data, which rows it was."""
    stream = Stream(spec, config.seed, config.difficulty, config.stage_problems, config.data)
    return {
        "stream": spec.name, "stream_version": spec.version, "method": config.method, "preset": config.preset, "seed": config.seed,
        "model": config.model, "seed_prompt": config.seed_prompt,
        "stages": [{"stage": s.number, "task": s.task, "start": s.start, "end": s.end} for s in stream.stages],
        "announced": spec.announced, "task_visible": spec.task_visible, "data": stream.sources(),
        "config": config.model_dump(mode="json"), "spec": spec.model_dump(mode="json"),
    }  # fmt: skip


def keep_code(config: Config, store: Store) -> None:
    """Copy the files of a run's method and tasks into it, under `code/`: it goes on from them, whatever becomes of the user's."""
    for key in config.code:
        kind, _, name = key.partition("/")
        if kind in SHELVES and (text := SHELVES[kind].loaded[name].text) is not None:
            path = store.path / "code" / f"{key}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)


def recorded(store: Store, kinds: Collection[str] = tuple(SHELVES)) -> tuple[Config, StreamSpec]:
    """The configuration and the stream of a run, and of `kinds` the code it was made with, loaded.

    ValueError in one line where its config.json is not one of ours, its data is no longer the same, or its code is not to be had.
    """
    saved = store.read("config")
    written = explain(Written, saved.get("config", {}), "config.json").code
    for key, source in written.items():
        kind, _, name = key.partition("/")
        if kind in kinds:
            SHELVES[kind].recall(name, source, store.path / "code" / f"{key}.py")
    config, spec = explain(Config, saved.get("config", {}), "config.json"), explain(StreamSpec, saved.get("spec", {}), "config.json")
    refuse_other(config.data, spec.tasks, saved.get("data", {}))
    return config, spec


class Written(BaseModel):
    """Of a config.json, what has to be known before its settings can be checked."""

    code: dict[Annotated[str, Field(pattern=r"^(methods|tasks|streams)/[^/\\]+$")], Source] = {}


class Bench:
    """One run in progress: the stream and its answers on this side, the method behind its lab on the other."""

    def __init__(self, config: Config, spec: StreamSpec):
        torch.set_num_threads(config.threads)
        torch.use_deterministic_algorithms(config.policy.device == "cpu")  # on a GPU it refuses matrix products, cumsum and more
        self.config = config
        self.stream = Stream(spec, config.seed, config.difficulty, config.stage_problems, config.data)
        self.steps = -(-self.stream.total // config.batch)
        self.ends = self.stream.ends(config.batch)
        self.due = calendar(self.stream, config.batch, config.evaluation)
        for stage in self.stream.stages:  # too few rows are said now, and not in the run
            self.stream.problem(stage.start)
        for task in self.stream.held_out().values():
            task.problem("test", TEST_SEED, max(config.evaluation.small, config.evaluation.boundary) - 1)
        self.ledger = Ledger()
        self.policy = load_policy(config.model, with_cache(config), config.backend)
        if config.init:
            self.policy.start_from(complete(Path(config.init)))
        stream = self.stream

        def respond(index: int, turns: Sequence[str]) -> str | None:
            return stream.verifier_of(index).respond(stream.problem(index), turns)

        def verify(index: int, text: str, before: Sequence[str]) -> Verdict:
            return stream.verifier_of(index).verify(stream.problem(index), text, before)

        def handle(index: int) -> Handle:
            return Handle(index, stream.problem(index).prompt, **stream.told(index))

        def batch(step: int) -> range:
            return stream.batch(step, config.batch)

        def record(name: str, row: dict[str, Any]) -> None:
            self.pending.append((name, row))

        self.pending: list[tuple[str, dict[str, Any]]] = []
        reflector = load_reflector(config.fast, self.policy, self.ledger)
        self.lab = Lab(self.policy, self.ledger, config.seed, respond, verify, handle, batch, reflector, record)
        own = config.method_class().Settings.model_validate(config.settings)
        self.method = config.method_class()(self.lab, MethodConfig(config.seed_prompt, config.slow, config.fast, own))
        self.told = False
        """Whether the watcher knows that the ceiling of reflection was met."""
        self.recalled: dict[str, dict[str, Any]] = {}
        """Task -> the method's state at the end of that task's last stage."""

    def loop(self, store: Store, watcher: Watcher) -> Run:
        """From the last checkpoint in the run directory, or the start, to the end of the stream."""
        done = self._restore(store)
        step = max(done, 0)
        watcher.begin(self.config, self.stream, store.path, step)
        try:
            if done < 0:
                self._evaluate(store, watcher, self.due[0])
                self._checkpoint(store, 0)
                done = 0
            for step in range(done + 1, self.steps + 1):
                start = time.perf_counter()
                batch = self.lab.begin(step - 1)
                facts = facts_of(self.method.step(batch))
                self.lab.audit()
                row = {"kind": "step", "step": step, "stage": self.stream.stage_of(batch[-1].index).number, "problems": batch[-1].index + 1}
                row |= {"reward": None} | facts | {"seconds": round(time.perf_counter() - start, 3)}
                self._flush(store, watcher, row)
                if step in self.due:
                    self._evaluate(store, watcher, self.due[step])
                ending = self.config.checkpoint.stages and step in self.ends
                if step % self.config.checkpoint.every == 0 or step == self.steps or ending:
                    self._checkpoint(store, step)
            return self._finish(store, watcher)
        except NotFinite as error:
            raise NotFinite(f"step {step}: {error}") from None
        finally:
            watcher.end()

    def _flush(self, store: Store, watcher: Watcher, row: dict[str, Any]) -> None:
        for name, record in self.pending:
            if name == "prompts":
                record["stage"] = row["stage"]  # known on this side of the lab only
                watcher.population(record)
        for name in dict.fromkeys(name for name, _ in self.pending):
            store.append(name, [record for n, record in self.pending if n == name])
        self.pending.clear()
        store.append("events", [row])
        watcher.step(row, self.ledger)
        if self.ledger.reflection_reasons["ceiling"] and not self.told:
            self.told = True
            watcher.note("a reflection was not sent: it could have exceeded the ceiling. Prompts stay as they are where that happens")

    def _evaluate(self, store: Store, watcher: Watcher, due: Due) -> None:
        e, state = self.config.evaluation, state_of(self.method)
        self.recalled |= dict.fromkeys(due.ended, state)
        own = Frozen(self.method, state)
        memories = {task: Frozen(self.method, remembered) for task, remembered in self.recalled.items()}

        def asked(task: str, mode: str) -> Callable[[str], str]:
            if mode == "seed":
                return lambda prompt: self.config.seed_prompt
            return partial((own if mode == "system" else memories[task]).context_for, task=self.stream.id_of(task))

        contexts = {cell: asked(*cell) for cell in due.cells}
        spent = self.ledger
        point = Point(due.step, due.stage, due.boundary, due.problems, max(due.problems, spent.problems), spent.total_rollouts, spent.sampled_tokens)
        with self.ledger.timed("evaluate"):
            rows, answers = evaluate(
                self.policy, contexts, self.stream.held_out(), point, seed=self.config.seed,
                n=due.n, samples=e.samples, temperature=e.temperature,
            )  # fmt: skip
        for frozen in (own, *memories.values()):
            frozen.check()
        store.append("evals", rows)
        store.append("answers", answers)
        watcher.evaluation(rows)

    def _checkpoint(self, store: Store, step: int) -> None:
        with self.ledger.timed("checkpoint"):
            check_memory(self.method, Frozen(self.method, memory := state_of(self.method)).method)
            state = {"method": memory, "recalled": self.recalled, "ledger": self.ledger.to_dict()}
            stay = self.ends if self.config.checkpoint.stages else []
            store.checkpoint(step, state, self.policy.save, self.config.checkpoint.keep, stay)

    def _restore(self, store: Store) -> int:
        """Steps done at the last checkpoint, or -1 where there is none; records are cut back to it."""
        found = store.latest()
        if found is None:
            store.rewind({})
            return -1
        folder, state = found
        store.rewind(state["records"])
        self.policy.load(folder)
        self.method.load(state["method"])
        self.recalled = state["recalled"]
        vars(self.ledger).update(vars(Ledger.from_dict(state["ledger"])))  # in place: the lab and the reflector hold it too
        return state["step"]

    def _finish(self, store: Store, watcher: Watcher) -> Run:
        stages = [{"number": s.number, "task": s.task} for s in self.stream.stages]
        store.write("metrics", summarise(store.rows("evals"), stages, self.ledger.counts()))
        store.write("ledger", self.ledger.to_dict())
        if self.ledger.reflections and self.ledger.reflection_failures >= self.ledger.reflections:
            reasons = ", ".join(f"{n} {reason}" for reason, n in self.ledger.reflection_reasons.most_common())
            watcher.note(f"EVERY reflection of this run failed ({reasons}): no prompt was ever proposed")
        write_report(store.path)
        store.seal()
        return Run(store.path)
