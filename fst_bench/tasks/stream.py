"""A stream: the task that each problem comes from. Problem i and batch s are pure functions of (stream, seed).

Stage lengths are in problems, so that a preset with another batch size sees the same data. They are jittered by
the run's seed in units of GRANULE, and nothing ties them to a method's cycle: switches fall inside cycles.

A stream can, each by a field of `StageSpec` or `StreamSpec`: switch hard, or blend from one stage into the next; mix
tasks; come back (`cycles`); let a difficulty drift; require the same task's answer in another format (`variants`);
state the format in every problem (`format_given`); show methods its boundaries (`announced`) and task ids
(`task_visible`).

Training and evaluation are by key: a task's name, or the name of a variant of it. A key has ONE held-out set, at the
difficulty that the key's stages end with.
"""

import json
import math
import random
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from fst_bench.core.errors import explain, unknown
from fst_bench.core.registry import file_name
from fst_bench.tasks import TASK_REGISTRY, Problem, Task
from fst_bench.tasks.base import in_levels, over
from fst_bench.tasks.data import PROCEDURAL, FromRows, expect, task_from
from fst_bench.tasks.reasoning_gym import FAMILY

GRANULE = 16
"""Problems; the smallest preset batch, so that its batches hold one task each."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9:._-]{0,63}$")]
DriftEnd = int | float | None


class Part(BaseModel):
    """A part of a stream file.

    Fields added after the first published streams are left out of a dump where they are neutral: a stream
    without them reads and hashes as it did.
    """

    model_config = ConfigDict(extra="forbid")
    younger: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        neutral = {name for name in self.younger if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in dump(self).items() if name not in neutral}


class VariantSpec(Part):
    """A task with other difficulty parameters, with a name and a held-out set of its own."""

    task: str
    difficulty: dict[str, Any] = {}


class StageSpec(Part):
    """One stage: `problems` of a task or of a mixture.

    Their difficulty is the preset's, overridden by the variant's and then by this stage's parameters.
    """

    younger = frozenset({"task", "mixture", "drift", "blend"})

    task: str | None = None
    """A task or a variant."""
    mixture: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Task or variant -> probability that a problem comes from it, in place of `task`. They add up to 1."""
    problems: Annotated[int, Field(ge=1, le=10_000_000)]
    difficulty: dict[str, Any] = {}
    drift: dict[str, tuple[DriftEnd, DriftEnd]] = {}
    """Difficulty parameter -> its values at the stage's first and last problem.

    It is linear in between, and rounded where both are integers; null is its value without drift. The held-out set is
    at the last value.
    """
    blend: Annotated[int, Field(ge=0)] = 0
    """Number of last problems that blend: the k-th of them is the next stage's with probability k / (blend + 1)."""

    @model_validator(mode="after")
    def one_or_mixed(self) -> Self:
        if (self.task is None) != bool(self.mixture):
            raise ValueError("a stage has either a task or a mixture")
        if self.mixture and abs(sum(self.mixture.values()) - 1) > 1e-9:
            raise ValueError(
                f"the weights of the mixture {', '.join(self.mixture)} add up to "
                f"{sum(self.mixture.values()):g}, not to 1"
            )
        if self.mixture and (self.difficulty or self.drift):
            raise ValueError("a mixture has no difficulty or drift of its own: give its tasks theirs under variants")
        if both := self.difficulty.keys() & self.drift.keys():
            raise ValueError(
                f"{', '.join(sorted(both))}: a difficulty parameter is under difficulty or under drift, not both"
            )
        return self

    @property
    def weights(self) -> dict[str, float]:
        """Key -> its share of the stage's problems."""
        return self.mixture if self.task is None else {self.task: 1.0}


