"""What there is: streams, methods, tasks, presets and runs, as lists and in full."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from fst_bench.config import load_preset, preset_files
from fst_bench.errors import unknown
from fst_bench.methods import METHODS
from fst_bench.store import Store
from fst_bench.stream import load_spec, read_yaml, stream_files
from fst_bench.tasks import TASKS, load_task


def streams() -> dict[str, str]:
    return {name: read_yaml(path)["description"] for name, path in stream_files().items()}


def methods() -> dict[str, str]:
    return {name: first_line(inspect.getmodule(method)).split(": ", 1)[-1] for name, method in METHODS.items()}


def tasks() -> dict[str, str]:
    return {name: first_line(inspect.getmodule(task)).split(": ", 1)[-1] for name, task in TASKS.items()}


def presets() -> dict[str, str]:
    return {name: path.read_text().splitlines()[0].lstrip("# ") for name, path in preset_files().items()}


CATALOGUE: dict[str, Callable[[], dict[str, str]]] = {"streams": streams, "methods": methods, "tasks": tasks, "presets": presets}


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
        return drawing(spec), spec.model_dump(mode="json")
    if kind == "preset":
        preset = load_preset(name)
        return (preset_files().get(name) or Path(name)).read_text(), preset
    if kind == "task":
        if name not in TASKS:
            raise ValueError(unknown("task", name, TASKS))
        task, example = TASKS[name], load_task(name, **TASKS[name].ladder[1])
        problem = example.problems("test", 0, 1)[0]
        knobs = {key: str(field.default) for key, field in task.Difficulty.model_fields.items()}
        facts = {"protocol": task.protocol, "knobs": knobs, "example": {"prompt": problem.prompt, "answer": example.write(problem.answer)}}
        return f"{inspect.getdoc(inspect.getmodule(task))}\n\n{yaml.safe_dump(facts, sort_keys=False)}", facts
    if name not in METHODS:
        raise ValueError(unknown("method", name, METHODS))
    method = METHODS[name]
    schema = method.Settings.model_json_schema().get("properties", {})
    return f"{Path(inspect.getfile(method)).read_text()}\nsettings: {schema or 'none of its own'}", {"settings": schema}


def first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").splitlines()[0]
