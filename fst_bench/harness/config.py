"""Typed settings of a run: defaults < preset < stream < method < --set, every layer checked against one schema.

Settings of a method are in method/settings.py, those of the policy in policy/settings.py; here they are put together. A preset's or a stream's section `methods` holds what it sets for one method only.
"""

import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from fst_bench.core.errors import explain, first_line, unknown
from fst_bench.core.registry import Registry, Source
from fst_bench.harness.rows import PromptMode
from fst_bench.method.method import Method
from fst_bench.method.registry import METHOD_REGISTRY
from fst_bench.method.settings import FastSettings, SlowSettings
from fst_bench.policy import Backend, PolicySettings
from fst_bench.tasks import TASK_REGISTRY
from fst_bench.tasks.data import DATA, PROCEDURAL, check_knobs, check_source
from fst_bench.tasks.stream import StreamSpec, load_spec, read_yaml, stream_files

REGISTRIES: dict[str, Registry[Any]] = {"methods": METHOD_REGISTRY, "tasks": TASK_REGISTRY}
"""Whatever can come from a file or an installed package."""


SEED_PROMPT = "You are a helpful assistant. Solve the problem."


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
    boundary_modes: list[PromptMode] = ["system", "seed", "oracle"]

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
    """Where problems come from: procedural, hub, or a folder of files; see `fst_bench.tasks.data`."""
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
            TASK_REGISTRY.find(task)
            check_knobs(info.data.get("data", PROCEDURAL), task, knobs)
        return value

    def method_class(self) -> type[Method]:
        return METHOD_REGISTRY.find(self.method)


class Hardware(BaseModel):
    """What a preset is made for: so many GPUs (none: a CPU), each with so much."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpus: Annotated[int, Field(ge=0)]
    memory_gb: Annotated[float, Field(gt=0)]
    """Of each GPU, in GiB; without one, of the machine."""
    teraflops: Annotated[float, Field(gt=0)]
    """Of each, dense, at the precision of the preset."""
    bandwidth: Annotated[float, Field(gt=0)]
    """GB/s between each GPU's memory and its cores."""

    def __str__(self) -> str:
        return f"{self.gpus} x {self.memory_gb:g} GB" if self.gpus else f"a CPU with {self.memory_gb:g} GB"


