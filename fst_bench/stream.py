"""A stream: which task each problem comes from. Stateless: problem i and batch s are pure functions of (stream, seed).

Stage lengths are in problems, so that a preset with another batch size sees the same data. They are jittered by
the run's seed in units of GRANULE, and nothing ties them to a method's cycle: switches fall inside cycles.
"""

import random
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fst_bench.data import PROCEDURAL, FromRows, expect, task_from
from fst_bench.errors import explain, unknown
from fst_bench.tasks import TASKS, Problem

GRANULE = 16
"""Problems; the smallest preset batch, so that its batches hold one task each."""


class StageSpec(BaseModel):
    """One stage: `problems` of a task, at the preset's difficulty with this stage's knobs over it."""

    model_config = ConfigDict(extra="forbid")

    task: str
    problems: Annotated[int, Field(ge=1, le=10_000_000)]
    difficulty: dict[str, Any] = {}

    @field_validator("task")
    @classmethod
    def known(cls, task: str) -> str:
        if task not in TASKS:
            raise ValueError(unknown("task", task, TASKS))
        return task


class StreamSpec(BaseModel):
    """A stream file."""

    model_config = ConfigDict(extra="forbid")

    name: str
    version: Annotated[int, Field(ge=1)]
    description: str
    stages: Annotated[list[StageSpec], Field(min_length=1)]
    jitter: Annotated[int, Field(ge=0)] = 0
    """Largest change of a stage's length, in problems, drawn by the run's seed."""
    settings: dict[str, Any] = {}
    """Settings this stream changes for every method, over the preset's."""

    @model_validator(mode="after")
    def lengths(self) -> Self:
        for stage in self.stages:
            if stage.problems <= self.jitter:
                raise ValueError(f"stage {stage.task} has {stage.problems} problems, no more than the jitter of {self.jitter}")
        return self


def stream_files() -> dict[str, Path]:
    """The shipped streams by name."""
    folder = Path(str(resources.files("fst_bench.streams")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_spec(name: str) -> StreamSpec:
    """A shipped stream by name, or a file by path (ends in .yaml). ValueError in one line."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else stream_files().get(name)
    if path is None:
        raise ValueError(unknown("stream", name, stream_files()))
    return explain(StreamSpec, read_yaml(path), f"stream {name}")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping. ValueError in one line where the file is missing, broken or something else."""
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} does not hold a mapping of keys to values")
    return values


class Stage(BaseModel):
    """A stage with its place in the stream, in problems: start <= i < end. Numbered from 1."""

    number: int
    task: str
    start: int
    end: int


def schedule(spec: StreamSpec, seed: int, stage_problems: int | None = None) -> list[Stage]:
    """A stream's stages for one seed, each of `stage_problems` where that is given."""
    rng = random.Random(f"{spec.name}@{spec.version}/{seed}")
    stages: list[Stage] = []
    for number, stage in enumerate(spec.stages, 1):
        steps, start = spec.jitter // GRANULE, stages[-1].end if stages else 0
        length = stage_problems or stage.problems + GRANULE * rng.randint(-steps, steps)
        stages.append(Stage(number=number, task=stage.task, start=start, end=start + length))
    return stages


class Stream:
    """A stream for one seed and one preset's difficulties (task -> knobs), its problems from `data`."""

    def __init__(
        self, spec: StreamSpec, seed: int, difficulty: dict[str, dict[str, Any]], stage_problems: int | None = None, data: str = PROCEDURAL
    ):  # fmt: skip
        self.seed, self.stages = seed, schedule(spec, seed, stage_problems)
        self.total = self.stages[-1].end
        expect(data, (stage.task for stage in spec.stages))
        self._tasks = [task_from(data, stage.task, difficulty.get(stage.task, {}) | stage.difficulty) for stage in spec.stages]

    def stage_of(self, index: int) -> Stage:
        """The stage that problem `index` belongs to."""
        return next(stage for stage in self.stages if stage.start <= index < stage.end)

    def problem(self, index: int) -> Problem:
        """Problem number `index` of the stream."""
        return self._tasks[self.stage_of(index).number - 1].problem("train", self.seed, index)

    def verifier_of(self, index: int) -> Any:
        """The task that judges problem `index`."""
        return self._tasks[self.stage_of(index).number - 1]

    def batch(self, step: int, size: int) -> range:
        """Indices of the batch of `step` (from 0); shorter at the end of the stream, empty after it."""
        return range(min(step * size, self.total), min((step + 1) * size, self.total))

    def held_out(self) -> dict[str, Any]:
        """The tasks of the stream, each once, at the difficulty of its first stage."""
        tasks: dict[str, Any] = {}
        for stage, task in zip(self.stages, self._tasks, strict=True):
            tasks.setdefault(stage.task, task)
        return tasks

    def sources(self) -> dict[str, Any]:
        """Of each task whose problems are rows of a data set, which rows: source, fingerprint and counts."""
        return {name: task.rows.facts for name, task in self.held_out().items() if isinstance(task, FromRows)}
