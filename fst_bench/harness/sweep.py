"""A sweep: methods x seeds on one stream, each run a process of its own.

Where a run's directory exists already it is skipped when finished and resumed when not. So the same command continues a
sweep that was stopped, also on another machine that has the directory. A run that another process works on is waited
for. A run that fails stops no other one. Runs on the CPU share its cores; a run on a GPU has that GPU to itself.
"""

import math
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fst_bench.core.errors import unknown
from fst_bench.harness.config import Config, resolve, write_setting
from fst_bench.harness.evaluate import answers, evaluation_schedule
from fst_bench.harness.loop import run_parts
from fst_bench.harness.store import Store
from fst_bench.harness.trackers import load
from fst_bench.method.registry import find_method
from fst_bench.policy.settings import NO_GPU
from fst_bench.tasks.stream import Stream

State = Literal["there", "in use", "run", "resume", "done", "FAILED"]
"""Of a run: finished without the sweep, in progress in another process, started, resumed, finished, or failed."""
TAKEN = 4
"""The exit code of a command whose run another process works on, or began a moment ago."""
LOOK = 1.0
"""Seconds between looks at a run that another process works on."""
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


def gpus_here() -> list[str]:
    """Return each GPU as CUDA_VISIBLE_DEVICES names it: its entries where it is set, else the numbers torch counts."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        import torch  # here, so that a sweep on CPUs does without torch

        return [str(number) for number in range(torch.cuda.device_count())]
    entries = (entry.strip() for entry in visible.split(","))
    return list(dict.fromkeys(entry for entry in entries if entry not in ("", "-1")))  # -1 is a way to write none


def environments(on_gpus: bool, threads: int, jobs: int | None) -> list[dict[str, str]]:
    """Return the environment of each run that may be in progress at a time.

    Raises ValueError where no GPU is visible, or fewer than `jobs`.
    """
    shared = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if not on_gpus:
        return [shared] * (jobs or max(1, (os.cpu_count() or 1) // threads))
    gpus = gpus_here()
    if not gpus:
        raise ValueError(NO_GPU)
    if jobs and jobs > len(gpus):
        raise ValueError(f"--jobs can be at most {len(gpus)} here, one for each GPU, got {jobs}")
    return [shared | {"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[:jobs]]


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
) -> dict[Path, str | None]:
    """Return, for each run directory, None or why the run failed. All settings are checked before the first run starts.

    Of `settings` those under "methods.NAME." are for that method only. `jobs` runs are in progress at a time: by
    default as many as the cores hold at the runs' thread count, and with policy.device cuda one for each GPU, which is
    also the most. `track` names the trackers (see `fst_bench.harness.trackers`) that show each of them.
    """
    load(track)
    tracked = ["--track", ",".join(track)] if track else []
    observer = callback or SweepCallback()
    planned, configs = plan(stream, methods, seeds, out, preset, settings or {})
    devices = {config.policy.device for config in configs}
    if len(devices) > 1:
        raise ValueError(
            "policy.device is cpu for some runs of this sweep and cuda for others: make two sweeps of them"
        )
    threads = configs[-1].threads if configs else 1
    free = deque(environments("cuda" in devices, threads, jobs))  # a run takes one for itself and gives it back

    def one(path: Path) -> str | None:
        """Bring one run to its end. Return None, or why it failed."""
        store, code, said = Store(path), TAKEN, ""
        while code == TAKEN:  # another process was quicker: what is left to do shows when it has ended
            wait(store)
            if store.finished:
                observer.on_state(path, "there")
                return None
            begun = store.begun
            observer.on_state(path, "resume" if begun else "run")
            arguments = ["resume", str(path)] if begun else planned[path].command
            command = [sys.executable, "-m", "fst_bench", *arguments, *tracked]
            environment = free.popleft()  # never empty: the pool has as many threads as there are environments
            try:
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            finally:
                free.append(environment)
            code, said = done.returncode, done.stderr
        why = None if code == 0 else (said.strip().splitlines() or [f"exit {code}"])[-1]
        observer.on_state(path, "FAILED" if why else "done", why)
        return why

    def wait(store: Store) -> None:
        """Return when no other process works on a run."""
        known = None
        while (owner := store.holder()) is not None:
            if owner != known:
                observer.on_state(store.path, "in use", known := owner)
            time.sleep(LOOK)

    observer.on_begin(planned)
    try:
        with ThreadPoolExecutor(len(free)) as pool:
            return dict(zip(planned, pool.map(one, planned), strict=True))
    finally:
        observer.on_end()
