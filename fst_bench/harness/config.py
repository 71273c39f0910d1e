"""Typed settings of a run: defaults < preset < stream < method < --set, every layer checked against one schema.

Settings of a method are in method/settings.py, those of the policy in policy/settings.py; here they are put together.
The section `methods` of a preset or a stream holds settings for one method only.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticSerializationError

from fst_bench.core.errors import explain, first_line, unknown
from fst_bench.core.registry import Registry, Source, file_name
from fst_bench.harness.rows import PromptMode
from fst_bench.method.method import Method
from fst_bench.method.registry import METHOD_REGISTRY
from fst_bench.method.settings import FastSettings, SlowSettings
from fst_bench.policy import Backend, PolicySettings
from fst_bench.tasks import TASK_REGISTRY
from fst_bench.tasks.base import over
from fst_bench.tasks.data import DATA, HUB, PROCEDURAL, check_difficulty, check_source
from fst_bench.tasks.formats import DECODER
from fst_bench.tasks.stream import StreamSpec, load_spec, read_yaml, stream_files

REGISTRIES: dict[str, Registry[Any]] = {"methods": METHOD_REGISTRY, "tasks": TASK_REGISTRY}
"""Registries of what can come from a file or an installed package."""
SEED_PROMPT = "You are a helpful assistant. Solve the problem."
"""The default of `seed_prompt`."""


class EvaluationSettings(BaseModel):
    """Settings of when and how every task of the stream is evaluated. Held-out problems are the same for every run."""

    model_config = ConfigDict(extra="forbid")

    interval: Annotated[int, Field(ge=1)] = 160
    """Problems between small evaluations; every stage also ends with a large one."""
    small: Annotated[int, Field(ge=1)] = 64
    """Held-out problems of each task in a small evaluation."""
    boundary: Annotated[int, Field(ge=1)] = 192
    """Held-out problems of each task where a stage ends."""
    samples: Annotated[int, Field(ge=1)] = 1
    """Answers per problem (mean@n)."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    kl: Literal["all", "boundary"] = "all"
    """The rows that have the KL to the base: all, or those of the method's own prompt where a stage ends."""
    small_modes: list[PromptMode] = ["system", "seed"]
    boundary_modes: list[PromptMode] = ["system", "seed", "oracle"]

    @model_validator(mode="after")
    def published_columns(self) -> Self:
        """Raise ValueError where an evaluation would lack the rows that tables and the leaderboard require."""
        if "system" not in self.small_modes or not {"system", "seed"} <= set(self.boundary_modes):
            raise ValueError("small_modes need system, boundary_modes need system and seed: the published columns")
        return self


class TrainingSettings(BaseModel):
    """Settings of the rollouts that a method samples, in both loops."""

    model_config = ConfigDict(extra="forbid")

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Also of the log-probabilities in the importance ratio, the learner's as well as the sampler's."""


class CheckpointSettings(BaseModel):
    """Settings of how often the whole run is saved, and how many of the last checkpoints stay."""

    model_config = ConfigDict(extra="forbid")

    every: Annotated[int, Field(ge=1)] = 10
    """Steps between checkpoints."""
    keep: Annotated[int, Field(ge=1)] = 2
    """Last checkpoints that stay."""
    stages: bool = True
    """Whether those at the end of each stage stay: probes of a finished run start from them."""


class Config(BaseModel):
    """All settings that decide a run's numbers (and `threads`, on which their last bits depend)."""

    model_config = ConfigDict(extra="forbid")

    stream: Annotated[str, AfterValidator(file_name)]
    method: Annotated[str, AfterValidator(file_name)]
    preset: Annotated[str, AfterValidator(file_name)]
    seed: int = 0
    model: str = "embedded:tiny"
    init: str | None = None
    """A checkpoint folder of a run on the same model, with whose weights this one starts; KL stays to the model."""
    data: str = PROCEDURAL
    """The source of problems: procedural, hub, or a folder of files; see `fst_bench.tasks.data`."""
    threads: Annotated[int, Field(ge=1)] = 1
    evaluator: Literal["inline", "process"] = "inline"
    """Whether learning waits for evaluations, or a second process makes them meanwhile, with as many threads again."""
    seed_prompt: str = SEED_PROMPT
    """The system prompt that every method starts from."""
    batch: Annotated[int, Field(ge=1)] = 16
    """Problems per step."""
    stage_problems: Annotated[int, Field(ge=1)] | None = None
    """Replaces the length of every stage (for presets that finish in seconds)."""
    backend: Backend = "torch"
    """The engines that sample and train: `torch`, one process, or `vllm-deepspeed`, one or many."""
    policy: PolicySettings = PolicySettings()
    slow: SlowSettings = SlowSettings()
    fast: FastSettings = FastSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    difficulty: dict[str, dict[str, Any]] = {}
    """Task -> its difficulty parameters."""
    settings: dict[str, Any] = {}
    """The method's own settings."""
    code: dict[str, Source] = {}
    """The code that does not ship, under `methods/NAME`, `tasks/NAME` and `streams/NAME`. Filled in by `resolve`."""

    @field_validator("data")
    @classmethod
    def source(cls, value: str) -> str:
        """Return the source of problems, checked."""
        return check_source(value)

    @field_validator("difficulty")
    @classmethod
    def difficulties(cls, value: dict[str, dict[str, Any]], info: ValidationInfo) -> dict[str, dict[str, Any]]:
        """Return the difficulty parameters of each task, checked."""
        for task, parameters in value.items():
            TASK_REGISTRY.find(task)
            check_difficulty(info.data.get("data", PROCEDURAL), task, parameters)
        return value

    @model_validator(mode="after")
    def evaluator_has_room(self) -> Self:
        """Raise ValueError where a second process cannot have the model beside this one."""
        if self.evaluator == "process" and (self.backend != "torch" or self.policy.device != "cpu"):
            raise ValueError("evaluator: process requires backend torch on a CPU")
        return self

    def method_class(self) -> type[Method]:
        """Return the class of the run's method."""
        return METHOD_REGISTRY.find(self.method)


