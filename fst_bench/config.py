"""Typed settings of a run: defaults < preset < stream < method < --set, every layer checked against one schema.

Settings live beside what they set (SlowSettings in slow/, FastSettings in fast/, PolicySettings in policy/); here
they are put together. A preset's or a stream's section `methods` holds what it sets for one method only.
"""

import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from fst_bench.data import DATA, PROCEDURAL, check_knobs, check_source
from fst_bench.errors import explain, first_line, unknown
from fst_bench.fast.settings import FastSettings
from fst_bench.fit import Hardware
from fst_bench.lab import Method
from fst_bench.methods import SHELF as METHOD_SHELF
from fst_bench.model.text import SEED_PROMPT
from fst_bench.plugins import Source
from fst_bench.policy import Backend, PolicySettings
from fst_bench.slow import SlowSettings
from fst_bench.stream import StreamSpec, load_spec, read_yaml, stream_files
from fst_bench.tasks import SHELF as TASK_SHELF

SHELVES = {"methods": METHOD_SHELF, "tasks": TASK_SHELF}
"""Whatever can come from a file or an installed package."""
PromptMode = Literal["system", "seed", "recalled"]


class EvaluationSettings(BaseModel):
    """When and how every task of the stream is evaluated. Problems are held out, and the same for every run."""

    model_config = ConfigDict(extra="forbid")

    interval: Annotated[int, Field(ge=1)] = 160
    """Problems between small evaluations; every stage also ends with a large one."""
    small: Annotated[int, Field(ge=1)] = 64
    boundary: Annotated[int, Field(ge=1)] = 192
    samples: Annotated[int, Field(ge=1)] = 1
    """Answers per problem (mean@n)."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    small_modes: list[PromptMode] = ["system", "seed"]
    boundary_modes: list[PromptMode] = ["system", "seed", "recalled"]

    @model_validator(mode="after")
    def published_columns(self) -> Self:
        if "system" not in self.small_modes or not {"system", "seed"} <= set(self.boundary_modes):
            raise ValueError("small_modes need system, boundary_modes need system and seed: the published columns")
        return self


class CheckpointSettings(BaseModel):
    """How often the whole run is saved, and how many of the last checkpoints stay."""

    model_config = ConfigDict(extra="forbid")

    every: Annotated[int, Field(ge=1)] = 10
    """Steps."""
    keep: Annotated[int, Field(ge=1)] = 2
    stages: bool = True
    """Whether those at the stages' ends stay: probes of a finished run start from them."""


class Config(BaseModel):
    """Everything that decides a run's numbers (and `threads`, on which their last bits depend)."""

    model_config = ConfigDict(extra="forbid")

    stream: str
    method: str
    preset: str
    seed: int = 0
    model: str = "embedded:tiny"
    init: str | None = None
    """A checkpoint folder of another run on the same model, whose weights this one starts from; KL stays to the model."""
    data: str = PROCEDURAL
    """Where problems come from: procedural, hub, or a folder of files; see `fst_bench.data`."""
    threads: Annotated[int, Field(ge=1)] = 1
    seed_prompt: str = SEED_PROMPT
    batch: Annotated[int, Field(ge=1)] = 16
    """Problems per step."""
    stage_problems: Annotated[int, Field(ge=1)] | None = None
    """Replaces the length of every stage (for presets that finish in seconds)."""
    backend: Backend = "torch"
    """What samples and trains: `torch`, one process, or `vllm-deepspeed`, one or many."""
    policy: PolicySettings = PolicySettings()
    slow: SlowSettings = SlowSettings()
    fast: FastSettings = FastSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    difficulty: dict[str, dict[str, Any]] = {}
    settings: dict[str, Any] = {}
    """The method's own settings."""
    code: dict[str, Source] = {}
    """Of what does not ship, under `methods/NAME`, `tasks/NAME` and `streams/NAME`: which one it was. Filled in by `resolve`."""

    @field_validator("data")
    @classmethod
    def source(cls, value: str) -> str:
        return check_source(value)

    @field_validator("difficulty")
    @classmethod
    def difficulties(cls, value: dict[str, dict[str, Any]], info: ValidationInfo) -> dict[str, dict[str, Any]]:
        for task, knobs in value.items():
            TASK_SHELF.find(task)
            check_knobs(info.data.get("data", PROCEDURAL), task, knobs)
        return value

    def method_class(self) -> type[Method]:
        return METHOD_SHELF.find(self.method)


