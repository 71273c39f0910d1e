"""codeio: what does this function return? Protocol: the last JSON object of the text has the key "output".

Strings, integers, keys and lengths must match exactly, floats to 1e-3 relative as in CodeIO. (CodeIO lets any
float near an integer pass for it; here 999.5 is not 999, while 999.0 is.)
"""

import json
import math
import random
from typing import Annotated, Any

from pydantic import Field

from .base import CORRECT, TAIL, Difficulty, Draft, Problem, Task, Verdict, clip

MAX_DEPTH = 32
MAX_SHOWN = 300
"""Characters of a right answer in a feedback line."""
MAX_OBJECTS = 500
"""Opening braces, from the end, at which an object is looked for."""


class CodeioDifficulty(Difficulty):
    lines: Annotated[int, Field(ge=1, le=40)] = 8
    max_length: Annotated[int, Field(ge=3, le=20)] = 8
    max_item: Annotated[int, Field(ge=4, le=999)] = 99


class Codeio(Task):
    name = "codeio"
    Difficulty = CodeioDifficulty
    protocol = "Give the answer as a JSON object with the key output."
    hint = "It helps to step through the code and record the list after every line."
    ladder = [
        {"lines": 1, "max_length": 5, "max_item": 9},
        {"lines": 4, "max_length": 5, "max_item": 9},
        {},
        {"lines": 40, "max_length": 20, "max_item": 999},
    ]

    def draw(self, rng: random.Random) -> Draft:
        d = self.difficulty
        given = [rng.randint(0, d.max_item) for _ in range(rng.randint(2, min(4, d.max_length)))]
        value = list(given)
        lines: list[str] = []
        operations: list[tuple[str, int]] = []
        while len(lines) < d.lines:
            kind, item = rng.choice(OPERATIONS), rng.randint(0, d.max_item)
            if (kind in GROWS and len(value) >= d.max_length) or (kind not in GROWS and len(value) < 2):
                continue
            value = run(value, kind, item)
            lines.append(LINE[kind].format(item))
            operations.append((kind, item))
        body = "\n ".join(lines)
        code = f"def f(a):\n {body}\n return a\nf({compact(given)})"
        return Draft(code, code, compact(value), {"given": given, "operations": operations})

    def write(self, answer: str) -> str:
        return f'{{"output": {answer}}}'

    def check(self, problem: Problem, text: str) -> Verdict:
        found = last_object_with(text, "output")
        if found is None:
            return Verdict(0.0, self.teach("The answer was expected as a JSON object with the key output, and none was found.", text), "unparseable")
        output = found["output"]
        shown = clip(compact(output))
        if same(output, json.loads(problem.answer)):
            return Verdict(1.0, CORRECT, "ok", shown)
        return Verdict(
            0.0, self.teach(f"The output given is {shown}, but the right output is {clip(problem.answer, MAX_SHOWN)}.", text), "wrong", shown
        )

    def wrong_texts(self, problem: Problem) -> list[str]:
        value = json.loads(problem.answer)
        return [
            problem.answer,
            self.write(compact([*value, 1])),
            self.write(compact([value[0] + 1, *value[1:]])),
            self.write(compact(value[:-1])),
            self.write(f'"{problem.answer}"'),
            self.write("NaN"),
            self.write("null"),
            self.write(problem.answer) + " " + self.write("[]"),
        ]


LINE = {
    "append": "a=a+[{}]",
    "prepend": "a=[{}]+a",
    "reverse": "a=a[::-1]",
    "tail": "a=a[1:]",
    "init": "a=a[:-1]",
    "rotate": "a=a[1:]+a[:1]",
    "set": "a[0]={}",
}
OPERATIONS = list(LINE)
GROWS = ("append", "prepend")


def run(value: list[int], kind: str, item: int) -> list[int]:
    """One line of the function, applied to the list."""
    match kind:
        case "append":
            return [*value, item]
        case "prepend":
            return [item, *value]
        case "reverse":
            return value[::-1]
        case "tail":
            return value[1:]
        case "init":
            return value[:-1]
        case "rotate":
            return value[1:] + value[:1]
        case _:
            return [item, *value[1:]]


def compact(value: Any) -> str:
    """JSON without spaces, as the problems write lists."""
    return json.dumps(value, separators=(",", ":"))


def not_json(name: str) -> None:
    """NaN and Infinity, which Python would read."""
    raise ValueError(f"{name} is no JSON")


DECODER = json.JSONDecoder(parse_constant=not_json)


def last_object_with(text: str, key: str) -> dict | None:
    """The last outermost JSON object in the text, if it has `key`. An object deeper than MAX_DEPTH is none."""
    tail, end, last = text[-TAIL:], 0, None
    for at in [i for i, c in enumerate(tail) if c == "{"][-MAX_OBJECTS:]:
        if at >= end:
            try:
                found, stop = DECODER.raw_decode(tail, at)
            except (ValueError, RecursionError):
                continue
            if shallow(found):
                last, end = found, stop
    return last if last is not None and key in last else None


def shallow(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether a JSON value is nested at most `depth` deep."""
    if not isinstance(value, dict | list):
        return True
    return depth > 0 and all(shallow(item, depth - 1) for item in (value.values() if isinstance(value, dict) else value))


def same(given: Any, gold: Any) -> bool:
    """Equality of two JSON values: types, keys and lengths exact, integers exact, floats to 1e-3 relative."""
    if isinstance(given, bool) or isinstance(gold, bool):
        return given is gold
    if isinstance(given, dict) and isinstance(gold, dict):
        return given.keys() == gold.keys() and all(same(given[k], gold[k]) for k in gold)
    if isinstance(given, list) and isinstance(gold, list):
        return len(given) == len(gold) and all(same(x, y) for x, y in zip(given, gold, strict=True))
    if isinstance(given, int | float) and isinstance(gold, float):
        return close(given, gold)
    if isinstance(given, int | float) and isinstance(gold, int):
        return given == gold
    return type(given) is type(gold) and given == gold


def close(given: float, gold: float) -> bool:
    """Two finite numbers within 1e-3 of each other, relatively; an integer that no float holds is not close."""
    try:
        return math.isfinite(given) and math.isclose(given, gold, rel_tol=1e-3, abs_tol=1e-12)
    except OverflowError:
        return False