class Hardware(BaseModel):
    """The hardware that a preset is made for: a number of GPUs (0: a CPU), and what each of them has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpus: Annotated[int, Field(ge=0)]
    memory_gb: Annotated[float, Field(gt=0)]
    """GiB of each GPU; without a GPU, of the machine."""
    teraflops: Annotated[float, Field(gt=0)]
    """Dense operations of each at the precision of the preset."""
    bandwidth: Annotated[float, Field(gt=0)]
    """GB/s between each GPU's memory and its cores."""

    def __str__(self) -> str:
        """Return '4 x 24 GB', or 'a CPU with 4 GB'."""
        return f"{self.gpus} x {self.memory_gb:g} GB" if self.gpus else f"a CPU with {self.memory_gb:g} GB"


def preset_files() -> dict[str, Path]:
    """Return the files of the shipped presets by name."""
    folder = Path(str(resources.files("fst_bench.harness.presets")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_preset(name: str) -> dict[str, Any]:
    """Return a preset's settings over those of the preset it extends.

    Raises ValueError that names the existing presets where it is unknown.
    """
    return {key: value for key, value in whole_preset(name).items() if key != "hardware"}


def hardware_of(preset: str) -> Hardware:
    """Return the hardware that a preset is made for. Raises ValueError where it has no such section."""
    values = whole_preset(preset)
    if "hardware" not in values:
        section = "hardware (gpus, memory_gb, teraflops, bandwidth)"
        raise ValueError(f"preset {preset} has no section {section}, and extends none that has")
    return explain(Hardware, values["hardware"], f"preset {preset}: hardware")


def whole_preset(name: str, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a shipped preset by name, or a file by path (ends in .yaml), over the preset it extends.

    Its section `hardware`, which decides no number of a run, is included. `below` are the presets that extend it.
    """
    if name in below:
        raise ValueError(f"preset {name} extends itself: {' -> '.join([*below, name])}")
    path = Path(name) if name.endswith((".yaml", ".yml")) else preset_files().get(name)
    if path is None:
        raise ValueError(unknown("preset", name, preset_files()))
    if path.stem in preset_files() and path != preset_files()[path.stem]:
        why = "a preset of that name is shipped, and runs are named after their preset"
        raise ValueError(f"{path}: {why}: give the file another name")
    values = read_yaml(path)
    extended = values.pop("extends", None)
    if extended is None:
        return values
    if not isinstance(extended, str):
        raise ValueError(f"preset {name}: extends names one preset, not {extended!r}")
    return layer(whole_preset(extended, (*below, name)), values)


def resolve(
    stream: str, method: str, preset: str = "tiny", seed: int = 0, overrides: Mapping[str, Any] | None = None
) -> tuple[Config, StreamSpec]:
    """Return the run's configuration, all layers merged and checked, and its stream.

    `stream` and `method` are names or files. In the configuration they are names, so that a run can do without the
    files. `overrides` maps dotted names ("slow.ratio_clip_max") or section names to values; those that are `Written`
    are read by the type of their setting. Raises ValueError in one line for anything wrong.
    """
    spec, low = load_spec(stream), load_preset(preset)
    own = merge(for_methods(low, preset), for_methods(spec.settings, stream))
    # after the files that settings name: the last one loaded under a name is the one it means
    made = METHOD_REGISTRY.find(method)
    values = layer(low, spec.settings)
    values.pop("methods", None)
    values = layer(values, own.get(made.name, {}))
    top: dict[str, Any] = {}
    for key, value in (overrides or {}).items():
        nested: Any = value.read(kind_of(key, made)) if isinstance(value, Written) else value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        top = merge(top, nested)
    values = layer(values, top)
    if "code" in values:
        raise ValueError("settings: code is which code a run is made with: it is filled in, never set")
    values |= {
        "stream": spec.name,
        "method": made.name,
        "preset": Path(preset).stem,
        "seed": seed,
        "code": code_of(stream, spec, made.name),
    }
    refuse_renamed(values, "settings")
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"settings: {first_line(Config, error)}") from None
    try:
        for written in (config, spec):
            written.model_dump_json()
    except PydanticSerializationError:
        raise ValueError("settings: a text has a lone surrogate, which UTF-8 cannot have") from None
    settings = explain(made.Settings, config.settings, f"settings of {made.name}")
    return config.model_copy(update={"settings": settings.model_dump(mode="json")} | places(config)), spec


def places(config: Config) -> dict[str, str]:
    """Return the settings that are paths, absolute: a run is resumed in any folder, and named after what it is made of.

    A model that is not a folder is a hub id.
    """
    folders = {"model": config.model, "init": config.init, "data": config.data}
    return {
        key: str(Path(value).absolute())
        for key, value in folders.items()
        if value is not None and (key == "init" or (value not in (PROCEDURAL, HUB) and Path(value).is_dir()))
    }


RENAMED = {
    "slow.group": "group_size",
    "slow.cap": "ratio_clip_max",
    "slow.normaliser": "loss_aggregation",
    "slow.truncate": "tis_cap",
    "slow.updates": "num_minibatches",
    "slow.anchor": "old_logprobs",
    "fast.anchor": "valset_size",
    "fast.minibatch": "reflection_minibatch_size",
    "fast.budget": "max_metric_calls",
    "fast.population": "population_size",
    "policy.clip": "max_grad_norm",
    "policy.checkpointing": "gradient_checkpointing",
    "policy.sample_rows": "max_num_seqs",
    "policy.distributed.positions": "max_model_len",
}
"""Settings of fst-bench 0.1 -> the name that replaced the last part, which is that of TRL, gepa or vLLM."""


def refuse_renamed(settings: Mapping[str, Any], where: str) -> None:
    """Raise ValueError in one line where settings have a name of fst-bench 0.1. `where` is what holds them."""
    for old, new in RENAMED.items():
        *sections, name = old.split(".")
        values: Any = settings
        for section in sections:
            values = values.get(section) if isinstance(values, Mapping) else None
        if isinstance(values, Mapping) and name in values:
            raise ValueError(f"{where}: {old} is now {'.'.join([*sections, new])}")
    evaluation: Any = settings.get("evaluation")
    for key in ("small_modes", "boundary_modes"):
        modes = evaluation.get(key) if isinstance(evaluation, Mapping) else None
        if isinstance(modes, list) and "recalled" in modes:
            raise ValueError(f"{where}: evaluation.{key}: recalled is now oracle")


def for_methods(settings: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Return the section `methods` of a preset or stream by the methods' names.

    In the section a method that does not ship is named by its .py file, relative to `file`. Raises ValueError for an
    unknown one.
    """
    section = settings.get("methods", {})
    if not isinstance(section, Mapping):
        example = "methods: {fst: {slow: {ratio_clip_max: 4}}}"
        raise ValueError(f"settings: methods holds settings for one method only, as in {example}, not {section!r}")
    found: dict[str, Any] = {}
    for name, own in section.items():
        name = str(name)  # YAML has other keys too
        # a file that is loaded already may not exist for the next run
        lasting = METHOD_REGISTRY.shipped.keys() | METHOD_REGISTRY.offered().keys()
        if not name.endswith(".py") and name not in lasting:
            hint = "one of your own is named by its file, as in mine.py"
            raise ValueError(f"settings: methods: {unknown('method', name, lasting)}; {hint}")
        found[METHOD_REGISTRY.find(name, Path(file).parent).name if name.endswith(".py") else name] = own
    return found


def code_of(stream: str, spec: StreamSpec, method: str) -> dict[str, Source]:
    """Return the sources of a run's method, tasks and stream, of those that do not ship."""
    code = {f"methods/{method}": METHOD_REGISTRY.loaded[method].source} if method in METHOD_REGISTRY.loaded else {}
    code |= {f"tasks/{task}": TASK_REGISTRY.loaded[task].source for task in spec.tasks if task in TASK_REGISTRY.loaded}
    if stream not in stream_files():
        # of its contents: a comment makes no other stream
        text = spec.model_dump_json(exclude={"description"}, exclude_defaults=True)
        code[f"streams/{spec.name}"] = Source(sha256=hashlib.sha256(text.encode()).hexdigest())
    return code


def layer(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Return `high` over `low`.

    Where `high` changes procedural problems to rows of a data set, or back, the difficulties in `low` are left out for
    the tasks concerned: their parameters are those of the other problems.
    """
    source = low.get("data", PROCEDURAL)
    if (high.get("data", source) == PROCEDURAL) != (source == PROCEDURAL):
        given = low.get("difficulty", {})
        kept = {task: own for task, own in given.items() if task not in DATA} if isinstance(given, Mapping) else given
        low = {**low, "difficulty": kept}
    out, (below, above) = merge(low, high), (values.get("difficulty") for values in (low, high))
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        tasks = [task for task in above if isinstance(below.get(task), Mapping) and isinstance(above[task], Mapping)]
        out["difficulty"] = out["difficulty"] | {task: over(below[task], above[task]) for task in tasks}
    return out


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Return `high` over `low`, section by section."""
    out = dict(low)
    for key, value in high.items():
        out[key] = merge(out[key], value) if isinstance(value, Mapping) and isinstance(out.get(key), Mapping) else value
    return out


class Written(str):
    """A setting's value as it was written after --set. How it is read depends on the setting's type."""

    def read(self, kind: Any) -> Any:
        """Return the value: of a setting that is text the text itself, of any other what it says in JSON or YAML.

        `null` is None where the setting may be that.
        """
        if is_text(kind):
            return None if self == "null" and NoneType in members(kind) else str(self)
        for load in (DECODER.decode, yaml.safe_load):  # YAML 1.1 reads some JSON otherwise: 1e-05 is a text there
            with suppress(Exception):  # PyYAML raises errors of many kinds
                return load(self)
        return str(self)


def parse_setting(text: str) -> tuple[str, Written]:
    """Return 'slow.ratio_clip_max=4' as ("slow.ratio_clip_max", Written("4"))."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ValueError(f"--set requires key=value, got {text!r}")
    if key in ("stream", "method", "preset", "seed"):
        raise ValueError(f"--set {key} is --{key}")
    if (section := key.partition(".")[0]) not in Config.model_fields and section != "methods":
        raise ValueError(f"settings: {unknown('key', section, Config.model_fields)}")
    return key, Written(value)


def write_setting(key: str, value: Any, method: type[Method]) -> str:
    """Return 'key=value', which `parse_setting` and `Written.read` turn into the same value again.

    Raises ValueError for a text that cannot be an argument of a command.
    """
    if isinstance(value, Written):
        return f"{key}={value}"
    if not (isinstance(value, str) and is_text(kind := kind_of(key, method))):
        return f"{key}={json.dumps(value)}"
    if Written(value).read(kind) != value or "\0" in value:
        raise ValueError(f"settings: {key} cannot be the text {value!r} in a sweep")
    return f"{key}={value}"


def kind_of(key: str, method: type[Method]) -> Any:
    """Return the type of the setting with a dotted name, Any where it has none of its own."""
    section, _, rest = key.partition(".")
    if section == "settings" and rest:
        return kind_at(method.Settings, rest.split("."))
    task, _, parameter = rest.partition(".")
    if section == "difficulty" and parameter:
        procedural = [TASK_REGISTRY.find(task).Difficulty] if task in TASK_REGISTRY else []
        models = [*procedural, *([DATA[task].Difficulty] if task in DATA else [])]
        return next(
            (model.model_fields[parameter].annotation for model in models if parameter in model.model_fields), Any
        )
    return kind_at(Config, key.split("."))


def kind_at(kind: Any, path: Sequence[str]) -> Any:
    """Return the type at a path of field names below a type, Any where there is none."""
    for name in path:
        fields = [part.model_fields for part in members(kind) if isinstance(part, type) and issubclass(part, BaseModel)]
        kind = next((found[name].annotation for found in fields if name in found), Any)
    return kind


def members(kind: Any) -> tuple[Any, ...]:
    """Return the types that a type is a union of; of another type itself."""
    if get_origin(kind) is Annotated:
        return members(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return tuple(member for part in get_args(kind) for member in members(part))
    return (kind,)


def is_text(kind: Any) -> bool:
    """Return whether a setting of this type is text: one of its own choice, one of a list, a path, or nothing."""
    given = [part for part in members(kind) if part is not NoneType]
    return bool(given) and all(
        all(isinstance(value, str) for value in get_args(part))
        if get_origin(part) is Literal
        else isinstance(part, type) and issubclass(part, str | PurePath)
        for part in given
    )
