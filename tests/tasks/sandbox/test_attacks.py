"""Attacks on the sandbox: on files, resources and answers. Each test states the result of an attack."""

import ast
import os
import re
import time
from pathlib import Path

import pytest
from held import REFUSED, below, got, held

from fst_bench.tasks.sandbox import Outcome, Sandbox, Way, child, readable

# --- Attacks on files and the environment. Each test states the result of an attack


pytestmark = pytest.mark.usefixtures("unharmed")


def hidden(way: Way) -> bool:
    """Whether the way promises that files cannot be read."""
    return way.kind == "bubblewrap" or "landlock" in way.guards


def test_secret_file(box: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("token")
    (tmp_path / "link").symlink_to(secret)
    outcome = got(
        box,
        "import io, mmap, shutil, linecache, tokenize",
        "ways = [lambda p: open(p).read(), lambda p: os.read(os.open(p, os.O_RDONLY), 99).decode(), "
        "lambda p: io.open_code(p).read().decode(),",
        "  lambda p: open('/proc/self/root' + p).read(), lambda p: open('../' * 20 + p).read(), "
        "lambda p: linecache.getlines(p)[0],",
        "  lambda p: exec(open(p).read()), lambda p: os.read(libc.open(p.encode(), 0), 99).decode(), "
        "lambda p: os.listdir(os.path.dirname(p))]",
        "return [attempt(w, p) for w in ways for p in paths]",
        paths=[str(secret), str(tmp_path / "link")],
    )
    leaked = [said for said in outcome.value if "token" in said or "'link'" in said]
    assert bool(leaked) != hidden(box.way), leaked


def test_files_of_the_system(box: Sandbox) -> None:
    paths = [
        "/etc/passwd",
        "/etc/shadow",
        "/etc/hosts",
        str(Path.home() / ".ssh"),
        __file__,
        "/sys",
        "/boot",
        "/",
        "/proc",
        "/proc/self/maps",
    ]
    outcome = got(
        box,
        "return [attempt(lambda: os.listdir(p) if os.path.isdir(p) else open(p).read()) for p in paths]",
        paths=paths,
    )
    refused = [bool(re.match("PermissionError|FileNotFoundError", said)) for said in outcome.value]
    if "landlock" in box.way.guards:
        assert all(refused)
    elif hidden(box.way):  # bubblewrap's own root and processes can be seen
        shown = {"proc", "dev", "tmp"} | {Path(path).parts[1] for path in (*readable(), str(child.__file__))}
        assert all(refused[:7]) and set(ast.literal_eval(outcome.value[7])) <= shown
    else:
        assert "root" in outcome.value[0]


def test_the_environment(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "token")
    box = held(box.way)
    pids = [os.getpid(), os.getppid()]
    outcome = got(
        box,
        "pids += [os.getpid(), os.getppid(), 'self']",
        "paths = [f'/proc/{pid}/{name}' for pid in pids for name in ('environ', 'cmdline', 'maps', 'mem')]",
        "libc.getenv.restype = ctypes.c_char_p",
        "return [dict(os.environ), attempt(libc.getenv, b'API_KEY'), [attempt(lambda: open(p, 'rb').read(99)) "
        "for p in paths]]",
        pids=pids,
    )
    inherited, key, read = outcome.value
    assert set(inherited) <= {"PYTHONHASHSEED", "PYTHONUTF8", "LC_ALL", "TZ", "PWD", "LC_CTYPE"}
    assert key == "None"
    if hidden(box.way):
        assert "token" not in str(read)
    if "landlock" in box.way.guards:
        assert all(re.match("PermissionError|FileNotFoundError", said) for said in read)


def test_write_outside(box: Sandbox, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("whole")
    os.utime(victim, (1, 1))
    victim.chmod(0o644)
    outcome = got(
        box,
        "p, new = folder + '/victim', folder + '/new'",
        "ways = [lambda: open(p, 'w'), lambda: open(p, 'a'), lambda: open(p, 'r+'), lambda: open(new, 'x'), "
        "lambda: os.open(p, os.O_RDONLY | os.O_TRUNC),",
        "  lambda: os.open(p, 3 | os.O_TRUNC), lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR), "
        "lambda: os.truncate(p, 0), lambda: os.unlink(p),",
        "  lambda: os.rename(p, new), lambda: os.link(p, new), lambda: os.symlink(p, new), lambda: os.mkdir(new), "
        "lambda: os.rmdir(folder),",
        "  lambda: os.mkfifo(new), lambda: os.mknod(new), lambda: os.chmod(p, 0), lambda: os.chown(p, 1, 1), "
        "lambda: os.utime(p),",
        "  lambda: os.setxattr(p, 'user.a', b'b'), lambda: open('/proc/self/root' + p, 'w'), "
        "lambda: open('/usr/lib/new', 'w'), lambda: open(os.__file__, 'a'),",
        "  lambda: os.open(os.__file__, os.O_RDONLY | os.O_TRUNC)]",
        "return [attempt(w) for w in ways]",
        folder=str(tmp_path),
    )
    assert outcome.status == "ok"
    assert all(re.match("PermissionError|FileNotFoundError|OSError", said) for said in outcome.value), outcome.value
    assert [p.name for p in tmp_path.iterdir()] == ["victim"]
    assert (victim.read_text(), victim.stat().st_mtime, victim.stat().st_mode & 0o777) == ("whole", 1, 0o644)
    assert Path(os.__file__).stat().st_size > 1000


def test_the_scratch_folder(box: Sandbox) -> None:
    use = (
        "import tempfile\nwith tempfile.TemporaryDirectory() as d:\n  with open(d + '/a', 'w') as a: a.write('x')\n"
        "  os.rename(d + '/a', d + '/b')\n  made = open(d + '/b').read()"
    )
    keep = "open('/tmp/kept', 'w').write('x')\nreturn [made, os.getcwd(), os.listdir('/tmp')]"
    if "scratch" not in box.way.guards:
        assert got(box, use, keep).detail.startswith("FileNotFoundError: [Errno 2] No usable temporary directory found")
        return
    for _ in range(2):  # nothing is left of the first
        assert got(box, use, keep) == Outcome("ok", ["x", "/tmp", ["kept"]])
    assert not Path("/tmp/kept").exists()
    # which Landlocks before the third overlook, anywhere
    truncate = "return attempt(os.open, '/tmp/kept', os.O_RDONLY | os.O_TRUNC)"
    assert REFUSED in got(box, "open('/tmp/kept', 'w').close()", truncate).value


def test_a_full_scratch_folder(box: Sandbox) -> None:
    if "scratch" not in box.way.guards:
        pytest.skip("nothing can be written")
    many = "for i in range(40):\n  with open(str(i), 'wb') as file: file.write(bytes(1 << 20))"
    assert got(box, many) == Outcome("error", detail="OSError: [Errno 28] No space left on device")
    assert got(box, "with open('big', 'wb') as file:\n  while True: file.write(bytes(1 << 20))").detail.startswith(
        "OSError: [Errno 2"
    )
    assert got(box, "for i in range(9999): open(str(i), 'w').close()").detail.startswith("OSError: [Errno 28]")
    assert got(box, "while True: os.mkdir('d'); os.chdir('d')").detail.startswith("OSError: [Errno 28]")


# --- Attacks on processes, time, memory and output. Each test states the result of an attack


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


# --- Attacks on the answer: forged, broken and poisoned ones. Each test states the result of an attack


FORGED = '{"status": "ok", "value": 666}'


@pytest.mark.parametrize(
    "lines",
    [
        "import json; sys.modules['json'] = sys.modules['json.encoder'] = None; "
        "json.dumps = json.loads = json.JSONEncoder.encode = lambda *a, **k: '666'",
        "import json.encoder as e\nfor name in list(vars(e)): setattr(e, name, lambda *a, **k: ['666'])",
        "import builtins\nbuiltins.print = builtins.len = builtins.isinstance = builtins.str = lambda *a: 666",
        "import builtins\nfor name in list(vars(builtins)):\n  if name != 'list': setattr(builtins, name, lambda *a, "
        "**k: 666)",
        "import builtins; vars(builtins).clear()",
        "os.write = os._exit = os.close = lambda *a: 666; sys.exit = sys.stdout = None",
        "import atexit; atexit.register(lambda: [attempt(os.write, n, b'666') for n in range(256)])",
        "import __main__; vars(__main__).clear()",
        "sys.modules.clear()",
        "import gc, weakref; gc.disable(); sys.setswitchinterval(1000)",
        "class D:\n  def __del__(self): os.write(1, b'666')\nglobal d; d = D()",
        "sys.excepthook = sys.unraisablehook = sys.displayhook = lambda *a: os._exit(0)",
        "os.dup2(0, 1); os.dup2(0, 2); os.close(0)",
        "os.environ.clear(); os.chdir('/'); sys.path.clear(); sys.meta_path.clear()",
    ],
)
def test_poison_does_not_change_the_value(box: Sandbox, lines: str) -> None:
    assert got(box, lines, "return {'a': [3, 'x', None]}") == Outcome("ok", {"a": [3, "x", None]})


@pytest.mark.parametrize(
    "text", ["666", FORGED, "+" + FORGED, "+" * 33 + FORGED, "ended 0 5\n+666\n", "\n", "0" * 32 + FORGED]
)
def test_forged_text_on_every_pipe(box: Sandbox, text: str) -> None:
    spray = f"for n in range(1024): attempt(os.write, n, {text.encode()!r})\n"
    for end in ("os._exit(0)", "sys.exit(0)", "return 3", "raise ValueError"):
        outcome = got(box, spray + end)
        assert (outcome.status, outcome.value, outcome.detail) == (
            "error",
            None,
            "something else was written where the answer goes",
        )


@pytest.mark.parametrize(
    "close",
    [
        "os.closerange(0, 4096)",
        "r, w = os.pipe()\nfor n in range(4096):\n  if n not in (r, w): attempt(os.dup2, w, n)\nos.closerange(60, "
        "4096)",
    ],
)
def test_closed_pipes(box: Sandbox, close: str) -> None:
    assert got(box, close, "return 3").status in ("error", "killed")  # it fails to answer, or is killed before that
    assert got(box, close, "while True: pass").status == "killed"


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        (
            "class L:\n  __class__ = int\n  __eq__ = lambda s, o: True\n  __hash__ = lambda s: 1\nreturn L()",
            "L is no JSON value",
        ),
        ("class L(int):\n  __repr__ = __str__ = lambda s: '666}'\n  __eq__ = lambda s, o: True\nreturn L(1)", 1),
        ("class L(float):\n  __repr__ = lambda s: '666'\nreturn L(1.5)", 1.5),
        (
            "class L(float):\n  __eq__ = lambda s, o: True\nreturn L('nan')",
            "Out of range float values are not JSON compliant",
        ),
        ("class L(str):\n  __str__ = __repr__ = lambda s: '666'\n  __len__ = lambda s: 0\nreturn L('x')", "x"),
        ("class L(list):\n  __iter__ = lambda s: 1 / 0\n  __len__ = lambda s: 0\nreturn L([1])", "ZeroDivisionError"),
        (
            "class L(dict):\n  def __iter__(s): raise ValueError('666')\n  items = keys = __iter__\nreturn L(a=1)",
            "ValueError: 666",
        ),
        ("class L(dict):\n  items = lambda s: [(1,)]\nreturn L(a=1)", "items must return 2-tuples"),
        (
            "class L(dict):\n  items = lambda s: [('a', x) for x in [float('inf')]]\nreturn L(a=1)",
            "Out of range float values",
        ),
        ("class L(dict):\n  def items(s):\n    while True: s = [s]; yield\nreturn L(a=1)", "MemoryError"),
        ("x = []; x.append(x)\nreturn x", "ValueError: Circular reference detected"),
    ],
)
def test_values_that_lie(box: Sandbox, lines: str, outcome: object) -> None:
    found = got(box, lines)
    if found.status == "ok":
        assert type(found.value) is type(outcome) and found.value == outcome
    else:
        assert isinstance(outcome, str) and outcome in found.detail and found.value is None


@pytest.mark.parametrize("hook", ["settrace", "setprofile"])
def test_a_hook_that_interferes(box: Sandbox, hook: str) -> None:
    """It may spoil the code's own answer, never pass for another's."""
    assert got(box, f"def hook(*a): raise ValueError('666')\nsys.{hook}(hook)\nreturn 3").status in ("ok", "error")
    assert got(
        box,
        "import signal\ndef ring(*a): raise ValueError('666')\nsignal.signal(signal.SIGALRM, ring); "
        "signal.setitimer(0, 1e-5, 1e-5)\nreturn 3",
    ).value in (3, None)