def preset_files() -> dict[str, Path]:
    """The shipped presets by name."""
    folder = Path(str(resources.files("fst_bench").joinpath("presets")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_preset(name: str) -> dict[str, Any]:
    """A preset's settings over those of the preset it extends, a plain mapping. ValueError names what exists."""
    return {key: value for key, value in whole_preset(name).items() if key != "hardware"}


def hardware_of(preset: str) -> Hardware:
    """What a preset is made for. ValueError where it does not say."""
    values = whole_preset(preset)
    if "hardware" not in values:
        raise ValueError(f"preset {preset} has no section hardware (gpus, memory_gb, teraflops, bandwidth), and extends none that has")
    return explain(Hardware, values["hardware"], f"preset {preset}: hardware")


def whole_preset(name: str) -> dict[str, Any]:
    """A shipped preset by name or a file by path (ends in .yaml), with its section `hardware`, which decides no number of a run."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else preset_files().get(name)
    if path is None:
        raise ValueError(unknown("preset", name, preset_files()))
    if path.stem in preset_files() and path != preset_files()[path.stem]:
        raise ValueError(f"{path}: a preset of that name is shipped, and runs are named after their preset: give the file another name")
    values = read_yaml(path)
    extended = values.pop("extends", None)
    return layer(whole_preset(extended), values) if extended else values


def resolve(stream: str, method: str, preset: str = "tiny", seed: int = 0, overrides: Mapping[str, Any] | None = None) -> tuple[Config, StreamSpec]:
    """The run's configuration, all layers merged and checked. ValueError in one line for anything wrong.

    `stream` and `method` are names or files; in the configuration they are names, so that a run can do without the files. `overrides` maps
    dotted names ("slow.cap") or section names to values.
    """
    spec, low = load_spec(stream), load_preset(preset)
    own = merge(for_methods(low, preset), for_methods(spec.settings, stream))
    made = METHOD_SHELF.find(method)  # after the files that settings name: the last one loaded under a name is the one it means
    values = layer(low, spec.settings)
    values.pop("methods", None)
    values = layer(values, own.get(made.name, {}))
    asked: dict[str, Any] = {}
    for key, value in (overrides or {}).items():
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        asked = merge(asked, nested)
    values = layer(values, asked)
    if "code" in values:
        raise ValueError("settings: code says which code a run is made with: it is filled in, never set")
    values |= {"stream": spec.name, "method": made.name, "preset": Path(preset).stem, "seed": seed, "code": code_of(stream, spec, made.name)}
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"settings: {first_line(Config, error)}") from None
    settings = explain(made.Settings, config.settings, f"settings of {made.name}")
    return config.model_copy(update={"settings": settings.model_dump(mode="json")}), spec


def for_methods(settings: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The section `methods` of a preset or stream by the methods' names. In it one that does not ship is named by its .py file, relative to
    `file`. ValueError for one that nobody knows."""
    section = settings.get("methods", {})
    if not isinstance(section, Mapping):
        raise ValueError(f"settings: methods holds what is for one method only, as in methods: {{fst: {{slow: {{cap: 4}}}}}}, not {section!r}")
    found: dict[str, Any] = {}
    for name, own in section.items():
        lasting = METHOD_SHELF.shipped.keys() | METHOD_SHELF.offered().keys()  # a file that is loaded already need not be there for the next run
        if not name.endswith(".py") and name not in lasting:
            raise ValueError(f"settings: methods: {unknown('method', name, lasting)}; one of your own is named by its file, as in mine.py")
        found[METHOD_SHELF.find(name, Path(file).parent).name if name.endswith(".py") else name] = own
    return found


def code_of(stream: str, spec: StreamSpec, method: str) -> dict[str, Source]:
    """What of a run does not ship: its method, its tasks, its stream."""
    code = {f"methods/{method}": METHOD_SHELF.loaded[method].source} if method in METHOD_SHELF.loaded else {}
    code |= {f"tasks/{task}": TASK_SHELF.loaded[task].source for task in spec.tasks if task in TASK_SHELF.loaded}
    if stream not in stream_files():
        text = spec.model_dump_json(exclude={"description"}, exclude_defaults=True)  # by what it says: a comment makes no other stream
        code[f"streams/{spec.name}"] = Source(sha256=hashlib.sha256(text.encode()).hexdigest())
    return code


def layer(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`high` over `low`. Where it changes procedural problems to rows of a data set, or back, the difficulties below it are left out for the
    tasks concerned: their knobs are those of the other problems."""
    if (high.get("data", source := low.get("data", PROCEDURAL)) == PROCEDURAL) != (source == PROCEDURAL):
        low = {**low, "difficulty": {task: knobs for task, knobs in low.get("difficulty", {}).items() if task not in DATA}}
    return merge(low, high)


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`high` over `low`, section by section."""
    out = dict(low)
    for key, value in high.items():
        out[key] = merge(out[key], value) if isinstance(value, Mapping) and isinstance(out.get(key), Mapping) else value
    return out


def parse_setting(text: str) -> tuple[str, Any]:
    """'slow.cap=4' as ("slow.cap", 4); the value is YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"--set wants key=value, got {text!r}")
    if key in ("stream", "method", "preset", "seed"):
        raise ValueError(f"--set {key} is --{key}")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        return key.strip(), value
