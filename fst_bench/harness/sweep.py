"""A sweep: methods x seeds on one stream, each run a process of its own.

Where a run's directory exists already it is skipped when finished and resumed when not. So the same command continues a
sweep that was stopped, also on another machine that has the directory. A run that another process works on is waited
for. A run that fails stops no other one. Where runs are made is `fst_bench.harness.launch`'s concern.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fst_bench.core.errors import unknown
from fst_bench.harness.config import Config, resolve, write_setting
from fst_bench.harness.evaluate import answers, evaluation_schedule
from fst_bench.harness.launch import Job, Needs, State, launch_of
from fst_bench.harness.loop import run_parts
from fst_bench.harness.store import Store
from fst_bench.harness.trackers import load
from fst_bench.method.registry import find_method
from fst_bench.tasks.stream import Stream

OWN = "methods."
"""The prefix of settings that are for one method only."""


@dataclass(frozen=True)
class Planned:
    """A run of the sweep, before it begins."""

    method: str
    seed: int
    steps: int
    command: list[str]
    """Arguments of fst-bench that start it."""
    answers: tuple[Mapping[int, int], ...] = ({}, {})
    """Step -> the answers that its evaluation samples: where no prompt evolves, and where prompts do."""


class SweepCallback:
    """An observer of a sweep, called from several threads. This one does nothing."""

    def on_begin(self, runs: Mapping[Path, Planned]) -> None:
        """Called before the first run, with every run by its directory."""

    def on_state(self, path: Path, state: State, why: str | None = None) -> None:
        """Called when a run's state changes; `why` is the error of a run that failed, or who uses it."""

    def on_end(self) -> None:
        """Called when no run is in progress any more."""


def parse_seeds(text: str) -> list[int]:
    """Return '0-4,7' as [0, 1, 2, 3, 4, 7]. Raises ValueError where the text is not a list of seeds."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and (not last.isdecimal() or int(last) < int(first))):
            raise ValueError(f"--seeds requires numbers and ranges such as 0-4,7, got {text!r}")
        seeds += range(int(first), int(last or first) + 1)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds {text!r} names a seed twice")
    return seeds


def settings_of(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings for every method, and over them those for this method only."""
    prefix = f"{OWN}{method}."
    shared = {key: value for key, value in settings.items() if not key.startswith(OWN)}
    return shared | {key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)}


def plan(
    stream: str, methods: Sequence[str], seeds: Sequence[int], out: Path, preset: str, settings: Mapping[str, Any]
) -> tuple[dict[Path, Planned], list[Config]]:
    """Return the runs of a sweep by their directories, and their configurations, seed by seed.

    Raises ValueError where a setting of any of them is wrong.
    """
    names = {method: find_method(method).name for method in methods}
    for key in settings:
        if key.startswith(OWN) and key.split(".")[1] not in names.values():
            raise ValueError(f"--set {key}: {unknown('method of this sweep', key.split('.')[1], names.values())}")
    runs: dict[Path, Planned] = {}
    configs = []
    for seed in seeds:
        for method in methods:
            own = settings_of(names[method], settings)
            config, spec = resolve(stream, method, preset, seed, own)
            found = Stream(spec, seed, config.difficulty, config.stage_problems, config.data)
            schedule = evaluation_schedule(found, config.batch, config.evaluation)
            sampled = (answers(schedule, config.evaluation, evolves=evolves) for evolves in (False, True))
            command = ["run", "--stream", stream, "--method", method, "--preset", preset]
            command += ["--seed", str(seed), "--out", str(out), "--once"]
            made = find_method(method)
            command += [part for key, value in own.items() for part in ("--set", write_setting(key, value, made))]
            path = out.joinpath(*run_parts(config, spec))
            runs[path] = Planned(method, seed, math.ceil(found.total / config.batch), command, tuple(sampled))
            configs.append(config)
    return runs, configs


def sweep(
    stream: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    preset: str = "tiny",
    settings: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    callback: SweepCallback | None = None,
    track: Sequence[str] = (),
    on: str = "local",
) -> dict[Path, str | None]:
    """Return, for each run directory, None or why the run failed. All settings are checked before the first run starts.

    `on` is where runs are made, see `fst_bench.harness.launch`.

    Of `settings` those under "methods.NAME." are for that method only. `jobs` runs are in progress at a time: by
    default as many as the cores hold at the runs' thread count, and with policy.device cuda one for each GPU, which is
    also the most. `track` names the trackers (see `fst_bench.harness.trackers`) that show each of them.
    """
    launch = launch_of(on)
    load(track)
    tracked = ["--track", ",".join(track)] if track else []
    observer = callback or SweepCallback()
    planned, configs = plan(stream, methods, seeds, out, preset, settings or {})
    devices = {config.policy.device for config in configs}
    if len(devices) > 1:
        raise ValueError(
            "policy.device is cpu for some runs of this sweep and cuda for others: make two sweeps of them"
        )
    needs = Needs(configs[-1].threads if configs else 1, "cuda" in devices, jobs)
    observer.on_begin(planned)
    try:
        unfinished = []
        for path, run in planned.items():
            if Store(path).finished:
                observer.on_state(path, "there")
            else:
                unfinished.append(Job(path, run.command, tracked))
        ended = launch(unfinished, needs, observer.on_state) if unfinished else {}
        return {path: ended.get(path) for path in planned}
    finally:
        observer.on_end()
