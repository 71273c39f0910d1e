"""Experiment trackers, off by default: a run shown in TensorBoard, Weights & Biases or MLflow (`--track wandb,mlflow`).

A tracker decides no number and stops no run: one that raises, or whose server does not answer for PATIENCE seconds, is
reported once and dropped. It shows what the run
records, at x = problems seen. When a run continues after a kill, its records, cut back to the checkpoint, are logged
again first. So the tracker's curve is whole, whatever the kill cut off and wherever tracking was switched on.

    TensorBoard   RUN/tensorboard
    wandb         RUN/wandb, offline (`wandb sync` sends it) unless WANDB_MODE is set; WANDB_PROJECT names the project
    MLflow        the store that MLFLOW_TRACKING_URI names, else OUT/mlflow.db, one for all runs of the out folder
"""

import os
import re
import shutil
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from textwrap import indent
from threading import Thread
from typing import Any, ClassVar
from uuid import uuid4

from fst_bench.core.errors import unknown
from fst_bench.harness.config import Config
from fst_bench.harness.loop import Callback
from fst_bench.harness.rows import EvaluationRow, PopulationRow, StepRow
from fst_bench.harness.run import Run
from fst_bench.harness.store import Store
from fst_bench.method.ledger import Ledger
from fst_bench.tasks.stream import Stream

PATIENCE = 15.0
"""Seconds that a run waits for a tracker's server, and then continues without it."""


