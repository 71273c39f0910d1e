"""A sweep: methods x seeds on one stream, each run a process of its own.

Where a run's directory is there already it is skipped when finished and resumed when not, so a sweep that was stopped
goes on by the same command, also on another machine that has the directory. A run that fails stops no other one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fst_bench.bench import run_parts
from fst_bench.config import resolve


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


def sweep(
    stream: str, methods: Sequence[str], seeds: Sequence[int], out: Path, preset: str = "tiny", settings: Mapping[str, Any] | None = None,
    jobs: int | None = None, tell: Callable[[str], None] = print,
) -> dict[Path, str | None]:  # fmt: skip
    """{run directory: None, or why it failed}, seed by seed. All settings are checked before the first run starts.

    `jobs` runs go on at a time; by default as many as the cores hold at the runs' thread count.
    """
    jobs_by_path: dict[Path, list[str]] = {}
    threads = 1
    for seed in seeds:
        for method in methods:
            config, spec = resolve(stream, method, preset, seed, settings)
            threads = config.threads
            command = ["run", "--stream", stream, "--method", method, "--preset", preset, "--seed", str(seed), "--out", str(out)]
            command += [part for key, value in (settings or {}).items() for part in ("--set", f"{key}={json.dumps(value)}")]
            jobs_by_path[out.joinpath(*run_parts(config, spec))] = command
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}

    def one(path: Path) -> str | None:
        if (path / "manifest.json").exists():
            tell(f"there  {path}")
            return None
        command = ["resume", str(path)] if (path / "config.json").exists() else jobs_by_path[path]
        tell(f"{command[0]:<6} {path}")
        done = subprocess.run([sys.executable, "-m", "fst_bench", *command], env=environment, capture_output=True, text=True, check=False)
        why = None if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        tell(f"{'done' if why is None else 'FAILED':<6} {path}" + (f": {why}" if why else ""))
        return why

    with ThreadPoolExecutor(jobs or max(1, (os.cpu_count() or 1) // threads)) as pool:
        return dict(zip(jobs_by_path, pool.map(one, jobs_by_path), strict=True))
