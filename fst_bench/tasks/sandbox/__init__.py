"""A sandbox for untrusted reference code on untrusted JSON, on a machine that has to stay unharmed.

    box = Sandbox()
    box.call("def f(a): return a + 1", "f", {"a": 1})    # Outcome(status="ok", value=2, detail="")

Each call has a fresh process: no environment, a fixed hash seed and `random.seed(0)`, the standard library only, its
prints discarded. The only thing that comes out is a JSON value of bounded size. What else the code could reach depends
on the machine, so the strongest way that WORKS here is found by trying, and `sandbox_kind()` names it for the record:

  bubblewrap    own file system with only Python and the system's libraries, own process, network and IPC namespaces
  namespaces    own network and IPC namespaces; files only behind landlock
  rlimits       limits on time, memory, file size (0: nothing grows) and, unless root, processes

  + seccomp     the kernel does only what a computation needs: no process, thread, socket, signal, mount, trace or
                change of rights; without scratch, no file is opened for writing at all
  + landlock    files open and folders list only in Python's and the system's libraries and in the scratch folder.
                Names, sizes and dates of other files can still be asked for, unless under bubblewrap
  + scratch     /tmp is an empty file system of file_mb that only this call sees; it ends with the call

Bare `rlimits`, the only way on macOS, prevents accidents and stops no attacker: files, network and the user's other
processes are open to the code, a process that leaves its session outlives its call, and macOS does not bound memory.
Under `rlimits+seccomp` files can be read. No way hides the kernel's own faults, the time, or the CPU model.
"""

import contextlib
import functools
import json
import math
import os
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["bubblewrap", "namespaces", "rlimits"]
Guard = Literal["landlock", "scratch", "seccomp"]
Status = Literal["ok", "error", "timeout", "memory", "output", "killed"]


class Limits(BaseModel):
    """The limits of one call."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: Annotated[float, Field(gt=0, le=3600)] = 5.0
    """Seconds of wall time, from the moment the code starts."""
    cpu_seconds: Annotated[int, Field(ge=1)] = 5
    memory_mb: Annotated[int, Field(ge=64)] = 1024
    """Address space, Python's own 30 MB included."""
    processes: Annotated[int, Field(ge=1)] = 1
    """RLIMIT_NPROC. It matters only where seccomp is missing, which refuses every process and thread."""
    output_bytes: Annotated[int, Field(ge=1)] = 1_000_000
    """Size of the returned value, as JSON."""
    file_mb: Annotated[int, Field(ge=1)] = 16
    """Size of all files in the scratch folder together."""


@dataclass(frozen=True)
class Outcome:
    """The result of one call.

    ok: `value` is the function's result, as JSON reads it (tuples are lists, keys are strings; NaN and Infinity are
    errors). error: the code or the function raised, left, or returned something that is not JSON. timeout: wall or CPU
    time. memory: MemoryError. output: a value longer than `output_bytes`. killed: the process died of a signal.
    `detail` is one short line.
    """

    status: Status
    value: Any = None
    detail: str = ""


class Way(NamedTuple):
    """A way to confine calls."""

    kind: Kind
    guards: tuple[Guard, ...]


WAYS = (
    Way("bubblewrap", ("landlock", "scratch", "seccomp")),
    Way("bubblewrap", ("landlock", "seccomp")),
    Way("bubblewrap", ("seccomp",)),
    Way("namespaces", ("landlock", "scratch", "seccomp")),
    Way("rlimits", ("landlock", "seccomp")),
    Way("rlimits", ("seccomp",)),
    Way("bubblewrap", ()),
    Way("rlimits", ()),
)
"""Strongest first. Namespaces alone leave all files in view, so they come only with landlock."""

