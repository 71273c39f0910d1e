"""Helpers of the attacks: a sandbox confined in one way, code to run in it, and the processes below one."""

from pathlib import Path

import pytest

from fst_bench.tasks.sandbox import WAYS, Limits, Outcome, Sandbox, Way

REFUSED = "Operation not permitted"

TESTED = [way for way in WAYS if "seccomp" in way.guards]
"""The ways that promise something against an attacker."""


def held(way: Way, **limits: float) -> Sandbox:
    """Return a sandbox of one worker that has answered once; skip where the machine lacks the way."""
    box = Sandbox(Limits(**{"seconds": 20, "cpu_seconds": 10, "memory_mb": 256} | limits), workers=1, way=way)
    try:
        assert box.call("def f(): return 1", "f", {}).value == 1
    except (RuntimeError, OSError) as error:
        pytest.skip(f"this machine has no {way}: {error}")
    return box


def got(box: Sandbox, *lines: str, **arguments: object) -> Outcome:
    """Return the outcome of an `f` of these lines; `attempt(g)` in it is the result of `g` or its error, as text."""
    code = "import ctypes, os, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    code += "def syscall(*a):\n  r = libc.syscall(*a)\n  return r if r >= 0 else os.strerror(ctypes.get_errno())\n"
    code += (
        "def attempt(g, *a):\n  try: return str(g(*a))\n  except BaseException as e: return f'{type(e).__name__}: "
        "{e}'\n"
    )
    code += f"def f({', '.join(arguments)}):\n" + "\n".join(f"  {part}" for part in "\n".join(lines).splitlines())
    return box.call(code, "f", arguments)


def below(pid: int) -> set[int]:
    """Return every living process under `pid`."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    found: set[int] = set()
    todo = [pid]
    while todo:
        todo += (new := children.get(todo.pop(), []))
        found |= set(new)
    return found
