"""The paper's experiments: sweeps over its streams and methods, and the probes of their runs."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fst_bench.analysis.runs import Runs, load
from fst_bench.harness.sweep import SweepCallback, sweep

TASKS = ("codeio", "math", "hover")
"""The paper's three; physics and star-graph are studied apart."""
ALL = (*TASKS, "physics", "star-graph")
METHODS = ("gepa", "rl", "fst")
SETTINGS = {"threads": 1, "evaluation.interval": 40}
"""Settings of the single-task streams: finer evaluations, for the curves that are fitted."""
PROBES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "channels": (TASKS, ("fst",)),
    "ood": (TASKS, ("rl", "fst")),
    "plasticity": (("math", "physics"), ("rl", "fst")),
}
"""Probe -> tasks of the single-task streams and methods it is run on."""
DISTILLED = "hover"
"""The task of fst-distill, as in the paper."""
FRESH = "hover"
"""The task of the plasticity passes."""


def experiments(
    out: Path,
    seeds: list[int],
    preset: str,
    jobs: int | None,
    callback: SweepCallback,
    tell: Callable[[str], None],
    on: str = "local",
) -> list[str]:
    """Run what is missing below `out`; return what failed, a line each. `tell` is called with a line a probe.

    Runs are made `on` a place as of `sweep`, probes on this machine.
    """
    sweeps = [
        *((f"single-{task}", METHODS, SETTINGS) for task in ALL),
        ("paper-3", METHODS, {"threads": 1}),
        (f"single-{DISTILLED}", ("fst-distill",), SETTINGS),
    ]
    failed = []
    for stream, methods, settings in sweeps:
        done = sweep(stream, methods, seeds, out, preset, settings, jobs, callback, on=on)
        failed += [f"{path}: {why}" for path, why in done.items() if why]

    def one(arguments: list[str]) -> str | None:
        command = [sys.executable, "-m", "fst_bench", "probe", *arguments]
        single_threaded = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=single_threaded, capture_output=True, text=True, check=False)
        tell(f"probe  {' '.join(arguments)}")
        if done.returncode == 0:
            return None
        return f"{' '.join(arguments)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}"

    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        failed += [why for why in pool.map(one, probes_of(out, seeds)) if why]
    return failed


def probes_of(out: Path, seeds: list[int]) -> Iterator[list[str]]:
    """Yield the arguments of `fst-bench probe` for every probe of the paper."""
    for kind, (tasks, methods) in PROBES.items():
        for task in tasks:
            for run in runs_of(out, f"single-{task}"):
                if run.method in methods and run.seed in seeds:
                    yield [kind, str(run.path), *(["--task", FRESH] if kind == "plasticity" else [])]
    for run in runs_of(out, "paper-3"):
        if run.method in ("rl", "fst") and run.seed in seeds:
            yield ["forgetting", str(run.path)]


def runs_of(out: Path, stream: str, methods: Sequence[str] = METHODS) -> Runs:
    """Return the finished runs of some methods on a stream, at its newest version below `out`.

    Raises ValueError where the stream has no runs there.
    """
    versions = sorted(out.glob(f"{stream}@*"), key=lambda p: int(p.name.rpartition("@")[2]))
    if not versions:
        raise ValueError(f"no runs of {stream} in {out}: fst-bench paper --out {out} makes them")
    return tuple(run for run in load([versions[-1]]) if run.method in methods)
