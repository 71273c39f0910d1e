"""Experiment trackers, off by default: a run shown in TensorBoard, Weights & Biases or MLflow (`--track wandb,mlflow`).

A tracker decides no number and stops no run: one that raises is told of once and dropped. What it shows is what the run
records, at x = problems seen. When a run goes on after a kill, its records, cut back to the checkpoint, are told again
first: so the tracker's curve is whole, whatever the kill cut off and wherever tracking was switched on.

    TensorBoard   RUN/tensorboard
    wandb         RUN/wandb, offline (`wandb sync` sends it) unless WANDB_MODE says otherwise; WANDB_PROJECT names the project
    MLflow        the store that MLFLOW_TRACKING_URI names, else OUT/mlflow.db, one for all runs of the out folder
"""

import os
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from textwrap import indent
from typing import Any, ClassVar
from uuid import uuid4

from fst_bench.bench import Watcher
from fst_bench.config import Config
from fst_bench.errors import unknown
from fst_bench.ledger import Ledger
from fst_bench.store import Store
from fst_bench.stream import Stream


class Tracker(ABC):
    """One tracker of one run. x never falls, but a resume tells again what is recorded. Whatever is raised costs the tracker only."""

    packages: ClassVar[tuple[str, ...]]

    @abstractmethod
    def begin(self, path: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        """`path` is the run directory, absolute; `run_id` this run's alone, and the same after a resume."""

    @abstractmethod
    def log(self, x: int, values: Mapping[str, float]) -> None: ...
    @abstractmethod
    def text(self, x: int, name: str, text: str) -> None: ...
    @abstractmethod
    def end(self, finished: bool) -> None: ...


class TensorBoard(Tracker):
    """Its scalars have 32 bits."""

    packages = ("tensorboard",)

    def begin(self, path: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        for old in path.glob("tensorboard/events.out.*"):  # of a killed session: told again in full
            old.unlink()  # purge_step would do for TensorBoard itself, but not for everything else that reads these files
        self.writer = SummaryWriter(str(path / "tensorboard"))
        self.text(0, "settings", "\n".join(f"{key}: {value}" for key, value in flat(settings)))

    def log(self, x: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self.writer.add_scalar(key, value, x)
        self.writer.flush()

    def text(self, x: int, name: str, text: str) -> None:
        self.writer.add_text(name, indent(text, "    ", lambda line: True), x)  # it shows Markdown: indented it stays as it is

    def end(self, finished: bool) -> None:
        self.writer.close()


class WandB(Tracker):
    packages = ("wandb",)

    def begin(self, path: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it calls its server in offline mode too
        import wandb

        for old in path.glob(f"wandb/offline-run-*-{run_id}"):
            shutil.rmtree(old, ignore_errors=True)
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "fst-bench"), id=run_id, name=title(path), config=dict(settings), dir=path,
            mode=mode, resume="allow", reinit="create_new", settings=wandb.Settings(console="off", silent=mode != "online"),
        )  # fmt: skip

    def log(self, x: int, values: Mapping[str, Any]) -> None:
        if x >= self.run.step:  # the server of an online run has the points before
            self.run.log(dict(values), step=x)

    def text(self, x: int, name: str, text: str) -> None:
        self.log(x, {name: text})

    def end(self, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)


class MLflow(Tracker):
    """Its store takes no point back: of a step that is done twice the first point stays, which differs in its seconds only."""

    packages = ("mlflow", "sqlalchemy", "alembic")

    def begin(self, path: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from fcntl import LOCK_EX, flock

        from mlflow import MlflowClient
        from mlflow.entities import Param

        out, there = path.parents[2], os.environ.get("MLFLOW_TRACKING_URI")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "fst-bench")
        with (out / "mlflow.lock").open("w") as lock:  # two runs of a sweep that make its tables at once break them
            flock(lock, LOCK_EX)
            self.client = MlflowClient(there or f"sqlite:///{out / 'mlflow.db'}")
            if known := self.client.get_experiment_by_name(name):
                experiment = known.experiment_id
            else:
                experiment = self.client.create_experiment(name, None if there else (out / "mlartifacts").as_uri())
        self.last: dict[str, int] = {}
        if found := self.client.search_runs([experiment], f"tags.fst_bench_run = '{run_id}'"):
            self.id = found[0].info.run_id
            self.last = {key: max(m.step for m in self.client.get_metric_history(self.id, key)) for key in found[0].data.metrics}
            self.client.update_run(self.id, "RUNNING")
            return
        self.id = self.client.create_run(experiment, run_name=title(path), tags={"fst_bench_run": run_id}).info.run_id
        params = [Param(key, str(value)) for key, value in flat(settings)]
        for i in range(0, len(params), 100):  # as many as one call takes
            self.client.log_batch(self.id, params=params[i : i + 100])

    def log(self, x: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(re.sub(r"[^\w\-. :/]", "_", key), value, now, x) for key, value in values.items()]  # it takes no other names
        self.client.log_batch(self.id, [m for m in points if x > self.last.get(m.key, -1)])

    def text(self, x: int, name: str, text: str) -> None:
        self.client.log_text(self.id, text, f"{name}/{x:06d}.txt")

    def end(self, finished: bool) -> None:
        self.client.set_terminated(self.id, "FINISHED" if finished else "FAILED")


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


def load(names: Sequence[str]) -> dict[str, Tracker]:
    """The trackers of these names. ValueError names what exists, or what to install."""
    for name in names:
        if name not in TRACKERS:
            raise ValueError(unknown("tracker", name, TRACKERS))
        for package in TRACKERS[name].packages:
            if find_spec(package) is None:
                raise ValueError(f"tracker {name} needs {package}: pip install 'fst-bench[track]'")
    return {name: TRACKERS[name]() for name in names}


class Tracked(Watcher):
    """A watcher that passes all on to another one, and the numbers to trackers."""

    def __init__(self, trackers: Mapping[str, Tracker], shown: Watcher):
        self.trackers, self.shown = dict(trackers), shown

    def begin(self, config: Config, stream: Stream, path: Path, step: int) -> None:
        self.batch, self.total, self.store = config.batch, stream.total, Store(path)
        if not (path / "trackers.json").exists():
            self.store.write("trackers", {"id": uuid4().hex})
        run_id, settings = self.store.read("trackers")["id"], config.model_dump(mode="json")
        self._tell(lambda tracker: tracker.begin(path.resolve(), run_id, settings))
        self._replay()
        self.shown.begin(config, stream, path, step)  # last: it measures the pace

    def step(self, row: dict[str, Any], ledger: Ledger) -> None:
        self.shown.step(row, ledger)
        self._step(row, ledger)

    def evaluation(self, rows: list[dict[str, Any]]) -> None:
        self.shown.evaluation(rows)
        self._evaluation(rows)

    def population(self, row: dict[str, Any]) -> None:
        self.shown.population(row)
        self._population(row)

    def note(self, text: str) -> None:
        self.shown.note(text)

    def end(self) -> None:
        self._tell(lambda tracker: tracker.end((self.store.path / "manifest.json").exists()))
        self.shown.end()

    def _step(self, row: dict[str, Any], ledger: Ledger) -> None:
        numbers = {f"train/{key}": value for key, value in row.items() if isinstance(value, int | float) and key not in ("step", "problems")}
        self._log(row["problems"], numbers | {"spent/rollouts": ledger.total_rollouts, "spent/sampled_tokens": ledger.sampled_tokens})

    def _evaluation(self, rows: list[dict[str, Any]]) -> None:
        self._log(rows[0]["problems"], {f"eval/{row['task']}/{row['prompt_mode']}/{key}": row[key] for row in rows for key in ("accuracy", "kl")})

    def _population(self, row: dict[str, Any]) -> None:
        """At the x of the first step under it: so no point is both before and after a checkpoint."""
        x = min((row["step"] + 1) * self.batch, self.total)
        prompt = row["population"][0]["prompt"].encode("utf-8", "backslashreplace").decode()  # sampled text can hold half a character
        self._tell(lambda tracker: tracker.text(x, "prompt", prompt))

    def _replay(self) -> None:
        def by_step(name: str, first: int) -> dict[int, list[dict[str, Any]]]:
            return {step + first: list(rows) for step, rows in groupby(self.store.rows(name), itemgetter("step"))}

        steps = {row["step"]: row for row in self.store.rows("events") if row.get("kind") == "step"}
        rollouts, populations, evaluations = by_step("rollouts", 1), by_step("prompts", 1), by_step("evals", 0)
        ledger = Ledger()  # as it was then
        for step in sorted(steps.keys() | evaluations.keys()):
            for row in populations.get(step, []):
                self._population(row)
            if step in steps:
                ledger.rollouts["all"] += len(rollouts.get(step, []))
                ledger.sampled_tokens += sum(row["tokens"] for row in rollouts.get(step, []))
                self._step(steps[step], ledger)
            if step in evaluations:
                self._evaluation(evaluations[step])

    def _log(self, x: int, values: Mapping[str, float]) -> None:
        self._tell(lambda tracker: tracker.log(x, values))

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                what(tracker)
            except Exception as error:  # whatever it was, the run goes on
                del self.trackers[name]
                why = " ".join(str(error).split())[:300] or type(error).__name__
                self.note(f"tracker {name} failed and is dropped, the run goes on: {why}")


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """{"slow": {"cap": 5.0}} as [("slow.cap", 5.0)]"""
    return [
        pair
        for key, value in settings.items()
        for pair in (flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)])
    ]


def title(path: Path) -> str:
    """'continual-4@2/fst/tiny-s0-08ba82'"""
    return "/".join(path.parts[-3:])
