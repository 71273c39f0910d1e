"""Attacks on processes, time, memory and output. Each test states the result of an attack."""

import os
import re
import time

import pytest
from held import REFUSED, below, got, held

from fst_bench.tasks.sandbox import Outcome, Sandbox, Way

pytestmark = pytest.mark.usefixtures("unharmed")


def test_fork_bomb(box: Sandbox) -> None:
    assert got(box, "while True: os.fork()") == Outcome("error", detail=f"PermissionError: [Errno 1] {REFUSED}")


def test_every_other_way_to_start_something(box: Sandbox) -> None:
    outcome = got(
        box,
        "import subprocess, threading, multiprocessing, pty, _posixsubprocess",
        "tries = [attempt(g) for g in (os.fork, os.forkpty, lambda: os.system('true'), "
        "lambda: os.posix_spawn('/bin/true', ['true'], {}),",
        "  lambda: subprocess.run([sys.executable, '-c', '']), threading.Thread(target=print).start, "
        "multiprocessing.Process(target=print).start,",
        "  lambda: os.execv(sys.executable, ['x']), lambda: os.popen('true').read())]",
        "calls = {'x86_64': [56, 57, 58, 435, 59, 322], 'aarch64': [220, 435, 221, 281]}[os.uname().machine]",
        "return [tries, [syscall(n, 17, 0, 0, 0, 0) for n in calls]]",
    )
    tries, calls = outcome.value
    assert set(calls) == {REFUSED}
    refused = (
        "PermissionError|FileNotFoundError|RuntimeError: can't start new thread|32512"  # os.system: 127 << 8, no shell
    )
    assert all(re.match(refused, said) for said in tries), tries


def test_daemon(box: Sandbox) -> None:
    """A grandchild in a session of its own; where the kernel refuses no fork, the process namespace ends it (below)."""
    code = "if os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    while True: pass\nreturn 'away'"
    assert REFUSED in got(box, code).detail


def test_daemon_without_seccomp() -> None:
    box = held(Way("bubblewrap", ()), processes=9999, cpu_seconds=999)
    before = below(os.getpid())
    code = (
        "if os.fork() == 0:\n  os.setsid()\n  os.closerange(0, 300)\n  if os.fork() == 0:\n    while True: pass\n"
        "  os._exit(0)\nos.wait()\nreturn 'away'"
    )
    assert got(box, code) == Outcome("ok", "away")
    for _ in range(1000):  # killed, but nobody waited for it
        if below(os.getpid()) <= before:
            break
        time.sleep(0.01)
    assert below(os.getpid()) <= before


def test_loop_that_ignores_all_signals(box: Sandbox) -> None:
    box = held(box.way, seconds=0.5)
    before = below(os.getpid())
    deaf = "import signal\nfor s in range(1, 65):\n  attempt(signal.signal, s, signal.SIG_IGN)\nwhile True: pass"
    assert got(box, deaf).status == "timeout"
    assert below(os.getpid()) <= before


def test_code_that_sleeps_or_stops(box: Sandbox) -> None:
    box = held(box.way, seconds=0.5)
    assert got(box, "import time; time.sleep(1000)").status == "timeout"
    assert got(box, "import signal; signal.pause()").status == "timeout"
    assert got(box, "while True:\n  try:\n    while True: pass\n  except BaseException: pass").status == "timeout"
    assert box.call("while True: pass", "f", {}).status == "timeout"


def test_cpu_time(box: Sandbox) -> None:
    box = held(box.way, seconds=60, cpu_seconds=1)
    assert (
        got(box, "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass").status == "timeout"
    )


@pytest.mark.parametrize(
    "line", ["return len(bytearray(4 << 30))", "x = [0]\nwhile True: x += x", "x = []\nwhile True: x = [x, 'x' * 100]"]
)
def test_four_gigabytes(box: Sandbox, line: str) -> None:
    assert got(box, line) == Outcome("memory", detail="MemoryError")


def test_four_gigabytes_below_python(box: Sandbox) -> None:
    assert got(box, "import mmap; mmap.mmap(-1, 4 << 30)") == Outcome(
        "error", detail="OSError: [Errno 12] Cannot allocate memory"
    )
    assert got(box, "libc.malloc.restype = ctypes.c_void_p\nreturn libc.malloc(ctypes.c_size_t(4 << 30))") == Outcome(
        "ok", None
    )
    assert got(box, "return attempt(lambda: [bytearray(1 << 28) for _ in range(16)])").value == "MemoryError: "


def test_the_limits_cannot_be_lifted(box: Sandbox) -> None:
    code = (
        "import resource\nreturn [attempt(resource.setrlimit, r, (-1, -1)) for r in (resource.RLIMIT_AS, "
        "resource.RLIMIT_CPU, resource.RLIMIT_FSIZE)]"
    )
    assert got(box, code).value == ["ValueError: not allowed to raise maximum limit"] * 3  # its words for EPERM


def test_a_gigabyte_printed_goes_nowhere(box: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    line = (
        "block = 'x' * (1 << 20)\nfor _ in range(512): print(block); print(block, file=sys.stderr)\nos.write(1, "
        "b'more'); os.write(2, b'more')\nreturn 'done'"
    )
    assert got(box, line) == Outcome("ok", "done")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("return 'x' * (1 << 30)", "memory"),
        ("return 'x' * (50 << 20)", "output"),
        ("return [0] * 2_000_000", "output"),
        ("return ['x' * 1000] * 9999", "output"),
    ],
)
def test_a_gigabyte_returned(box: Sandbox, line: str, status: str) -> None:
    outcome = got(box, line)
    assert (outcome.status, outcome.value) == (status, None)


def test_a_gigabyte_into_every_pipe(box: Sandbox) -> None:
    assert (
        got(box, "block = b'x' * (1 << 20)\nwhile True:\n  for n in range(256): attempt(os.write, n, block)").status
        == "output"
    )


@pytest.mark.parametrize("depth", [2_000, 100_000])
def test_deep_values(box: Sandbox, depth: int) -> None:
    nest = f"x = []\nfor _ in range({depth}): x = [x]\n"
    assert got(box, nest + "return x").detail.startswith("RecursionError")
    assert got(box, "sys.setrecursionlimit(10 ** 9)\n" + nest + "return x").status in ("error", "killed", "memory")


def test_deep_recursion_without_its_limit(box: Sandbox) -> None:
    small = held(box.way, memory_mb=64)
    assert got(small, "sys.setrecursionlimit(10 ** 9)\ndef g(): return g()\nreturn g()").status in (
        "memory",
        "killed",
        "error",
    )
    assert got(box, "return ctypes.string_at(0)") == Outcome("killed", detail="died of SIGSEGV")