class StreamSpec(Part):
    """A stream file."""

    younger = frozenset({"variants", "cycles", "announced", "task_visible", "format_given"})

    name: Annotated[str, AfterValidator(file_name)]
    version: Annotated[int, Field(ge=1)]
    description: str
    stages: Annotated[list[StageSpec], Field(min_length=1)]
    jitter: Annotated[int, Field(ge=0)] = 0
    """Largest change of a stage's length, in problems, drawn by the run's seed."""
    settings: dict[str, Any] = {}
    """Settings this stream changes for every method, over the preset's."""
    variants: dict[Name, VariantSpec] = {}
    """Further keys: a task at another difficulty, or with another answer format."""
    cycles: Annotated[int, Field(ge=1, le=1_000)] = 1
    """Repetitions of the whole list of stages. Each visit is a stage with a number of its own."""
    announced: bool = False
    """Whether methods see with which problems a stage begins (`ProblemHandle.boundary`)."""
    task_visible: bool = False
    """Whether methods see an id of each problem's key, in training and evaluation.

    See `ProblemHandle.task` and `Method.context_for_task`.
    """
    format_given: bool = False
    """Whether every problem states its answer format."""

    @model_validator(mode="after")
    def sound(self) -> Self:
        for name, variant in self.variants.items():
            if name in TASK_REGISTRY:
                raise ValueError(f"variant {name} has the name of a task")
            if variant.task not in TASK_REGISTRY:
                raise ValueError(f"variant {name}: {unknown('task', variant.task, TASK_REGISTRY.names())}")
            TASK_REGISTRY.find(variant.task)
        for number, stage in enumerate(self.stages, 1):
            for key in stage.weights:
                if key not in self.variants and key not in TASK_REGISTRY:
                    raise ValueError(
                        f"stage {number}: {unknown('task', key, [*TASK_REGISTRY.names(), *self.variants])}"
                    )
                TASK_REGISTRY.find(self.task_of(key))
            described = f"stage {number} ({'+'.join(stage.weights)}) has {stage.problems} problems"
            if stage.problems <= self.jitter:
                raise ValueError(f"{described}, no more than the jitter of {self.jitter}: it could be empty")
            if stage.blend > stage.problems - self.jitter:
                raise ValueError(f"{described}, with a jitter of {self.jitter} too few for a blend over {stage.blend}")
        if self.cycles == 1 and self.stages[-1].blend:
            raise ValueError("the last stage has no stage after it to blend into")
        if unused := set(self.variants) - {key for stage in self.stages for key in stage.weights}:
            raise ValueError(f"no stage has the variant {', '.join(sorted(unused))}")
        return self

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks, each once."""
        return list(dict.fromkeys(self.task_of(key) for stage in self.stages for key in stage.weights))

    def task_of(self, key: str) -> str:
        """Return the name of the task behind a key."""
        return self.variants[key].task if key in self.variants else key


def stream_files() -> dict[str, Path]:
    """Return the files of the shipped streams by name."""
    folder = Path(str(resources.files("fst_bench.streams")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def of_package(name: str) -> bool:
    """Return whether a shipped stream has tasks of a package, without which it can't be loaded."""
    return f"{FAMILY}/" in stream_files()[name].read_text("utf-8")


def load_spec(name: str) -> StreamSpec:
    """Return a shipped stream by name, or a file by path (ends in .yaml). Raise ValueError in one line."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else stream_files().get(name)
    if path is None:
        raise ValueError(unknown("stream", name, stream_files(), ".yaml"))
    values = read_yaml(path)
    for part in ("stages", "variants"):
        try:
            values |= {part: named(values[part], path.parent)} if part in values else {}
        except ValueError as error:
            raise ValueError(f"stream {name}: {part}: {error}") from None
    spec = explain(StreamSpec, values, f"stream {name}")
    if (shipped := stream_files().get(spec.name)) and shipped.resolve() != path.resolve():
        raise ValueError(
            f"{path}: a stream named {spec.name} is shipped, and runs are named after it: give this one another name"
        )
    return spec


def named(value: Any, folder: Path) -> Any:
    """Return `value` with every .py file replaced by the name of its task; paths are relative to `folder`."""
    if isinstance(value, str) and value.endswith(".py"):
        return TASK_REGISTRY.find(value, folder).name
    if isinstance(value, dict):
        return {named(key, folder): named(item, folder) for key, item in value.items()}
    return [named(item, folder) for item in value] if isinstance(value, list) else value


def read_yaml(path: Path) -> dict[str, Any]:
    """Return a YAML mapping. Raise ValueError in one line where the file is missing, broken or something else."""
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # PyYAML raises errors of many kinds
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} does not hold a mapping of keys to values")
    return values


class Stage(BaseModel):
    """A stage with its place in the stream, in problems: start <= i < end. Numbered from 1."""

    number: int
    tasks: list[str]
    """The keys that it trains: one, or those of its mixture."""
    start: int
    end: int
    blend: int
    """Number of its last problems that blend into the next stage; 0 for the last one."""


def schedule(spec: StreamSpec, seed: int, stage_problems: int | None = None) -> list[Stage]:
    """Return a stream's stages for one seed, each of `stage_problems` where that is given, blends in proportion."""
    rng = random.Random(f"{spec.name}@{spec.version}/{seed}")
    stages: list[Stage] = []
    for number, stage in enumerate(spec.stages * spec.cycles, 1):
        steps, start = spec.jitter // GRANULE, stages[-1].end if stages else 0
        length = stage_problems or stage.problems + GRANULE * rng.randint(-steps, steps)
        blend = round(stage.blend * stage_problems / stage.problems) if stage_problems else stage.blend
        last = number == len(spec.stages) * spec.cycles
        stages.append(
            Stage(number=number, tasks=list(stage.weights), start=start, end=start + length, blend=0 if last else blend)
        )
    return stages


