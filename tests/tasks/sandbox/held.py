"""What the attacks share: a sandbox held in one way, and what lives below a process."""

from pathlib import Path

import pytest

from fst_bench.tasks.sandbox import WAYS, Limits, Sandbox, Way

TESTED = [way for way in WAYS if "seccomp" in way.guards]
"""The ways that promise something against an attacker."""


def held(way: Way, **limits: float) -> Sandbox:
    """A sandbox of one worker that has answered once; skips where the machine lacks the way."""
    box = Sandbox(Limits(**{"seconds": 20, "cpu_seconds": 10, "memory_mb": 256} | limits), workers=1, way=way)
    try:
        assert box.call("def f(): return 1", "f", {}).value == 1
    except (RuntimeError, OSError) as error:
        pytest.skip(f"this machine has no {way}: {error}")
    return box


def below(pid: int) -> set[int]:
    """Every living process under `pid`."""
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
