"""What there is: streams, methods, tasks, presets and runs, as lists and in full."""

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

from fst_bench.config import SHELVES, load_preset, preset_files
from fst_bench.methods import find_method
from fst_bench.plugins import Shelf, package_of
from fst_bench.store import Store
from fst_bench.stream import load_spec, read_yaml, stream_files
from fst_bench.tasks import find_task


def streams() -> dict[str, str]:
    return {name: read_yaml(path)["description"] for name, path in stream_files().items()}


def on(shelf: Shelf[Any]) -> dict[str, str]:
    """What ships, and what installed packages offer; one that does not load says why, and hides nobody else."""
    found = {name: summary(made) for name, made in shelf.shipped.items()}
    for name, points in shelf.offered().items():
        packages = f"({', '.join(map(package_of, points))})"
        try:
            found.setdefault(name, f"{summary(shelf.find(name))} {packages}")
        except ValueError as error:
            found[name] = f"{packages} {error}"
    return found


def summary(made: type) -> str:
    return first_line(inspect.getmodule(made)).split(": ", 1)[-1]


def presets() -> dict[str, str]:
    return {name: path.read_text().splitlines()[0].lstrip("# ") for name, path in preset_files().items()}


CATALOGUE: dict[str, Callable[[], dict[str, str]]] = {
    "streams": streams, "methods": lambda: on(SHELVES["methods"]), "tasks": lambda: on(SHELVES["tasks"]), "presets": presets,
}  # fmt: skip


def runs(out: Path) -> dict[str, str]:
    """Run directories under `out`, finished or not."""
    found = {}
    for path in sorted(out.glob("*/*/*/config.json")):
        store = Store(path.parent)
        if (path.parent / "metrics.json").exists():
            found[str(path.parent)] = f"finished, final average {store.read('metrics')['final_average']['system']:.3f}"
        else:
            steps = [row["step"] for row in store.rows("events")]
            found[str(path.parent)] = f"stopped after step {max(steps, default=0)}: fst-bench resume {path.parent}"
    return found


def show(kind: str, name: str) -> tuple[str, dict[str, Any]]:
    """(text for a person, the same as data). ValueError names what exists."""
    if kind == "run":
        store = Store(Path(name))
        config = store.read("config")
        metrics = store.read("metrics") if (store.path / "metrics.json").exists() else None
        facts = {"config": config, "metrics": metrics}
        return yaml.safe_dump(facts, sort_keys=False), facts
    if kind == "stream":
        from fst_bench.report.streams import drawing  # brings matplotlib

        spec = load_spec(name)
        text = (stream_files().get(name) or Path(name)).read_text()
        return f"{text.rstrip()}\n\n{drawing(spec)}", spec.model_dump(mode="json")
    if kind == "preset":
        preset = load_preset(name)
        return (preset_files().get(name) or Path(name)).read_text(), preset
    if kind == "task":
        task = find_task(name)
        example = task(task.Difficulty(**task.ladder[1]))
        problem = example.problems("test", 0, 1)[0]
        facts = {"protocol": task.protocol, "example": {"prompt": problem.prompt, "answer": example.write(problem.answer)}}
        text = f"{documentation(task)}\n\n{yaml.safe_dump(facts, sort_keys=False)}\nIts knobs, with their defaults:\n"
        knobs = settings(task.Difficulty)
        return text + "\n".join(lines(f"difficulty.{task.name}", knobs)), facts | {"knobs": knobs}
    method = find_method(name)
    fields = settings(method.Settings)
    text = f"{Path(inspect.getfile(method)).read_text()}\nIts own settings, with their defaults:"
    return "\n".join([text, *lines("settings", fields)]) if fields else f"{text} none", {"settings": fields}


def lines(above: str, fields: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each typed setting, as `--set` takes it."""
    return [
        f"  --set {above}.{key}={facts['default']}    {facts['type']}" + f". {facts['description']}" * bool(facts["description"])
        for key, facts in fields.items()
    ]


def settings(model: type[BaseModel], above: str = "") -> dict[str, dict[str, Any]]:
    """The typed settings of a model by dotted name, each with its type (and bounds), its default as `--set` reads it, and what it is for."""
    found: dict[str, dict[str, Any]] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= settings(field.annotation, f"{above}{name}.")
            continue
        bounds = ", ".join(re.sub(r"^(\w+)\((.*)\)$", r"\2", repr(bound)) for bound in field.metadata)
        default = field.get_default(call_default_factory=True)
        found[f"{above}{name}"] = {
            "type": (inspect.formatannotation(field.annotation) + (f" with {bounds}" if bounds else "")).replace("typing.", ""),
            "default": "(required)" if default is PydanticUndefined else json.dumps(to_jsonable_python(default), ensure_ascii=False),
            "description": " ".join((field.description or "").split()),
        }
    return found


def documentation(thing: type) -> str:
    """Of the file that a class is in; of the class, where the file has none."""
    return inspect.getdoc(inspect.getmodule(thing)) or inspect.getdoc(thing) or ""


def first_line(thing: Any) -> str:
    return ((inspect.getdoc(thing) or "").splitlines() or [""])[0]
