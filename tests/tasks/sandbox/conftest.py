"""A sandbox for each way this machine has."""

import pytest
from held import TESTED, held

from fst_bench.tasks.sandbox import Sandbox


@pytest.fixture(scope="session", params=TESTED, ids=["+".join((way.kind, *way.guards)) for way in TESTED])
def box(request: pytest.FixtureRequest) -> Sandbox:
    return held(request.param)
