"""The parts of a method: its contract, its lab, its ledger and its settings. A method file imports from here."""

from fst_bench.core.types import ProblemHandle, ReflectionExample, Rollout, RolloutRequest
from fst_bench.method.lab import Lab
from fst_bench.method.method import Method
from fst_bench.method.reflection import ReflectionFailure
from fst_bench.method.settings import FastSettings, MethodConfig, SlowSettings

__all__ = [
    "FastSettings",
    "Lab",
    "Method",
    "MethodConfig",
    "ProblemHandle",
    "ReflectionExample",
    "ReflectionFailure",
    "Rollout",
    "RolloutRequest",
    "SlowSettings",
]
