"""Chaos: a run that is killed, starved of disk and set back in time ends as one that nobody disturbed.

    python -m tests.chaos --minutes 30 --jobs 2

Each trial draws a method, a stream, a preset and checkpoint settings, and makes the undisturbed run once. Then the same
command runs again, in a file system of its own, and is struck several times: at a random moment, while a checkpoint is
written, or while a record is. It is continued with `resume`, or by the same `sweep` command, until it is finished.

Counted are strikes that ended a process, and what must not happen:

    differences   a finished run whose records, metrics, counts or final weights are not the undisturbed run's
    lost rows     after a strike, a record that the newest checkpoint counts is gone, or is not the undisturbed run's
    tracebacks    a process that said more than one line about what happened to it
    hangs         a process that does not end within ten times the undisturbed run's time

Full disks and read-only folders need root, for a tmpfs of their own; a clock that is set back needs libfaketime
(Debian's package faketime). What is missing is said and left out. It is not part of the gate. Exit code 1 where
anything was found.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock
from typing import Any

from fst_bench.cli import main as fst_bench
from fst_bench.harness.store import MARKER, RECORDS, Store, records
from fst_bench.method.registry import METHODS
from fst_bench.tasks.stream import of_package, stream_files

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
TMPFS_MB = 512
"""Size of a trial's file system: checkpoints of the embedded model fit many times over."""
SHORT = {
    "stage_problems": 8,
    "batch": 4,
    "threads": 1,
    "policy.max_tokens": 24,
    "slow.group_size": 4,
    "fast.cycle": 2,
    "fast.population_size": 2,
    "fast.valset_size": 4,
    "fast.reflection_minibatch_size": 2,
    "fast.max_metric_calls": 24,
    "evaluation.small": 2,
    "evaluation.boundary": 4,
    "evaluation.interval": 8,
}
"""Runs of seconds: what is tested is how they end, and not what they learn."""


@dataclass(frozen=True)
class Plan:
    """A run, as its command names it."""

    stream: str
    method: str
    preset: str
    seed: int
    every: int
    """checkpoint.every."""

    @classmethod
    def draw(cls, rng: random.Random) -> "Plan":
        streams = [name for name in stream_files() if not (name.endswith("hover-search") or of_package(name))]
        preset = rng.choice(["smoke", "tiny", "tiny-early"])
        return cls(rng.choice(streams), rng.choice(sorted(METHODS)), preset, rng.randrange(3), rng.choice([1, 2, 3]))

    def command(self, out: Path, as_sweep: bool = False) -> list[str]:
        """Return the arguments of fst-bench that start it below `out`."""
        if as_sweep:
            who = ["sweep", "--methods", self.method, "--seeds", str(self.seed), "--jobs", "1"]
        else:
            who = ["run", "--method", self.method, "--seed", str(self.seed)]
        settings = SHORT | {"checkpoint.every": self.every}
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        return [*who, "--stream", self.stream, "--preset", self.preset, "--out", str(out), *sets]


@dataclass
class Tally:
    """What has happened so far; shared by the trials that run side by side."""

    trials: int = 0
    strikes: Counter[str] = field(default_factory=Counter)
    """Strikes that ended a process, by kind."""
    found: Counter[str] = field(default_factory=Counter)
    lock: Lock = field(default_factory=Lock)

    def fault(self, kind: str, plan: Plan, text: str) -> None:
        with self.lock:
            self.found[kind] += 1
            print(f"FOUND {kind}: {plan}: {text}", flush=True)


class Disk:
    """The file system that a trial writes to: a tmpfs where this process may mount one, else a plain folder."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def own(self) -> bool:
        """Return whether it is a file system of its own."""
        return os.path.ismount(self.path)

    def fill(self) -> None:
        """Leave no room for another byte."""
        with (self.path / "filler").open("wb", buffering=0) as f:
            size = 1 << 20
            while size:
                try:
                    f.write(b"\0" * size)
                except OSError:
                    size //= 2

    def free(self) -> None:
        (self.path / "filler").unlink(missing_ok=True)

    def remount(self, mode: str) -> bool:
        """Mount it as rw or ro. Return whether that was possible: not while a file is open for writing."""
        return subprocess.run(["mount", "-o", f"remount,{mode}", self.path], capture_output=True).returncode == 0


@contextmanager
def disk() -> Iterator[Disk]:
    """Return a new empty disk, gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="fst-chaos-"))
    if os.geteuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MB}M", "none", path], capture_output=True)
    try:
        yield Disk(path)
    finally:
        while os.path.ismount(path) and subprocess.run(["umount", path], capture_output=True).returncode:
            time.sleep(0.2)  # a process that is being killed holds a file still
        shutil.rmtree(path, ignore_errors=True)