MODULES = sys.stdlib_module_names
"""All that code can import: Python's own library."""
CHILD = Path(__file__).with_name("child.py")
REPEAT = Path(__file__).with_name("repeat.py")
ENVIRONMENT = {"PYTHONUTF8": "1", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
"""The whole environment but for PYTHONHASHSEED."""
PATIENCE = 60.0
"""Seconds beyond a call's own until its worker counts as hung; the worker has 30 of its own to start the code."""


class Sandbox:
    """A sandbox for `workers` calls at a time, each within `limits`.

    It may be used from several threads, and its processes end with it. Sets of strings come in the same order in every
    call, that of `hash_seed`. Raises RuntimeError where the machine cannot confine a call as it could when the way was
    found: then the code did not run.
    """

    def __init__(self, limits: Limits | None = None, workers: int = 2, way: Way | None = None, hash_seed: int = 0):
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self.limits = limits or Limits()
        self.way = way or strongest()
        self.workers = workers
        self._idle: queue.LifoQueue[Worker] = queue.LifoQueue()
        for _ in range(workers):
            self._idle.put(Worker(self.limits, self.way, hash_seed))

    @property
    def kind(self) -> Kind:
        return self.way.kind

    def call(self, code: str, function: str, arguments: dict[str, Any]) -> Outcome:
        """Return the outcome of `function(**arguments)` in the namespace of `code`, which is executed first."""
        token = secrets.token_hex(16)
        try:
            request = json.dumps(
                {"token": token, "code": code, "function": function, "arguments": arguments}, allow_nan=False
            )
        except (TypeError, ValueError, RecursionError) as error:
            return Outcome("error", detail=line(f"the arguments are no JSON: {error}"))
        worker = self._idle.get()
        try:
            return judge(*worker.ask(request), token, self.limits)
        finally:
            self._idle.put(worker)

    def map(self, calls: Sequence[tuple[str, str, dict[str, Any]]]) -> list[Outcome]:
        """Return the outcomes of `call(*c)` for each of `calls`, in order."""
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(lambda c: self.call(*c), calls))


class Worker:
    """One server (child.py), started at the first request and again after it died; one request at a time."""

    def __init__(self, limits: Limits, way: Way, hash_seed: int = 0):
        self.limits, self.way, self.hash_seed = limits, way, hash_seed
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, request: str) -> tuple[str, int, bytes]:
        """Return (how the call ended, its exit code, its output). `hung` and `died` are the worker's own ends."""
        if self.process is None or self.process.poll() is not None:
            self.process = self.start()
        process = self.process
        assert process.stdin and process.stdout
        hung = threading.Event()

        def give_up() -> None:
            hung.set()
            kill(process)

        watchdog = threading.Timer(self.limits.seconds + PATIENCE, give_up)
        watchdog.start()
        head = said = b""
        try:
            process.stdin.write(request.encode() + b"\n")
            process.stdin.flush()
            head = process.stdout.readline()
            how, code, length = head.split()
            said = process.stdout.read(int(length))
            if len(said) < int(length):
                raise ValueError("cut off")
            return how.decode(), int(code), said
        except (OSError, ValueError):
            kill(process)
            with contextlib.suppress(OSError):  # unsent text must not be sent later
                process.stdin.close()
            return "hung" if hung.is_set() else "died", 0, head + said + process.stdout.read()
        except BaseException:  # an interrupt: the next request must not read this one's answer
            kill(process)
            raise
        finally:
            watchdog.cancel()

    def start(self) -> subprocess.Popen[bytes]:
        """Start a server in a session of its own. It exits when our end of its pipe closes, however we end.

        (A death signal, as of `bwrap --die-with-parent`, would follow the thread that started it, not the process.)
        """
        process = subprocess.Popen(
            command(self.way.kind),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # the server's own complaints; the code's output goes nowhere
            env=ENVIRONMENT | {"PYTHONHASHSEED": str(self.hash_seed)},
            cwd="/",
            start_new_session=True,
        )
        weakref.finalize(self, kill, process)
        assert process.stdin
        settings = {
            "kind": self.way.kind,
            "guards": self.way.guards,
            "limits": self.limits.model_dump(),
            "readable": readable(),
        }
        with contextlib.suppress(OSError):  # it died already; the request will report why
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            process.stdin.flush()
        return process


