"""codeio: what does this function return? Protocol: the last JSON object with the key "output" (or another format).

Strings, integers, keys and lengths must match exactly, floats to 1e-3 relative as in CodeIO. (CodeIO lets any
float near an integer pass for it; here 999.5 is not 999, while 999.0 is.)
"""

import json
import math
import random
from typing import Annotated, Any

from pydantic import Field

from fst_bench.core.types import Problem, Score
from fst_bench.tasks.base import CORRECT, Difficulty, Draft, clip
from fst_bench.tasks.formats import DECODER, AnswerFormat, Wrapped, compact, last_object_with, shallow

MAX_SHOWN = 300
"""Characters of a right answer in a feedback line."""


class CodeioDifficulty(Difficulty):
    lines: Annotated[int, Field(ge=1, le=40)] = 8
    max_length: Annotated[int, Field(ge=3, le=20)] = 8
    max_item: Annotated[int, Field(ge=4, le=999)] = 99
    answer_format: AnswerFormat = "json"


class Codeio(Wrapped):
    name = "codeio"
    Difficulty = CodeioDifficulty
    own = "json"
    asked = "the answer"
    protocol = "Give the answer as a JSON object with the key output."
    hint = "It helps to step through the code and record the list after every line."
    levels = [
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
        return f'{{"output": {answer}}}' if self.answer_format == "json" else self.wrapper.write(answer)

    def check(self, problem: Problem, text: str) -> Score:
        found = last_object_with(text, "output") if self.answer_format == "json" else self.value_in(text)
        if found is None:
            return Score(
                0.0,
                self.teach(f"The answer was expected {self.wrapper.wanted}, and none was found.", text),
                "unparseable",
            )
        output = found["output"]
        shown = clip(compact(output))
        if same(output, json.loads(problem.answer)):
            return Score(1.0, CORRECT, "ok", shown)
        return Score(
            0.0,
            self.teach(
                f"The output given is {shown}, but the right output is {clip(problem.answer, MAX_SHOWN)}.", text
            ),
            "wrong",
            shown,
        )

    def value_in(self, text: str) -> dict | None:
        """Return the JSON value in the wrapper, as the object that would hold it."""
        try:
            value = DECODER.decode((self.wrapper.read(text) or "").removesuffix("."))
        except (ValueError, RecursionError):
            return None
        return {"output": value} if shallow(value) else None

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
    """Return the list after one line of the function."""
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


def same(given: Any, gold: Any) -> bool:
    """Return whether two JSON values are equal: types, keys, lengths and integers exactly, floats to 1e-3 relative."""
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
    """Return whether two finite numbers are within 1e-3 of each other, relatively.

    An integer that no float holds is not close.
    """
    try:
        return math.isfinite(given) and math.isclose(given, gold, rel_tol=1e-3, abs_tol=1e-12)
    except OverflowError:
        return False
