"""A sandbox for each way that this machine has, and the check that attacks leave it unharmed."""

import os
from collections.abc import Iterator

import pytest
from held import TESTED, below, held

from fst_bench.tasks.sandbox import Outcome, Sandbox


@pytest.fixture(scope="session", params=TESTED, ids=["+".join((way.kind, *way.guards)) for way in TESTED])
def box(request: pytest.FixtureRequest) -> Sandbox:
    return held(request.param)


@pytest.fixture
def unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each attack the same worker answers again, and only it lives."""
    if "box" not in request.fixturenames:
        yield
        return
    box: Sandbox = request.getfixturevalue("box")
    box.call("def f(): return 1", "f", {})
    before = below(os.getpid())
    yield
    assert below(os.getpid()) <= before
    assert box.call("def f(a): return a", "f", {"a": [1]}) == Outcome("ok", [1])
