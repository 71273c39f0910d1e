"""Finished runs that belong in one table, and what they recorded."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from fst_bench.metrics.transfer import trained
from fst_bench.store import Store, records

ASKED = ("batch", "stage_problems", "seed_prompt", "difficulty", "evaluation", "init")
"""Settings that say what was asked and how it was judged, as against how a method learns: alike in one table."""

REMEDIES = {
    "stream": ": compare one stream at a time, as in fst-bench compare runs/STREAM@VERSION",
    "code": ": its task or stream was changed; a stream's version goes up with every change",
}
"""What to do where a thing differs."""


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished run, as far as tables and figures need it; itself a key, so that what is made of runs can be kept."""

    path: Path
    method: str
    seed: int
    same: dict[str, Any]
    """What has to be alike in one table, in words."""
    settings: dict[str, Any]
    """All of them, the seed apart: alike among the seeds of one method."""
    stages: list[dict[str, Any]]
    metrics: dict[str, Any]
    ledger: dict[str, Any]

    rows: list[dict[str, Any]] | None = field(default=None, repr=False)
    """Its evaluation rows; None where they are in its folder."""

    @cached_property
    def evals(self) -> pd.DataFrame:
        rows = records(self.path / "evals.jsonl") if self.rows is None else self.rows
        return pd.DataFrame(rows).assign(method=self.method, seed=self.seed)

    @cached_property
    def steps(self) -> pd.DataFrame:
        """The training steps; none where the run's events were not kept."""
        rows = [row for row in records(self.path / "events.jsonl") if row["kind"] == "step"]
        return pd.DataFrame(rows).assign(method=self.method, seed=self.seed)

    def probe(self, kind: str) -> pd.DataFrame:
        """The rows of a probe, each with its key as columns; none where it was not run."""
        rows = [row["key"] | {k: v for k, v in row.items() if k != "key"} for row in records(self.path / "probes" / f"{kind}.jsonl")]
        return pd.DataFrame(rows).assign(method=self.method, seed=self.seed)


Runs = tuple[Finished, ...]


def load(paths: Iterable[Path]) -> Runs:
    """The finished runs at or below the paths; a method that was run in several ways is several (see `versions`). ValueError where there is
    none, or where two do not belong in one table."""
    folders = dict.fromkeys(p.parent for path in paths for p in sorted(path.rglob("metrics.json")) if "probes" not in p.parts)
    if not folders:
        raise ValueError(f"no finished run in {', '.join(map(str, paths))}")
    return alike(versions(list(map(read, folders))))


def versions(runs: list[Finished]) -> list[Finished]:
    """The same runs, where one method ran with several settings, or its file was changed, under a name that says which: 'mine (settings.probe=3)'."""
    named = {run: run for run in runs}
    for method in dict.fromkeys(run.method for run in runs):
        own = [run for run in runs if run.method == method]
        keys = sorted({key for run in own if run.settings != own[0].settings for key in differing(run, own[0]) if of_the_method(key)})
        for run in own if keys else ():
            values = spelled(run)
            said = [f"code={str(values.get(key))[:6]}" if key.startswith("code.") else f"{key}={short(values.get(key), 30)}" for key in keys]
            named[run] = replace(run, method=f"{method} ({', '.join(said)})")
    return list(named.values())


def of_the_method(key: str) -> bool:
    """Whether a setting says how a method learns; in the others two runs of one table are alike."""
    return (key.startswith("code.methods/") and key.endswith(".sha256")) or key.split(".")[0] not in (*ASKED, "code", "model", "preset")


def alike(found: Iterable[Finished]) -> Runs:
    """Runs that belong in one table. ValueError names the first that does not, and why."""
    runs: list[Finished] = []
    for run in found:
        for other in runs[:1]:
            for name, value in run.same.items():
                if value != other.same[name] and (name not in ASKED or any(key.split(".")[0] == name for key in differing(run, other))):
                    ours, theirs = apart(value, other.same[name])
                    raise ValueError(
                        f"{run.path} does not belong in this table: {name} {short(ours)}, the others have {short(theirs)}{REMEDIES.get(name, '')}"
                    )
        for other in runs:
            if other.method == run.method and other.seed == run.seed:
                raise ValueError(
                    f"{run.path} is a second run of {run.method} with seed {run.seed}, beside {other.path}: name the runs, one a seed, and not their folder"
                )
            if other.method == run.method and other.settings != run.settings:
                for key, (value, theirs) in differing(run, other).items():
                    raise ValueError(f"{run.path} has other settings than {other.path}: {key} {value}, not {theirs}")
        runs.append(run)
    return tuple(runs)


def read(folder: Path) -> Finished:
    store = Store(folder)
    return finished(folder, store.read("config"), store.read("metrics"), store.read("ledger"))


def finished(
    path: Path, saved: dict[str, Any], metrics: dict[str, Any], ledger: dict[str, Any], rows: list[dict[str, Any]] | None = None
) -> Finished:  # fmt: skip
    """A run from its config.json, its metrics and its ledger."""
    met = {saved.get("spec", {}).get("variants", {}).get(key, {"task": key})["task"] for stage in saved["stages"] for key in trained(stage["task"])}
    knobs = {task: values for task, values in saved["config"]["difficulty"].items() if task in met}  # of other tasks it was never asked
    settings = saved["config"] | {"difficulty": knobs}
    same = {"stream": f"{saved['stream']}@{saved['stream_version']}", "model": saved["model"], "preset": saved["preset"]}
    same |= {name: settings[name] for name in ASKED}
    same["data"] = {name: facts["fingerprint"] for name, facts in saved.get("data", {}).items()}  # its folder may lie elsewhere
    same["code"] = {name: facts["sha256"] for name, facts in settings.get("code", {}).items() if not name.startswith("methods/")}
    learning = {k: v for k, v in settings.items() if k not in ("seed", "stream", "threads", "data")}
    return Finished(path, saved["method"], saved["seed"], same, learning, saved["stages"], metrics, ledger, rows)


def differing(run: Finished, other: Finished) -> dict[str, tuple[Any, Any]]:
    """Dotted names of settings in which two runs differ, and both values. A setting that is younger than a run had its default there."""
    ours, theirs = spelled(run), spelled(other)
    return {key: (ours.get(key), theirs.get(key)) for key in ours | theirs if ours.get(key) != theirs.get(key)}


def spelled(run: Finished) -> dict[str, Any]:
    """Every setting of a run by its dotted name, those that are younger than it with their defaults."""
    from fst_bench.config import Config, merge  # brings all backends: only for runs that seem to differ
    from fst_bench.protocol import flat

    return dict(flat(merge(Config(stream="", method="", preset="").model_dump(mode="json"), run.settings)))


def apart(ours: Any, theirs: Any) -> tuple[Any, Any]:
    """Of two mappings the entries that differ; anything else whole."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return ours, theirs
    keys = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
    return {key: ours[key] for key in keys if key in ours}, {key: theirs[key] for key in keys if key in theirs}


def short(value: Any, limit: int = 80) -> str:
    text = str(value)
    return text if len(text) < limit else text[: limit - 3] + "..."


ORDER = ["base", "gepa", "rl", "fst"]


def methods_of(runs: Iterable[Finished]) -> list[str]:
    """The methods, the best known first in their usual order."""
    found = list(dict.fromkeys(run.method for run in runs))
    return sorted(found, key=lambda m: ORDER.index(m) if m in ORDER else len(ORDER))
