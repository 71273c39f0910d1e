"""Finished runs that belong in one table."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fst_bench.harness.collection import Collection
from fst_bench.harness.config import Config, merge
from fst_bench.harness.protocol import flat
from fst_bench.harness.run import Run, sound
from fst_bench.harness.store import Store
from fst_bench.policy.models import other_parts

Runs = tuple[Run, ...]
COMPARED = ("batch", "stage_problems", "seed_prompt", "difficulty", "evaluation", "init")
"""Settings of the problems and of their scoring, as against how a method learns: alike in one table."""
REMEDIES = {
    "stream": ": compare one stream at a time, as in fst-bench compare runs/STREAM@VERSION",
    "code": ": its task or stream was changed; a stream's version goes up with every change",
}
"""Name of what differs -> what a user can do about it."""
ORDER = ["base", "gepa", "rl", "fst"]
"""The methods that every table begins with, in their order."""


def load(paths: Iterable[Path]) -> Runs:
    """Return the finished runs at or below the paths, run directories and committed collections alike.

    A method that was run in several ways is several (see `versions`). Raises ValueError where no run is found, where
    one is not sound (see `harness.run.sound`), or where two do not belong in one table.
    """
    paths = list(paths)
    found = [run for path in paths for run in finished_below(path)]
    if not found:
        raise ValueError(f"no finished run in {', '.join(map(str, paths))}")
    return alike(versions([sound(run) for run in {run.path: run for run in found}.values()]))


def finished_below(path: Path) -> list[Run]:
    """Return the finished runs at or below a path, those of plasticity probes left out.

    In a collection a path is the stream's folder, or STREAM/METHOD.
    """
    if collection := Collection.at(path):
        return collection.runs()
    if collection := Collection.at(path.parent):
        return [run for run in collection.runs() if run.saved["method"] == path.name]
    folders = [p.parent for p in sorted(path.rglob("config.json")) if "probes" not in p.parts]
    collections = [Collection(p.parent) for p in sorted(path.rglob("runs.parquet"))]
    runs = [Run(Store(folder)) for folder in folders]
    return [run for run in runs if run.finished] + [run for each in collections for run in each.runs()]


def versions(runs: list[Run]) -> list[Run]:
    """Return the same runs, labelled where one method ran with several settings or its file was changed.

    A label names the settings, as in 'mine (settings.probe=3)'.
    """
    named = {run: run for run in runs}
    for method in dict.fromkeys(run.method for run in runs):
        own = [run for run in runs if run.method == method]
        first = settings_of(own[0])
        others = [run for run in own if settings_of(run) != first]
        keys = sorted({key for run in others for key in differing(run, own[0]) if of_the_method(key)})
        for run in own if keys else ():
            values = spelled(run)
            parts = [
                f"code={str(values.get(key))[:6]}" if key.startswith("code.") else f"{key}={short(values.get(key), 30)}"
                for key in keys
            ]
            named[run] = replace(run, label=f"{method} ({', '.join(parts)})")
    return list(named.values())


def of_the_method(key: str) -> bool:
    """Return whether a setting is about how a method learns; two runs of one table are alike in all others."""
    own_code = key.startswith("code.methods/") and key.endswith(".sha256")
    return own_code or key.split(".")[0] not in (*COMPARED, "code", "model", "preset")


def alike(found: Iterable[Run]) -> Runs:
    """Return the runs as one table's. Raises ValueError that names the first that does not belong, and why."""
    runs: list[Run] = []
    for run in found:
        for other in runs[:1]:
            expected = same_of(other)
            for name, value in same_of(run).items():
                if value == expected[name]:
                    continue
                # a setting added after one of them ran had its default there
                if name not in COMPARED or any(key.split(".")[0] == name for key in differing(run, other)):
                    ours, theirs = apart(value, expected[name])
                    raise ValueError(
                        f"{run.path} does not belong in this table: {name} {short(ours)}, "
                        f"the others have {short(theirs)}{REMEDIES.get(name, '')}"
                    )
        for other in runs:
            if parts := other_parts(run.fingerprint.model, other.fingerprint.model):
                raise ValueError(
                    f"{run.path} does not belong in this table: its {run.saved['model']} is not that of {other.path}: "
                    f"another {' and another '.join(parts)}"
                )
            if other.method == run.method and other.seed == run.seed:
                raise ValueError(
                    f"{run.path} is a second run of {run.method} with seed {run.seed}, like {other.path}: "
                    "name the runs, one a seed, and not their folder"
                )
            if other.method == run.method and settings_of(other) != settings_of(run):
                for key, (value, theirs) in differing(run, other).items():
                    raise ValueError(f"{run.path} has other settings than {other.path}: {key} {value}, not {theirs}")
        runs.append(run)
    return tuple(runs)


def compared_settings(run: Run) -> dict[str, Any]:
    """Return all settings of a run, without difficulties of tasks that its stream does not hold."""
    variants = run.saved.get("spec", {}).get("variants", {})
    held = {variants.get(key, {"task": key})["task"] for stage in run.stages for key in stage.tasks}
    settings = run.saved["config"]
    return settings | {
        "difficulty": {task: values for task, values in settings["difficulty"].items() if task in held},
        # folders may lie elsewhere: what they hold is compared
        "model": model.name if (model := Path(run.saved["model"])).is_absolute() else run.saved["model"],
        "init": run.fingerprint.init or settings["init"],
    }


def same_of(run: Run) -> dict[str, Any]:
    """Return what has to be alike in one table, by its name in messages."""
    saved = run.saved
    settings = compared_settings(run)
    code = settings.get("code", {})
    return {
        "stream": f"{saved['stream']}@{saved['stream_version']}",
        "model": settings["model"],
        "preset": saved["preset"],
        **{name: settings[name] for name in COMPARED},
        # by what it holds: its folder may lie elsewhere
        "data": {name: source["fingerprint"] for name, source in saved.get("data", {}).items()},
        "code": {name: source["sha256"] for name, source in code.items() if not name.startswith("methods/")},
    }


def settings_of(run: Run) -> dict[str, Any]:
    """Return the settings that are alike among the seeds of one method."""
    own = ("seed", "stream", "threads", "evaluator", "data")
    return {k: v for k, v in compared_settings(run).items() if k not in own}


def differing(run: Run, other: Run) -> dict[str, tuple[Any, Any]]:
    """Return dotted names of settings in which two runs differ, and both values.

    A setting added after a run had its default there.
    """
    ours, theirs = spelled(run), spelled(other)
    return {key: (ours.get(key), theirs.get(key)) for key in ours | theirs if ours.get(key) != theirs.get(key)}


def spelled(run: Run) -> dict[str, Any]:
    """Return every setting of a run by its dotted name, those added after it with their defaults."""
    defaults = Config(stream="any", method="any", preset="any").model_dump(mode="json")
    return dict(flat(merge(defaults, settings_of(run))))


def apart(ours: Any, theirs: Any) -> tuple[Any, Any]:
    """Return the entries in which two mappings differ; anything else whole."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return ours, theirs
    keys = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
    return {key: ours[key] for key in keys if key in ours}, {key: theirs[key] for key in keys if key in theirs}


def short(value: Any, limit: int = 80) -> str:
    """Return a value as text, cut to a limit."""
    text = str(value)
    return text if len(text) < limit else text[: limit - 3] + "..."


def methods_of(runs: Iterable[Run]) -> list[str]:
    """Return the methods, the best known first in their usual order."""
    found = list(dict.fromkeys(run.method for run in runs))
    return sorted(found, key=lambda m: ORDER.index(m) if m in ORDER else len(ORDER))
