"""One clear line for a user's mistake: what was wrong, what exists, what was probably meant."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError


class RunError(RuntimeError):
    """The machinery is wrong, not what the user asked for: the run stops here with one line, and nothing it recorded is lost."""


class NotFinite(RunError):
    """A number that learning depends on, such as a loss or a log-probability, is infinite or not a number."""


class ContractError(RunError):
    """A method broke a rule of its contract, which is written in `fst_bench.method.lab.Method`."""

    def __init__(self, rule: str, what: str):
        super().__init__(
            f"the method {what} (rule '{rule}' of its contract: python -m pydoc fst_bench.method.lab.Method)"
        )
        self.rule = rule


def unknown(kind: str, name: str, known: Iterable[str], ending: str | None = None) -> str:
    """'unknown method 'fts': did you mean fst? There are base, fst, gepa, rl'. With `ending`, a file of that name may be meant."""
    names = sorted(known)
    files = [
        path
        for stem in (name, name.replace("-", "_"))
        if ending and (path := f"./{stem}{ending}") and Path(path).is_file()
    ]
    near = files or difflib.get_close_matches(name, names, n=1)
    return (
        f"unknown {kind} {name!r}: "
        + (f"did you mean {near[0]}? " if near else "")
        + f"There are {', '.join(names) or 'none'}"
    )


M = TypeVar("M", bound=BaseModel)


def explain(model: type[M], values: Mapping[str, Any], where: str) -> M:
    """`model(**values)`; ValueError with one line that names the first wrong key or value."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ValueError(f"{where}: {first_line(model, error)}") from None


def first_line(model: type[BaseModel], error: ValidationError) -> str:
    """The first complaint of a validation, in our words."""
    first = min(
        error.errors(), key=lambda e: e["type"] != "extra_forbidden"
    )  # a typo also leaves a required key missing
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        return unknown("key", path[-1], fields_at(model, path[:-1]))
    if first["type"] == "value_error":  # our own words, which say what was given
        return ".".join(path) + ": " * bool(path) + first["msg"].removeprefix("Value error, ")
    got = "" if first["type"] == "missing" else f" (got {str(first['input'])[:60]})"
    return f"{'.'.join(path)}: {first['msg'].replace('valid tuple', 'list')}{got}"  # a YAML file knows no tuples


def fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """Names of the fields of the model that lies at `path` inside `model`, through lists of models too."""
    for part in path:
        annotation: Any = model.model_fields[part].annotation if part in model.model_fields else None
        for candidate in (annotation, *get_args(annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return list(model.model_fields)