def shares(spec: StreamSpec, stages: Sequence[Stage], index: int) -> dict[tuple[int, str], float]:
    """Return {(stage number, key): probability that problem `index` comes from it}, in the order of the stages."""
    stage = next(stage for stage in stages if stage.start <= index < stage.end)
    ahead = max(0, index + 1 - (stage.end - stage.blend)) / (stage.blend + 1)
    found = {
        (stage.number, key): (1 - ahead) * weight
        for key, weight in spec.stages[(stage.number - 1) % len(spec.stages)].weights.items()
    }
    if ahead:
        found |= {
            (stage.number + 1, key): ahead * weight
            for key, weight in spec.stages[stage.number % len(spec.stages)].weights.items()
        }
    return found


class Stream:
    """A stream for one seed and one preset's difficulties (task -> parameters), its problems from `data`.

    Raises ValueError in one line for parameters that the tasks do not have, anywhere along a drift, and for stages of
    one key that end with different difficulties: its held-out set would be ambiguous.
    """

    def __init__(
        self,
        spec: StreamSpec,
        seed: int,
        difficulty: dict[str, dict[str, Any]],
        stage_problems: int | None = None,
        data: str = PROCEDURAL,
    ):
        self.spec = spec
        self.seed = seed
        self.stages = schedule(spec, seed, stage_problems)
        self.total = self.stages[-1].end
        expect(data, spec.tasks)
        self._difficulty = difficulty
        self._data = data
        self._made: dict[str, Task] = {}
        self._held_out: dict[str, Task] = {}
        for stage in self.stages:
            for key in stage.tasks:
                for index in range(stage.start, stage.end) if self._spec(stage).drift else ():
                    self._task(stage, key, index)
                there = self._held_out.setdefault(key, task := self._task(stage, key, stage.end - 1))
                if there.difficulty != task.difficulty:
                    raise ValueError(
                        f"stage {stage.number} ends {key} at another difficulty than an earlier stage: "
                        "make it a variant, with its own name"
                    )

    def stage_of(self, index: int) -> Stage:
        """Return the stage that problem `index` belongs to; in a blend its task may be the next stage's."""
        return next(stage for stage in self.stages if stage.start <= index < stage.end)

    def source(self, index: int) -> tuple[Stage, str]:
        """Return the stage and the key that problem `index` comes from: a pure function of (stream, seed, index)."""
        likely = shares(self.spec, self.stages, index)
        point = (
            random.Random(f"{self.spec.name}@{self.spec.version}/{self.seed}/{index}").random()
            if len(likely) > 1
            else 0.0
        )
        for (number, key), share in likely.items():  # noqa: B007  # the last one where rounding leaves a remainder
            point -= share
            if point < 0:
                break
        return self.stages[number - 1], key

    def problem(self, index: int) -> Problem:
        """Return problem number `index` of the stream."""
        return self.verifier_of(index).problem("train", self.seed, index)

    def verifier_of(self, index: int) -> Task:
        """Return the task of problem `index`, at its difficulty."""
        return self._task(*self.source(index), index)

    def visible(self, index: int) -> dict[str, Any]:
        """Return what a method may see of problem `index` beyond its text, as fields of a `ProblemHandle`."""
        boundary = self.stage_of(index).start == index if self.spec.announced else None
        return {"boundary": boundary, "task": self.id_of(self.source(index)[1])}

    def id_of(self, key: str) -> str | None:
        """Return the opaque id of a key for methods, the same wherever it comes back; None where ids are hidden."""
        return f"task {list(self._held_out).index(key) + 1}" if self.spec.task_visible else None

    def batch(self, step: int, size: int) -> range:
        """Return the indices of the batch of `step` (from 0); fewer at the end of the stream, none after it."""
        return range(min(step * size, self.total), min((step + 1) * size, self.total))

    def held_out(self) -> dict[str, Any]:
        """Return key -> the task of its held-out problems, at the difficulty that its stages end with."""
        return dict(self._held_out)

    def passed(self) -> list[Task]:
        """Return its tasks at every difficulty that the stream passes through."""
        return list(self._made.values())

    def sources(self) -> dict[str, Any]:
        """Return source, fingerprint and counts of the rows of each task whose problems come from a data set."""
        return {task.name: task.rows.facts for task in self._held_out.values() if isinstance(task, FromRows)}

    def _spec(self, stage: Stage) -> StageSpec:
        return self.spec.stages[(stage.number - 1) % len(self.spec.stages)]

    def _task(self, stage: Stage, key: str, index: int) -> Task:
        """Return a key's task at its difficulty in a stage at a problem; before the stage, as at its start."""
        spec, name = self._spec(stage), self.spec.task_of(key)
        difficulty = self._difficulty.get(name, {}) | ({"format_given": True} if self.spec.format_given else {})
        for own in (self.spec.variants[key].difficulty if key in self.spec.variants else {}, spec.difficulty):
            difficulty = over(difficulty, own)
        last = stage.end - 1 - stage.start
        part = max(0, index - stage.start) / last if last else 1.0
        return self._at(name, self._drifted(name, difficulty, spec.drift, part))

    def _drifted(
        self, name: str, difficulty: dict[str, Any], drift: dict[str, tuple[DriftEnd, DriftEnd]], part: float
    ) -> dict[str, Any]:
        """Return a difficulty `part` of the way along a drift; a mixture's parameter drifts at each of its levels."""
        plain, mixture = {k: v for k, v in difficulty.items() if k != "mixture"}, difficulty.get("mixture")
        of_levels = sorted(drift.keys() & in_levels(mixture))
        moved = {p: self._between(name, plain, p, ends, part) for p, ends in drift.items() if p not in of_levels}
        if not of_levels:
            return difficulty | moved
        levels = []
        for level in mixture or ():
            if isinstance(level, dict):  # what is none is refused with the rest of the difficulty
                own = plain | {k: v for k, v in level.items() if k != "share"}
                level = level | {p: self._between(name, own, p, drift[p], part) for p in of_levels}
            levels.append(level)
        return plain | moved | {"mixture": levels}

    def _between(
        self, name: str, difficulty: dict[str, Any], parameter: str, ends: tuple[DriftEnd, DriftEnd], part: float
    ) -> int | float:
        """Return the value of a drifting parameter, `part` of the way from one end to the other."""
        usual = self._at(name, difficulty).difficulty if None in ends else None
        first, last = (getattr(usual, parameter, None) if end is None else end for end in ends)
        if (
            isinstance(first, bool)
            or isinstance(last, bool)
            or not isinstance(first, int | float)
            or not isinstance(last, int | float)
        ):
            raise ValueError(f"{parameter} of {name} is not a number, and cannot drift")
        value = first + (last - first) * part
        return round(value) if isinstance(first, int) and isinstance(last, int) else value

    def _at(self, name: str, difficulty: dict[str, Any]) -> Task:
        written = json.dumps([name, difficulty], sort_keys=True, default=str)
        if written not in self._made:
            self._made[written] = task_from(self._data, name, difficulty)
        return self._made[written]

    def ends(self, batch: int) -> list[int]:
        """Return the step after which each stage has ended.

        Raise ValueError where two end in one batch: evaluation could not separate them.
        """
        ends = [math.ceil(stage.end / batch) for stage in self.stages]
        if len(set(ends)) < len(ends):
            raise ValueError(
                f"a batch of {batch} problems would hold the ends of two stages: take a smaller batch or longer stages"
            )
        return ends