class Tracker(ABC):
    """One tracker of one run. x never falls, except that a resume logs again what is recorded.

    An exception costs the tracker only, not the run.
    """

    packages: ClassVar[tuple[str, ...]]
    """Modules that it requires."""
    served = False
    """Whether it waits for a server."""

    @abstractmethod
    def begin(self, path: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        """Begin or continue a run. `path` is its directory, absolute; `run_id` is its own, also after a resume."""

    @abstractmethod
    def log(self, x: int, values: Mapping[str, float]) -> None:
        """Log values by their names."""

    @abstractmethod
    def text(self, x: int, name: str, text: str) -> None:
        """Log a text."""

    @abstractmethod
    def end(self, finished: bool) -> None:
        """End the session; the run may not be finished."""


class TensorBoard(Tracker):
    """TensorBoard's event files. Their scalars have 32 bits."""

    packages = ("tensorboard",)

    def begin(self, path: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # of a killed session, logged again in full. purge_step would do for TensorBoard itself, but not for everything
        # else that reads these files
        for old in path.glob("tensorboard/events.out.*"):
            old.unlink()
        self.writer = SummaryWriter(str(path / "tensorboard"))
        self.text(0, "settings", "\n".join(f"{key}: {value}" for key, value in flat(settings)))

    def log(self, x: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self.writer.add_scalar(key, value, x)
        self.writer.flush()

    def text(self, x: int, name: str, text: str) -> None:
        # it shows Markdown: an indented text stays as it is
        self.writer.add_text(name, indent(text, "    ", lambda line: True), x)

    def end(self, finished: bool) -> None:
        self.writer.close()


class WandB(Tracker):
    """A run of Weights & Biases, offline by default."""

    packages = ("wandb",)

    def __init__(self) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it calls its server in offline mode too
        self.mode: Any = os.environ.get("WANDB_MODE", "offline")
        self.served = self.mode not in ("offline", "dryrun", "disabled")

    def begin(self, path: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        import wandb

        for old in path.glob(f"wandb/offline-run-*-{run_id}"):
            shutil.rmtree(old, ignore_errors=True)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "fst-bench"),
            id=run_id,
            name=title(path),
            config=dict(settings),
            dir=path,
            mode=self.mode,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=self.mode != "online"),
        )

    def log(self, x: int, values: Mapping[str, Any]) -> None:
        if x >= self.run.step:  # the server of an online run has the points before
            self.run.log(dict(values), step=x)

    def text(self, x: int, name: str, text: str) -> None:
        self.log(x, {name: text})

    def end(self, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)


class MLflow(Tracker):
    """A run in an MLflow store, which takes no point back.

    Of a step that is done twice the first point stays, which differs in its seconds only.
    """

    packages = ("mlflow", "sqlalchemy", "alembic")

    def __init__(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        self.uri = os.environ.get("MLFLOW_TRACKING_URI")
        self.served = bool(self.uri) and re.match(r"(sqlite|file):|[./]", self.uri or "") is None

    def begin(self, path: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        from fcntl import LOCK_EX, flock

        from mlflow import MlflowClient
        from mlflow.entities import Param
        from sqlalchemy import URL

        out, uri = path.parents[2], self.uri
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "fst-bench")
        with (out / "mlflow.lock").open("w") as lock:  # two runs of a sweep that make its tables at once break them
            flock(lock, LOCK_EX)
            if not uri:
                with sqlite3.connect(out / "mlflow.db") as database:  # MLflow tries one that is damaged for 100 seconds
                    database.execute("PRAGMA schema_version")
            own = URL.create("sqlite", database=str(out / "mlflow.db")).render_as_string()
            self.client = MlflowClient(uri or own)
            if known := self.client.get_experiment_by_name(name):
                experiment = known.experiment_id
            else:
                experiment = self.client.create_experiment(name, None if uri else (out / "mlartifacts").as_uri())
        self.last: dict[str, int] = {}
        """The largest x of each metric in the store."""
        if found := self.client.search_runs([experiment], f"tags.fst_bench_run = '{run_id}'"):
            self.id = found[0].info.run_id
            for key in found[0].data.metrics:
                self.last[key] = max(point.step for point in self.client.get_metric_history(self.id, key))
            self.client.update_run(self.id, "RUNNING")
            return
        self.id = self.client.create_run(experiment, run_name=title(path), tags={"fst_bench_run": run_id}).info.run_id
        params = [Param(key, str(value)) for key, value in flat(settings)]
        for i in range(0, len(params), 100):  # as many as one call takes
            self.client.log_batch(self.id, params=params[i : i + 100])

    def log(self, x: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        # its names have no other characters
        points = [Metric(re.sub(r"[^\w\-. :/]", "_", key), value, now, x) for key, value in values.items()]
        self.client.log_batch(self.id, [m for m in points if x > self.last.get(m.key, -1)])

    def text(self, x: int, name: str, text: str) -> None:
        self.client.log_text(self.id, text, f"{name}/{x:06d}.txt")

    def end(self, finished: bool) -> None:
        self.client.set_terminated(self.id, "FINISHED" if finished else "FAILED")


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


def load(names: Sequence[str]) -> dict[str, Tracker]:
    """Return the trackers of these names. Raises ValueError that says what exists, or what to install."""
    for name in names:
        if name not in TRACKERS:
            raise ValueError(unknown("tracker", name, TRACKERS))
        for package in TRACKERS[name].packages:
            if find_spec(package) is None:
                raise ValueError(f"tracker {name} requires {package}: pip install 'fst-bench[track]'")
    return {name: TRACKERS[name]() for name in names}


class Tracked(Callback):
    """A callback that forwards everything to another one, and the numbers to trackers."""

    def __init__(self, trackers: Mapping[str, Tracker], shown: Callback):
        self.trackers, self.shown = dict(trackers), shown

    def on_begin(self, config: Config, stream: Stream, path: Path, step: int) -> None:
        self.batch, self.total, self.store = config.batch, stream.total, Store(path)
        if not (path / "trackers.json").exists():
            self.store.write("trackers", {"id": uuid4().hex})
        run_id, settings = self.store.read("trackers")["id"], config.model_dump(mode="json")
        self._each(lambda tracker: tracker.begin(path.resolve(), run_id, settings))
        self._replay()
        self.shown.on_begin(config, stream, path, step)  # last: it measures the pace

    def on_step(self, row: StepRow, ledger: Ledger) -> None:
        self.shown.on_step(row, ledger)
        self._step(row, ledger)

    def on_progress(self, answers: int, total: int) -> None:
        self.shown.on_progress(answers, total)

    def on_evaluation(self, rows: Sequence[EvaluationRow]) -> None:
        self.shown.on_evaluation(rows)
        self._evaluation(rows)

    def on_population(self, row: PopulationRow) -> None:
        self.shown.on_population(row)
        self._population(row)

    def on_note(self, text: str) -> None:
        self.shown.on_note(text)

    def on_end(self) -> None:
        self._each(lambda tracker: tracker.end(self.store.finished))
        self.shown.on_end()

    def _step(self, row: StepRow, ledger: Ledger) -> None:
        numbers = {
            f"train/{key}": value
            for key, value in row.model_dump().items()
            if isinstance(value, int | float) and key not in ("step", "problems")
        }
        spent = {"spent/rollouts": ledger.total_rollouts, "spent/sampled_tokens": ledger.sampled_tokens}
        self._log(row.problems, numbers | spent)

    def _evaluation(self, rows: Sequence[EvaluationRow]) -> None:
        values: dict[str, float] = {}
        for row in rows:
            found = {"accuracy": row.accuracy} | ({} if row.kl is None else {"kl": row.kl})
            values |= {f"eval/{row.task}/{row.prompt_mode}/{key}": value for key, value in found.items()}
        self._log(rows[0].problems, values)

    def _population(self, row: PopulationRow) -> None:
        """Log the best prompt at the x of the first step under it: no point is on both sides of a checkpoint then."""
        x = min((row.step + 1) * self.batch, self.total)
        # sampled text can hold half a character
        prompt = row.population[0].prompt.encode("utf-8", "backslashreplace").decode()
        self._each(lambda tracker: tracker.text(x, "prompt", prompt))

    def _replay(self) -> None:
        """Log what is recorded already."""

        def by_step(name: str, first: int) -> dict[int, list[Any]]:
            return {step + first: list(rows) for step, rows in groupby(run.typed(name), attrgetter("step"))}

        run = Run(self.store)
        steps = {step: rows[-1] for step, rows in by_step("events", 0).items()}
        rollouts, populations, evaluations = by_step("rollouts", 1), by_step("prompts", 1), by_step("evals", 0)
        ledger = Ledger()  # as it was then
        for step in sorted(steps.keys() | evaluations.keys()):
            for row in populations.get(step, []):
                self._population(row)
            if step in steps:
                ledger.rollouts["all"] += len(rollouts.get(step, []))
                ledger.sampled_tokens += sum(row.tokens for row in rollouts.get(step, []))
                self._step(steps[step], ledger)
            if step in evaluations:
                self._evaluation(evaluations[step])

    def _log(self, x: int, values: Mapping[str, float]) -> None:
        self._each(lambda tracker: tracker.log(x, values))

    def _each(self, what: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                if tracker.served:
                    for package in tracker.packages:  # on a busy machine the import alone takes longer
                        import_module(package)
                    within(PATIENCE, partial(what, tracker))
                else:
                    what(tracker)
            except Exception as error:  # of any kind: the run continues
                del self.trackers[name]
                why = " ".join(str(error).split())[:300] or type(error).__name__
                self.on_note(f"tracker {name} failed and is dropped, the run continues: {why}")


def within(seconds: float, call: Callable[[], None]) -> None:
    """Call what may never return. Raises TimeoutError after `seconds`, and leaves it to itself then."""
    raised: list[Exception] = []

    def catch() -> None:
        try:
            call()
        except Exception as error:  # of any kind: it belongs to the caller
            raised.append(error)

    thread = Thread(target=catch, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} seconds")
    if raised:
        raise raised[0]


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return {"slow": {"ratio_clip_max": 5.0}} as [("slow.ratio_clip_max", 5.0)]. Empty mappings are left out."""
    pairs: list[tuple[str, Any]] = []
    for key, value in settings.items():
        pairs += flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return pairs


def title(path: Path) -> str:
    """Return the name of a run directory, as in 'continual-4@2/fst/tiny-s0-08ba82'."""
    return "/".join(path.parts[-3:])
