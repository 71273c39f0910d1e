"""One clear line for a user's mistake: what was wrong, what exists, what was probably meant."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError


class RunError(RuntimeError):
    """A fault of the machinery, not of the user: the run stops here with one line, and nothing it recorded is lost."""


class Taken(ValueError):
    """A run directory belongs to another process: what was asked for may be possible once that has ended."""


class Unwritable(RunError):
    """A file of a run can't be written: the disk is full, or may not be written to."""


class NotFinite(RunError):
    """A number that learning depends on, such as a loss or a log-probability, is infinite or not a number."""


class ContractError(RunError):
    """A method broke a rule of its contract, which is the docstring of `fst_bench.method.Method`."""

    def __init__(self, rule: str, what: str):
        contract = f"rule '{rule}' of its contract: python -m pydoc fst_bench.method.Method"
        super().__init__(f"the method {what} ({contract})")
        self.rule = rule


def unknown(kind: str, name: str, known: Iterable[str], ending: str | None = None) -> str:
    """Return "unknown method 'fts': did you mean fst? There are base, fst, gepa, rl".

    With `ending` (".py"), a file of that name in the current folder is what was probably meant.
    """
    names = sorted(known)
    files = [f"./{stem}{ending}" for stem in (name, name.replace("-", "_"))] if ending else []
    near = [file for file in files if Path(file).is_file()] or difflib.get_close_matches(name, names, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"unknown {kind} {name!r}: {meant}There are {', '.join(names) or 'none'}"


M = TypeVar("M", bound=BaseModel)


def explain(model: type[M], values: Mapping[str, Any], where: str) -> M:
    """Return `model(**values)`. Raises ValueError with one line that names the first wrong key or value."""
    if not isinstance(values, Mapping):  # a line of a damaged record file may hold anything
        raise ValueError(f"{where}: {str(values)[:60]!r} is not a mapping of keys to values")
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ValueError(f"{where}: {first_line(model, error)}") from None


def first_line(model: type[BaseModel], error: ValidationError) -> str:
    """Return the first complaint of a validation, in our words."""
    # an unknown key first: a typo also leaves a required key missing
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    path = [str(part) for part in first["loc"]]
    place = ".".join(path)
    if first["type"] == "extra_forbidden":
        return unknown("key", path[-1], fields_at(model, path[:-1]))
    if first["type"] == "value_error":  # our own words, which name the value
        reason = first["msg"].removeprefix("Value error, ")
        return f"{place}: {reason}" if place else reason
    got = "" if first["type"] == "missing" else f" (got {str(first['input'])[:60]})"
    return f"{place}: {first['msg'].replace('valid tuple', 'list')}{got}"  # a YAML file knows no tuples


def fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the names of the fields of the model that is at `path` inside `model`, through lists of models too."""
    for part in path:
        annotation: Any = model.model_fields[part].annotation if part in model.model_fields else None
        for candidate in (annotation, *get_args(annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return list(model.model_fields)