def preset_files() -> dict[str, Path]:
    """The shipped presets by name."""
    folder = Path(str(resources.files("fst_bench.harness.presets")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_preset(name: str) -> dict[str, Any]:
    """A preset's settings over those of the preset it extends, a plain mapping. ValueError names what exists."""
    return {key: value for key, value in whole_preset(name).items() if key != "hardware"}


def hardware_of(preset: str) -> Hardware:
    """What a preset is made for. ValueError where it does not say."""
    values = whole_preset(preset)
    if "hardware" not in values:
        raise ValueError(
            f"preset {preset} has no section hardware (gpus, memory_gb, teraflops, bandwidth), and extends none that has"
        )
    return explain(Hardware, values["hardware"], f"preset {preset}: hardware")


def whole_preset(name: str) -> dict[str, Any]:
    """A shipped preset by name or a file by path (ends in .yaml), with its section `hardware`, which decides no number of a run."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else preset_files().get(name)
    if path is None:
        raise ValueError(unknown("preset", name, preset_files()))
    if path.stem in preset_files() and path != preset_files()[path.stem]:
        raise ValueError(
            f"{path}: a preset of that name is shipped, and runs are named after their preset: give the file another name"
        )
    values = read_yaml(path)
    extended = values.pop("extends", None)
    return layer(whole_preset(extended), values) if extended else values


def resolve(
    stream: str, method: str, preset: str = "tiny", seed: int = 0, overrides: Mapping[str, Any] | None = None
) -> tuple[Config, StreamSpec]:
    """The run's configuration, all layers merged and checked. ValueError in one line for anything wrong.

    `stream` and `method` are names or files; in the configuration they are names, so that a run can do without the files. `overrides` maps
    dotted names ("slow.ratio_clip_max") or section names to values.
    """
    spec, low = load_spec(stream), load_preset(preset)
    own = merge(for_methods(low, preset), for_methods(spec.settings, stream))
    made = METHOD_REGISTRY.find(
        method
    )  # after the files that settings name: the last one loaded under a name is the one it means
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
    settings = explain(made.Settings, config.settings, f"settings of {made.name}")
    return config.model_copy(update={"settings": settings.model_dump(mode="json")}), spec


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
"""Settings of fst-bench 0.1 -> their last name now, which is that of TRL, gepa or vLLM."""


def refuse_renamed(settings: Mapping[str, Any], where: str) -> None:
    """Raise ValueError in one line where settings have a name of fst-bench 0.1."""
    for old, new in RENAMED.items():
        *sections, name = old.split(".")
        values: Any = settings
        for section in sections:
            values = values.get(section) if isinstance(values, Mapping) else None
        if isinstance(values, Mapping) and name in values:
            raise ValueError(f"{where}: {old} is now {'.'.join([*sections, new])}")
    modes = settings.get("evaluation")
    for key in ("small_modes", "boundary_modes"):
        if isinstance(modes, Mapping) and "recalled" in (modes.get(key) or ()):
            raise ValueError(f"{where}: evaluation.{key}: recalled is now oracle")


def for_methods(settings: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The section `methods` of a preset or stream by the methods' names. In it one that does not ship is named by its .py file, relative to
    `file`. ValueError for one that nobody knows."""
    section = settings.get("methods", {})
    if not isinstance(section, Mapping):
        raise ValueError(
            f"settings: methods holds what is for one method only, as in methods: {{fst: {{slow: {{ratio_clip_max: 4}}}}}}, not {section!r}"
        )
    found: dict[str, Any] = {}
    for name, own in section.items():
        lasting = (
            METHOD_REGISTRY.shipped.keys() | METHOD_REGISTRY.offered().keys()
        )  # a file that is loaded already need not be there for the next run
        if not name.endswith(".py") and name not in lasting:
            raise ValueError(
                f"settings: methods: {unknown('method', name, lasting)}; one of your own is named by its file, as in mine.py"
            )
        found[METHOD_REGISTRY.find(name, Path(file).parent).name if name.endswith(".py") else name] = own
    return found


def code_of(stream: str, spec: StreamSpec, method: str) -> dict[str, Source]:
    """What of a run does not ship: its method, its tasks, its stream."""
    code = {f"methods/{method}": METHOD_REGISTRY.loaded[method].source} if method in METHOD_REGISTRY.loaded else {}
    code |= {f"tasks/{task}": TASK_REGISTRY.loaded[task].source for task in spec.tasks if task in TASK_REGISTRY.loaded}
    if stream not in stream_files():
        text = spec.model_dump_json(
            exclude={"description"}, exclude_defaults=True
        )  # by what it says: a comment makes no other stream
        code[f"streams/{spec.name}"] = Source(sha256=hashlib.sha256(text.encode()).hexdigest())
    return code


def layer(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`high` over `low`. Where it changes procedural problems to rows of a data set, or back, the difficulties below it are left out for the
    tasks concerned: their knobs are those of the other problems."""
    if (high.get("data", source := low.get("data", PROCEDURAL)) == PROCEDURAL) != (source == PROCEDURAL):
        low = {
            **low,
            "difficulty": {task: knobs for task, knobs in low.get("difficulty", {}).items() if task not in DATA},
        }
    return merge(low, high)


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`high` over `low`, section by section."""
    out = dict(low)
    for key, value in high.items():
        out[key] = merge(out[key], value) if isinstance(value, Mapping) and isinstance(out.get(key), Mapping) else value
    return out


def parse_setting(text: str) -> tuple[str, Any]:
    """'slow.ratio_clip_max=4' as ("slow.ratio_clip_max", 4); the value is YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"--set wants key=value, got {text!r}")
    if key in ("stream", "method", "preset", "seed"):
        raise ValueError(f"--set {key} is --{key}")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        return key.strip(), value
