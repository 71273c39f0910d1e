"""The streams, methods, tasks, presets and runs that exist, as lists and in full."""

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

from fst_bench.core.registry import Registry, package_of
from fst_bench.harness.config import REGISTRIES, is_text, load_preset, preset_files
from fst_bench.harness.store import Store
from fst_bench.method.registry import find_method
from fst_bench.tasks import find_task, reasoning_gym
from fst_bench.tasks.stream import load_spec, read_yaml, stream_files

Shown = tuple[str, dict[str, Any]]
"""The text for a person, and the same as data."""
Fields = dict[str, dict[str, Any]]
"""Typed settings by dotted name: type with bounds, default as `--set` reads it, description."""

# --- lists


def streams() -> dict[str, str]:
    return {name: read_yaml(path)["description"] for name, path in stream_files().items()}


def methods() -> dict[str, str]:
    return listed(REGISTRIES["methods"])


def tasks() -> dict[str, str]:
    return listed(REGISTRIES["tasks"]) | reasoning_gym.allowed()


def presets() -> dict[str, str]:
    return {name: path.read_text().splitlines()[0].lstrip("# ") for name, path in preset_files().items()}


CATALOGUE: dict[str, Callable[[], dict[str, str]]] = {
    "streams": streams,
    "methods": methods,
    "tasks": tasks,
    "presets": presets,
}
"""Kind -> its entries, each a name and one line."""


def runs(out: Path) -> dict[str, str]:
    """Return the run directories under `out`, finished or not."""
    found = {}
    for path in sorted(file.parent for file in out.glob("*/*/*/config.json")):
        store = Store(path)
        if store.finished:
            found[str(path)] = f"finished, final average {store.read('metrics')['final_average']['system']:.3f}"
        else:
            steps = [row["step"] for row in store.rows("events")]
            found[str(path)] = f"stopped after step {max(steps, default=0)}: fst-bench resume {path}"
    return found


def listed(registry: Registry[Any]) -> dict[str, str]:
    """Return the shipped classes and those of installed packages.

    One that does not load has the reason in its line, and hides no other.
    """
    found = {name: summary(made) for name, made in registry.shipped.items()}
    for name, points in registry.offered().items():
        packages = f"({', '.join(map(package_of, points))})"
        try:
            found.setdefault(name, f"{summary(registry.find(name))} {packages}")
        except ValueError as error:
            found[name] = f"{packages} {error}"
    return found


def summary(made: type) -> str:
    """Return the first line of the docstring of a class's module, without the name in front of it."""
    lines = (inspect.getdoc(inspect.getmodule(made)) or "").splitlines()
    return lines[0].split(": ", 1)[-1] if lines else ""


# --- one in full


def show(kind: str, name: str) -> Shown:
    """Return one thing in full. Raises ValueError that names what exists where it does not."""
    return SHOW[kind](name)


def stream(name: str) -> Shown:
    from fst_bench.analysis.report.streams import drawing  # imports matplotlib

    spec = load_spec(name)
    text = (stream_files().get(name) or Path(name)).read_text()
    return f"{text.rstrip()}\n\n{drawing(spec)}", spec.model_dump(mode="json")


def method(name: str) -> Shown:
    made = find_method(name)
    fields = fields_of(made.Settings)
    code = Path(inspect.getfile(made)).read_text()
    own = "\n".join(["", *settable("settings", fields)]) if fields else " none"
    return f"{code}\nIts own settings, with their defaults:{own}", {"settings": fields}


def task(name: str) -> Shown:
    made = find_task(name)
    example = made(made.Difficulty(**made.levels[1]))
    problem = example.problems("test", 0, 1)[0]
    values = {
        "protocol": made.protocol,
        "example": {"prompt": problem.prompt, "answer": example.write(problem.answer)},
    }
    documentation = inspect.getdoc(inspect.getmodule(made)) or inspect.getdoc(made) or ""
    fields = fields_of(made.Difficulty)
    parameters = ["Its difficulty parameters, with their defaults:", *settable(f"difficulty.{made.name}", fields)]
    text = "\n\n".join([documentation, yaml.safe_dump(values, sort_keys=False).rstrip(), "\n".join(parameters)])
    return text, values | {"difficulty": fields}


def preset(name: str) -> Shown:
    values = load_preset(name)
    return (preset_files().get(name) or Path(name)).read_text(), values


def run(name: str) -> Shown:
    store = Store(Path(name))
    values = {"config": store.read("config"), "metrics": store.read("metrics") if store.finished else None}
    return yaml.safe_dump(values, sort_keys=False), values


SHOW: dict[str, Callable[[str], Shown]] = {
    "stream": stream,
    "method": method,
    "task": task,
    "preset": preset,
    "run": run,
}


def settable(section: str, fields: Fields) -> list[str]:
    """Return a line for each typed setting of a section, as `--set` takes it."""
    lines = []
    for key, field in fields.items():
        line = f"  --set {section}.{key}={field['default']}    {field['type']}"
        lines.append(f"{line}. {field['description']}" if field["description"] else line)
    return lines


def fields_of(model: type[BaseModel], above: str = "") -> Fields:
    """Return the typed settings of a model; a model inside it is walked, its fields under dotted names."""
    found: Fields = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= fields_of(field.annotation, f"{above}{name}.")
            continue
        kind = inspect.formatannotation(field.annotation)
        bounds = ", ".join(re.sub(r"^(\w+)\((.*)\)$", r"\2", repr(bound)) for bound in field.metadata)
        default = field.get_default(call_default_factory=True)
        found[f"{above}{name}"] = {
            "type": (f"{kind} with {bounds}" if bounds else kind).replace("typing.", ""),
            "default": "(required)" if default is PydanticUndefined else shown(default, field.annotation),
            "description": " ".join((field.description or "").split()),
        }
    return found


def shown(value: Any, kind: Any) -> str:
    """Return a value as --set takes it for a setting of that type."""
    value = to_jsonable_python(value)
    return value if isinstance(value, str) and is_text(kind) else json.dumps(value, ensure_ascii=False)
