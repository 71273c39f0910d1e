"""The rules of a method's contract (`fst_bench.method.method.Method`), as checks of what it returns.

The lab itself audits the ledger.
"""

import json
import random
from collections import deque
from collections.abc import Iterator
from functools import cached_property, partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from fst_bench.core.errors import ContractError
from fst_bench.method.lab import Lab, not_json
from fst_bench.method.method import Method
from fst_bench.method.settings import MethodConfig

RESERVED = ("kind", "step", "stage", "problems", "seconds")
"""Keys of a step's row that the harness fills in."""
NO_MEMORY = (Lab, MethodConfig, FunctionType, BuiltinFunctionType, MethodType, ModuleType, type, partial)


def metrics_of(returned: Any) -> dict[str, Any]:
    """Return what `step` returned. Raise ContractError where it cannot be logged."""
    if not isinstance(returned, dict):
        raise ContractError("step", f"returned {short(returned)} from step, not a dict of metrics")
    if complaint := not_json(returned):
        raise ContractError("step", f"returned metrics with {complaint}")
    if taken := [key for key in RESERVED if key in returned]:
        raise ContractError("step", f"returned the metric {taken[0]!r}, which is the harness's own")
    if not isinstance(returned.get("reward"), int | float | None):
        raise ContractError("step", f"returned {returned['reward']!r} as the reward, not a number")
    return returned


def state_of(method: Method) -> dict[str, Any]:
    """Return a copy of the method's state. Raise ContractError where it is not JSON."""
    state = method.state()
    if not isinstance(state, dict):
        raise ContractError("state", f"returned {short(state)} from state, not a dict")
    if complaint := not_json(state):
        raise ContractError("state", f"returned a state with {complaint}")
    copy: dict[str, Any] = json.loads(json.dumps(state))
    return copy


def check_memory(method: Method, copy: Method) -> None:
    """Raise ContractError where `copy`, which was loaded from the method's state, differs from the method."""
    if found := difference(method, copy, "self", set()):
        raise ContractError(
            "state",
            f"forgets what its state does not hold: {found[0]} is {found[1]}, "
            f"and {found[2]} in a copy loaded from state()",
        )


def context_of(method: Method, prompt: str, task: str | None = None) -> str:
    """Return the context a method answers under. Raise ContractError where it is not a str."""
    context = method.context_for_task(prompt, task)
    if not isinstance(context, str):
        raise ContractError("context", f"returned {short(context)} from context_for, not a str")
    return context


def difference(one: Any, two: Any, where: str, met: set[tuple[int, int]]) -> tuple[str, str, str] | None:
    """Return (first place where two objects differ, value in the one, value in the other), or None.

    The contract states what is compared.
    """
    if one is two or (id(one), id(two)) in met or isinstance(one, NO_MEMORY):
        return None
    met.add((id(one), id(two)))
    differ = (where, short(one), short(two))
    if isinstance(one, int | float) and isinstance(two, int | float):
        return None if one == two or (one != one and two != two) else differ
    if type(one) is not type(two):
        return differ
    if isinstance(one, Iterator):
        return where, f"a {type(one).__name__}, whose place no state can tell", "at its start"
    if isinstance(one, dict):
        parts = {f"{where}[{key!r}]": (one.get(key, ABSENT), two.get(key, ABSENT)) for key in one | two}
    elif isinstance(one, list | tuple | deque):
        if len(one) != len(two):
            return differ
        parts = {f"{where}[{i}]": pair for i, pair in enumerate(zip(one, two, strict=True))}
    elif isinstance(one, torch.Tensor):
        return (
            None
            if one.dtype == two.dtype and one.shape == two.shape and torch.equal(one.nan_to_num(), two.nan_to_num())
            else differ
        )
    elif isinstance(one, np.ndarray):
        return None if one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes() else differ
    elif isinstance(one, random.Random):
        return None if one.getstate() == two.getstate() else differ
    elif isinstance(one, torch.Generator):
        return None if torch.equal(one.get_state(), two.get_state()) else differ
    elif isinstance(one, np.random.Generator):
        return None if str(one.bit_generator.state) == str(two.bit_generator.state) else differ
    elif names := attributes(one) | attributes(two):
        parts = {f"{where}.{name}": (getattr(one, name, ABSENT), getattr(two, name, ABSENT)) for name in sorted(names)}
    else:
        return None if type(one).__eq__ is object.__eq__ or one == two else differ
    return next((found for place, (a, b) in parts.items() if (found := difference(a, b, place, met))), None)


class Absent:
    """The value of an attribute or key that only the other object has."""

    def __repr__(self) -> str:
        return "missing"


ABSENT = Absent()


def attributes(thing: Any) -> set[str]:
    """Return the names of an object's attributes, without those that a cached_property computes again."""
    held = set(getattr(thing, "__dict__", ()))
    for kind in type(thing).__mro__:
        slots = vars(kind).get("__slots__", ())
        held |= {slots} if isinstance(slots, str) else set(slots)
    return {
        name
        for name in held - {"__dict__", "__weakref__"}
        if not isinstance(getattr(type(thing), name, None), cached_property)
    }


def short(value: Any) -> str:
    """Return the repr of a value on one line of at most 80 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
