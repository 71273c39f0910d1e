"""Shared by the tests: the embedded model, and a lab on a small stream. Everything in here is the real thing."""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
import torch

from fst_bench.harness.config import REGISTRIES, resolve
from fst_bench.harness.loop import Bench
from fst_bench.policy import PolicySettings, load_policy
from fst_bench.policy.torch.backend import TorchPolicy

missing = [name for name in ("vllm", "deepspeed") if importlib.util.find_spec(name) is None]
collect_ignore_glob = ["distributed/test_*.py", "gpu/test_*.py"] if missing else []
"""These need vLLM and DeepSpeed: `make test-backend` runs them on a CPU, `make test-gpu` on a GPU."""
torch.set_num_threads(1)
hypothesis.settings.register_profile("here", deadline=None)  # speed is never asserted
hypothesis.settings.load_profile("here")


@pytest.fixture
def policy() -> TorchPolicy:
    """Return a new embedded model with short answers."""
    return load_policy("embedded:tiny", PolicySettings(max_tokens=24))


@pytest.fixture
def bench() -> Callable[..., Bench]:
    """Return a maker of runs that have not begun: `bench("single-math", "fst", batch=4)`, smoke preset."""

    def make(stream: str = "single-math", method: str = "base", seed: int = 0, **settings: Any) -> Bench:
        config, spec = resolve(stream, method, "smoke", seed, settings)
        return Bench(config, spec)

    return make


@pytest.fixture(autouse=True)
def nothing_loaded() -> Iterator[None]:
    """Forget after each test what it has loaded that does not ship."""
    yield
    for registry in REGISTRIES.values():
        registry.loaded.clear()
