"""One run of a sweep, brought to its end on the machine that calls it."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fst_bench.harness.store import Store

State = Literal["there", "in use", "run", "resume", "done", "FAILED"]
"""Of a run: finished without the sweep, in progress in another process, started, resumed, finished, or failed."""
Tell = Callable[[Path, State, str | None], None]
"""Takes a run, its new state, and the error of one that failed or who uses it."""
Launch = Callable[[Sequence["Job"], "Needs", Tell], dict[Path, str | None]]
"""Brings all runs to their ends. Returns None, or why it failed, for each."""
TAKEN = 4
"""The exit code of a command whose run another process works on, or began a moment ago."""
LEFT = "the sweep continues without this process; the same command joins it again"
"""The message of Ctrl-C where the runs are made elsewhere."""
LOOK = 1.0
"""Seconds between looks at a run that another process works on."""


@dataclass(frozen=True)
class Job:
    """A run of a sweep as any machine can make it that sees its directory."""

    path: Path
    command: list[str]
    """Arguments of fst-bench that begin it."""
    more: list[str]
    """Arguments that a resume has as well."""


@dataclass(frozen=True)
class Needs:
    """What each run of a sweep takes."""

    threads: int
    gpu: bool
    """Whether it has a GPU to itself."""
    at_a_time: int | None = None
    """Runs in progress at a time at most; None: as many as there is room for."""


def bring_to_end(job: Job, environment: Mapping[str, str], tell: Tell, notice: float = 0.0) -> str | None:
    """Start a run, or resume it, or wait for the process that works on it. Return None, or why it failed.

    A place that takes its machine back ends the run by a signal and this process within `notice` seconds: then the run
    has not failed, and nothing is told.
    """
    store, code, said = Store(job.path), TAKEN, ""
    while code == TAKEN:  # another process was quicker: what is left to do shows when it has ended
        wait(store, tell)
        if store.finished:
            tell(job.path, "there", None)
            return None
        begun = store.begun
        tell(job.path, "resume" if begun else "run", None)
        arguments = ["resume", str(job.path)] if begun else job.command
        command = [sys.executable, "-m", "fst_bench", *arguments, *job.more]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        code, said = done.returncode, done.stderr
    if code < 0:
        time.sleep(notice)
    why = None if code == 0 else (said.strip().splitlines() or [f"exit {code}"])[-1]
    tell(job.path, "FAILED" if why else "done", why)
    return why


def wait(store: Store, tell: Tell) -> None:
    """Return when no other process works on a run."""
    known = None
    while (owner := store.holder()) is not None:
        if owner != known:
            tell(store.path, "in use", known := owner)
        time.sleep(LOOK)