def kill(process: "subprocess.Popen[bytes]") -> None:
    """End a server and all that it started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def command(kind: Kind) -> list[str]:
    """Return the command of a server: Python without site-packages, confined by `kind`."""
    python = [str(Path(sys.executable).resolve()), "-P", "-s", "-S", "-B", str(CHILD)]
    if kind != "bubblewrap":
        return python
    binds = [word for path in (*readable(), str(CHILD)) for word in ("--ro-bind", path, path)]
    devices = [word for path in ("/dev/null", "/dev/urandom") for word in ("--dev-bind", path, path)]
    # root without its powers could not make the namespace of a scratch folder
    user = "--uid 1000 --gid 1000".split()
    isolation = "--unshare-all --cap-drop ALL".split()
    places = "--proc /proc --dir /tmp --chdir /".split()
    return ["bwrap", *isolation, *user, *binds, *devices, *places, *python]


def readable() -> list[str]:
    """Return all paths that Python needs to start and to import its own library.

    (Below /tmp a scratch folder would hide them: then no scratch folder is used.)
    """
    python = [Path(os.__file__).parents[1], Path(sys.executable).resolve()]
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/dev/urandom"]
    return [str(path) for path in (*python, *map(Path, system)) if path.exists()]


def judge(how: str, code: int, said: bytes, token: str, limits: Limits) -> Outcome:
    """Return the outcome of a worker's report. Raise RuntimeError if the code never started."""
    if how == "hung":
        return Outcome("killed", detail="its worker hung")
    if how == "died" or not said.startswith(b"+"):
        last = line(said.decode(errors="replace").strip().rpartition("\n")[2])
        raise RuntimeError(f"the sandbox does not work here: {last or how}")
    if how == "late":
        return Outcome("timeout", detail=f"no answer in {limits.seconds:g} s, or in {limits.cpu_seconds} s of CPU time")
    if how == "long":
        return Outcome("output", detail=f"more than {limits.output_bytes} bytes")
    if said[1:].startswith(token.encode()):
        return read(said[1 + len(token) :])
    if said[1:]:
        return Outcome("error", detail="something else was written where the answer goes")
    if code < 0:
        return Outcome("killed", detail=f"died of {signal.Signals(-code).name}")
    return Outcome("error", detail=f"it ended without an answer, exit code {code}")


def read(text: bytes) -> Outcome:
    """Return the outcome that an answer states. The code may have written it: it is checked like any untrusted JSON."""
    try:
        found = json.loads(text, parse_constant=no_number, parse_float=finite)
    except (ValueError, RecursionError) as error:
        return Outcome("error", detail=line(f"the answer is no JSON: {error}"))
    match found:
        case {"status": "ok", "value": value}:
            return Outcome("ok", value)
        case {"status": ("error" | "memory" | "output") as status, "detail": str(detail)}:
            return Outcome(status, detail=line(detail))
    return Outcome("error", detail="the answer is none of ours")


def no_number(name: str) -> NoReturn:
    """Raise ValueError for NaN and Infinity."""
    raise ValueError(f"{name} is no number")


def finite(text: str) -> float:
    """Return a number of a JSON text. Raise ValueError for one that overflows."""
    number = float(text)
    return number if math.isfinite(number) else no_number(text)


def line(text: str) -> str:
    """Return a text as one short printable line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:400]).split())[:200]


@functools.cache
def strongest() -> Way:
    """Return the first of WAYS that works on this machine. Raise RuntimeError where none does."""
    ways = [w for w in WAYS if w.kind != "bubblewrap" or shutil.which("bwrap")]
    for way in ways if sys.platform == "linux" else WAYS[-1:]:
        with contextlib.suppress(RuntimeError, OSError):
            if Sandbox(workers=1, way=way).call("import fractions\ndef f(): return 1", "f", {}).status == "ok":
                return way
    raise RuntimeError("no sandbox works here, not even limits: is Python's own library readable?")


def sandbox_kind() -> str:
    """Return how this machine confines reference code, for the record: 'bubblewrap+landlock+scratch+seccomp'."""
    return "+".join([strongest().kind, *strongest().guards])