class Command:
    """fst-bench in a process group of its own: a fresh process, or one forked from a process that has imported it.

    Importing takes longer than a short run does: most are forked, so that most strikes hit a run and not an import.
    """

    def __init__(self, arguments: list[str], fresh: bool = False, clock: Path | None = None):
        """Start it. `clock` is a file that sets the clock of a fresh process, in libfaketime's words."""
        descriptor, path = tempfile.mkstemp()
        self._said = Path(path)
        self._process: subprocess.Popen[bytes] | BaseProcess
        if fresh or clock:
            faked = {"FAKETIME_TIMESTAMP_FILE": str(clock), "LD_PRELOAD": str(FAKETIME)} if clock else {}
            faked |= {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
            command, null = [sys.executable, "-m", "fst_bench", *arguments], subprocess.DEVNULL
            self._process = subprocess.Popen(
                command, env=os.environ | faked, stdout=null, stderr=descriptor, start_new_session=True
            )
        else:
            self._process = FORKED.Process(target=forked, args=(arguments, path))
            self._process.start()
            while self.code is None and not self.leads:  # a signal to its group has to find it
                time.sleep(0.001)
        os.close(descriptor)

    @property
    def code(self) -> int | None:
        """Return its exit code, None while it runs."""
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll()
        return self._process.exitcode

    @property
    def leads(self) -> bool:
        """Return whether it leads its process group already."""
        with suppress(ProcessLookupError):
            return os.getpgid(self._process.pid or 0) == self._process.pid
        return True

    def kill(self) -> None:
        """Kill the process itself, not its children."""
        self._process.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group."""
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self._process.pid or 0, number)

    def wait(self, seconds: float, happens: Callable[[], bool] = lambda: False) -> None:
        """Wait until something happens, the process ends, or the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.code is None and not happens():
            time.sleep(0.002)

    def said(self) -> str:
        """Return what it wrote to stderr, and forget it."""
        text = self._said.read_text(errors="replace")
        self._said.unlink()
        return text


FORKED = get_context("forkserver")
FORKED.set_forkserver_preload(["fst_bench.cli.display", "fst_bench.analysis.report", "gepa"])


def forked(arguments: list[str], said: str) -> None:
    """Be fst-bench, in a process that has imported it."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(said, os.O_WRONLY), 2)
    sys.exit(fst_bench(arguments))


def run_in(out: Path) -> Path | None:
    """Return the run directory below `out`, None where none has begun."""
    found = list(out.glob("*/*/*/config.json"))
    assert len(found) < 2, f"more than one run: {found}"
    return found[0].parent if found else None


def comparable(run: Path) -> dict[str, Any]:
    """Return all of a finished run that depends on its command alone: no seconds, no machine."""
    store = Store(run)
    checkpoints = store.checkpoints()
    kept: dict[str, Any] = {name: rows_of(run, name) for name in RECORDS}
    kept["metrics"] = store.read("metrics")
    kept["ledger"] = {key: value for key, value in store.read("ledger").items() if key != "seconds"}
    kept["checkpoints"] = [folder.name for folder in checkpoints]
    hashes = json.loads((checkpoints[-1] / MARKER).read_text())
    kept["weights"] = {name: digest for name, digest in hashes.items() if name != "state.json"}  # it counts seconds
    return kept


def rows_of(run: Path, name: str) -> list[dict[str, Any]]:
    """Return the whole records of a file, without seconds."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in records(run / f"{name}.jsonl")]


@cache
def undisturbed(plan: Plan) -> tuple[dict[str, Any], float]:
    """Return what the run is where nobody disturbs it, and its seconds."""
    with disk() as own:
        start = time.monotonic()
        command = Command(plan.command(own.path))
        command.wait(3600)
        run = run_in(own.path)
        assert command.code == 0 and run is not None, f"{plan}: {command.said()}"
        return comparable(run), time.monotonic() - start


def moment(rng: random.Random, out: Path, command: Command, seconds: float) -> None:
    """Wait for the moment to strike."""
    kind = rng.choice(["any time", "any time", "checkpoint", "record"])
    command.wait(rng.uniform(0, seconds))
    if kind == "checkpoint":
        command.wait(seconds, lambda: bool(list(out.glob("*/*/*/checkpoints/*.tmp"))))
    elif kind == "record":
        size = sum(p.stat().st_size for p in out.glob("*/*/*/*.jsonl"))
        command.wait(seconds, lambda: sum(p.stat().st_size for p in out.glob("*/*/*/*.jsonl")) > size)


def strike(kind: str, command: Command, own: Disk, clock: Path | None, rng: random.Random) -> None:
    """Do to the process, or to what it stands on, what `kind` says. It has not ended yet afterwards, or just has."""
    if kind == "SIGKILL, parent only":
        command.kill()
    elif kind == "SIGINT twice":
        command.signal(signal.SIGINT)
        time.sleep(rng.uniform(0, 0.3))
        command.signal(signal.SIGINT)
    elif kind == "full disk":
        own.fill()
    elif kind == "read-only":
        command.wait(5, lambda: own.remount("ro"))
    elif kind == "clock set back":
        assert clock
        clock.write_text(f"-{rng.choice([1, 24, 24 * 365])}h")
        command.wait(rng.uniform(0, 2))
        command.signal(signal.SIGKILL)
    else:
        command.signal(signal.Signals[kind])


def trial(plan: Plan, rng: random.Random, tally: Tally) -> None:
    """Disturb one run until it is finished, and compare it with the undisturbed one."""
    expected, seconds = undisturbed(plan)
    as_sweep = rng.random() < 0.25
    with disk() as own, tempfile.TemporaryDirectory() as beside:
        kinds = ["SIGKILL", "SIGTERM", "SIGINT", "SIGINT twice"]
        kinds += ["full disk", "read-only"] if own.own else []
        kinds += ["SIGKILL, parent only"] if as_sweep else []
        kinds += ["clock set back"] if FAKETIME else []
        for kind in rng.choices(kinds, k=rng.randint(6, 12)):
            clock = Path(beside) / "clock" if kind == "clock set back" else None
            if clock:
                clock.write_text("+0")
            run = run_in(own.path)
            arguments = ["resume", str(run)] if run and not as_sweep else plan.command(own.path, as_sweep)
            command = Command(arguments, fresh=rng.random() < 0.2, clock=clock)
            moment(rng, own.path, command, seconds)
            struck = command.code is None
            if struck:
                strike(kind, command, own, clock, rng)
            if finished(command, 10 * seconds, plan, tally) and struck:
                tally.strikes[kind] += 1
            if own.own:
                own.remount("rw")
            own.free()
            if (run := run_in(own.path)) is not None:
                check_rows(run, expected, plan, tally, kind)
                if Store(run).finished:
                    break
        run = run_in(own.path)
        arguments = ["resume", str(run)] if run and not as_sweep else plan.command(own.path, as_sweep)
        code = finished(Command(arguments), 20 * seconds, plan, tally)
        run = run_in(own.path)
        if code or run is None or not Store(run).finished:
            tally.fault("differences", plan, f"the last resume ended with exit code {code}, unfinished")
        else:
            got = comparable(run)
            if differs := [key for key in expected if got[key] != expected[key]]:
                tally.fault("differences", plan, ", ".join(differs))
            if broken := Store(run).broken():
                tally.fault("differences", plan, f"not as its manifest says: {', '.join(broken)}")
    with tally.lock:
        tally.trials += 1


def finished(command: Command, seconds: float, plan: Plan, tally: Tally) -> int | None:
    """Wait for a process's end, look at what it said, and return its exit code; None where it did not end."""
    limit = max(60.0, seconds)
    command.wait(limit)
    code = command.code
    if code is None:
        command.signal(signal.SIGKILL)
        command.wait(limit)
        tally.fault("hangs", plan, f"a process did not end within {limit:.0f} s")
    if "Traceback" in (said := command.said()):
        tally.fault("tracebacks", plan, " | ".join(said.strip().splitlines()[-3:]))
    return code


def check_rows(run: Path, expected: dict[str, Any], plan: Plan, tally: Tally, kind: str) -> None:
    """Hold what is on disk after a strike against the undisturbed run."""
    for name in RECORDS:
        rows = rows_of(run, name)
        if rows != expected[name][: len(rows)]:
            tally.fault("lost rows", plan, f"{name}, after {kind}: not the undisturbed run's first {len(rows)} rows")
    folders = Store(run).checkpoints()
    if folders:
        lengths = json.loads((folders[-1] / "state.json").read_text())["records"]
        short = [n for n in RECORDS if Store(run).file(n).exists() and Store(run).file(n).stat().st_size < lengths[n]]
        if short:
            tally.fault("lost rows", plan, f"{', '.join(short)}, after {kind}: shorter than {folders[-1].name} says")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, required=True, help="start no trial after this many minutes")
    parser.add_argument("--jobs", type=int, default=1, help="trials side by side (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn; moments depend on the machine")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if os.geteuid() != 0:
        print("left out: full disk, read-only (need root)")
    if not FAKETIME:
        print("left out: clock set back (needs libfaketime)")
    tally, end = Tally(), time.monotonic() + 60 * args.minutes

    def work(job: int) -> None:
        rng = random.Random(f"{args.seed}/{job}")
        plans = [Plan.draw(rng) for _ in range(8)]  # few, so that an undisturbed run serves several trials
        while time.monotonic() < end:
            trial(rng.choice(plans), rng, tally)
            with tally.lock:
                print(f"{tally.trials} trials, {tally.strikes.total()} kills, found: {dict(tally.found)}", flush=True)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(work, range(args.jobs)))
    print(f"{tally.trials} trials, {tally.strikes.total()} kills")
    for kind, number in sorted(tally.strikes.items()):
        print(f"  {kind}: {number}")
    print(", ".join(f"{tally.found[kind]} {kind}" for kind in ("differences", "lost rows", "tracebacks", "hangs")))
    return 1 if tally.found else 0


if __name__ == "__main__":
    raise SystemExit(main())
