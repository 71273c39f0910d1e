"""codeio: what does this function return? Protocol: the last JSON object of the text has the key "output".

Strings, integers, keys and lengths must match exactly, floats to 1e-3 relative (CodeIO's own rule).
"""

import json
import math
import random
from typing import Annotated, Any

from pydantic import Field

from .base import CORRECT, TAIL, Difficulty, Draft, Problem, Task, Verdict, clip

MAX_DEPTH = 32
MAX_FAILURES = 2_000
DECODER = json.JSONDecoder(parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))


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
        value, lines, operations = list(given), [], []
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

    def verify(self, problem: Problem, text: str) -> Verdict:
        found = last_object_with(text, "output")
        if found is None:
            return Verdict(0.0, self.teach("The answer was expected as a JSON object with the key output, and none was found.", text), "unparseable")
        output = found["output"]
        shown = clip(compact(output))
        if same(output, json.loads(problem.answer)):
            return Verdict(1.0, CORRECT, "ok", shown)
        return Verdict(0.0, self.teach(f"The output given is {shown}, but the right output is {problem.answer}.", text), "wrong", shown)

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
    """JSON without spaces, as the problems write lists; a value too deep to be written is named so."""
    try:
        return json.dumps(value, separators=(",", ":"))
    except (RecursionError, ValueError):
        return "too deep a value"


def last_object_with(text: str, key: str) -> dict | None:
    """The last outermost JSON object in the text, if it has `key`. Depth, size and failed attempts are bounded."""
    tail, at, last, failures = text[-TAIL:], 0, None, 0
    while (at := tail.find("{", at)) >= 0 and failures < MAX_FAILURES:
        try:
            last, at = DECODER.raw_decode(tail, at)
        except (ValueError, RecursionError):
            at, failures = at + 1, failures + 1
    return last if isinstance(last, dict) and key in last else None


def same(a: Any, b: Any, depth: int = 0) -> bool:
    """Equality of two JSON values: types, keys and lengths exact, floats to 1e-3 relative."""
    if depth > MAX_DEPTH:
        return False
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k], depth + 1) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y, depth + 1) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) or isinstance(b, float):
        return isinstance(a, int | float) and isinstance(b, int | float) and close(a, b)
    return type(a) is type(b) and a == b


def close(a: float, b: float) -> bool:
    """Two finite numbers within 1e-3 of each other, relatively; huge integers that no float holds are not close."""
    try:
        return math.isfinite(a) and math.isfinite(b) and math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-12)
    except OverflowError:
        return False
