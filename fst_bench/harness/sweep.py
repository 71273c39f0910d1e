"""A sweep: methods x seeds on one stream, each run a process of its own.

Where a run's directory is there already it is skipped when finished and resumed when not, so a sweep that was stopped
goes on by the same command, also on another machine that has the directory. A run that fails stops no other one.
Runs on the CPU share its cores; a run on a GPU has that GPU to itself.
"""

import json
import math
import os
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fst_bench.core.errors import unknown
from fst_bench.harness.config import resolve
from fst_bench.harness.loop import run_parts
from fst_bench.harness.store import Store
from fst_bench.harness.trackers import load
from fst_bench.method.registry import find_method
from fst_bench.policy.settings import NO_GPU
from fst_bench.tasks.stream import Stream

State = Literal["there", "run", "resume", "done", "FAILED"]


OWN = "methods."
"""What the names of settings that are for one method only begin with."""


@dataclass(frozen=True)
class Planned:
    """A run of the sweep: how it is begun, and how many steps it has."""

    method: str
    seed: int
    steps: int
    command: list[str]


class SweepCallback:
    """An observer of a sweep, called from several threads. This one does nothing."""

    def on_begin(self, runs: Mapping[Path, Planned]) -> None: ...

    def on_state(self, path: Path, state: State, why: str | None = None) -> None: ...

    def on_end(self) -> None: ...


def parse_seeds(text: str) -> list[int]:
    """'0-4,7' as [0, 1, 2, 3, 4, 7]. ValueError where it is no list of seeds."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and (not last.isdecimal() or int(last) < int(first))):
            raise ValueError(f"--seeds wants numbers and ranges such as 0-4,7, got {text!r}")
        seeds += range(int(first), int(last or first) + 1)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds {text!r} names a seed twice")
    return seeds


def settings_of(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everyone's, and over them those that are for this method only."""
    mine = f"{OWN}{method}."
    shared = {key: value for key, value in settings.items() if not key.startswith(OWN)}
    return shared | {key.removeprefix(mine): value for key, value in settings.items() if key.startswith(mine)}


def gpus_here() -> list[str]:
    """How CUDA_VISIBLE_DEVICES names each GPU: its own entries where it is set, else the numbers of those that torch sees."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        import torch  # here, so that what loads no model does without torch

        return [str(number) for number in range(torch.cuda.device_count())]
    entries = (entry.strip() for entry in visible.split(","))
    return list(dict.fromkeys(entry for entry in entries if entry not in ("", "-1")))  # -1 is how one says none


def environments(on_gpus: bool, threads: int, jobs: int | None) -> list[dict[str, str]]:
    """One for each run that may go on at a time. ValueError where there is no GPU, or fewer than jobs."""
    shared = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if not on_gpus:
        return [shared] * (jobs or max(1, (os.cpu_count() or 1) // threads))
    gpus = gpus_here()
    if not gpus:
        raise ValueError(NO_GPU)
    if jobs and jobs > len(gpus):
        raise ValueError(f"--jobs can be at most {len(gpus)} here, one for each GPU, got {jobs}")
    return [shared | {"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[:jobs]]


def sweep(
    stream: str, methods: Sequence[str], seeds: Sequence[int], out: Path, preset: str = "tiny", settings: Mapping[str, Any] | None = None,
    jobs: int | None = None, callback: SweepCallback | None = None, track: Sequence[str] = (),
) -> dict[Path, str | None]:  # fmt: skip
    """{run directory: None, or why it failed}, seed by seed. All settings are checked before the first run starts.

    Of `settings` those under "methods.NAME." are for that method only.
    `jobs` runs go on at a time; by default as many as the cores hold at the runs' thread count, and with policy.device cuda
    one for each GPU, which is also the most. `track` names the trackers (see `trackers`) that show each of them.
    """
    load(track)
    tracked = ["--track", ",".join(track)] if track else []
    observer = callback or SweepCallback()
    planned: dict[Path, Planned] = {}
    threads = 1
    devices: set[str] = set()
    names = {method: find_method(method).name for method in methods}
    own = {method: settings_of(name, settings or {}) for method, name in names.items()}
    for key in settings or {}:
        if key.startswith(OWN) and key.split(".")[1] not in names.values():
            raise ValueError(f"--set {key}: {unknown('method of this sweep', key.split('.')[1], names.values())}")
    for seed in seeds:
        for method in methods:
            config, spec = resolve(stream, method, preset, seed, own[method])
            threads = config.threads
            devices.add(config.policy.device)
            stream_of_seed = Stream(spec, seed, config.difficulty, config.stage_problems, config.data)
            steps = math.ceil(stream_of_seed.total / config.batch)
            command = [
                "run",
                "--stream",
                stream,
                "--method",
                method,
                "--preset",
                preset,
                "--seed",
                str(seed),
                "--out",
                str(out),
            ]
            command += [part for key, value in own[method].items() for part in ("--set", f"{key}={json.dumps(value)}")]
            planned[out.joinpath(*run_parts(config, spec))] = Planned(method, seed, steps, command)
    if len(devices) > 1:
        raise ValueError(
            "policy.device is cpu for some runs of this sweep and cuda for others: make two sweeps of them"
        )
    free = deque(environments("cuda" in devices, threads, jobs))  # a run takes one for itself and gives it back

    def one(path: Path) -> str | None:
        if Store(path).finished:
            observer.on_state(path, "there")
            return None
        begun = (path / "config.json").exists()
        observer.on_state(path, "resume" if begun else "run")
        command = [
            sys.executable,
            "-m",
            "fst_bench",
            *(["resume", str(path)] if begun else planned[path].command),
            *tracked,
        ]
        environment = free.popleft()  # one is there: the pool has as many threads as there are environments
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        finally:
            free.append(environment)
        why = None if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        observer.on_state(path, "FAILED" if why else "done", why)
        return why

    observer.on_begin(planned)
    try:
        with ThreadPoolExecutor(len(free)) as pool:
            return dict(zip(planned, pool.map(one, planned), strict=True))
    finally:
        observer.on_end()
