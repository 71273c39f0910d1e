r"""math: a chain of operations, applied in order. Protocol: the value in the last \boxed{} (or another format).

Two plain decimals are compared here, exactly. Anything else (fractions, LaTeX, on either side) goes to math-verify in a
child process that can be killed, after structural limits that keep it quick. "7." is 7 (`math_judge.plain`).
"""

import random
import re
from fractions import Fraction
from typing import Annotated

from pydantic import Field

from fst_bench.core.types import Problem, Score, Status
from fst_bench.tasks.base import CORRECT, Difficulty, Draft, clip
from fst_bench.tasks.formats import AnswerFormat, Wrapped
from fst_bench.tasks.math_judge import judge, plain

MAX_CHARS = 120
MAX_DIGITS = 40
DECIMAL = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)


class MathDifficulty(Difficulty):
    operations: Annotated[int, Field(ge=1, le=64)] = 8
    max_value: Annotated[int, Field(ge=20, le=1_000_000)] = 200
    max_operand: Annotated[int, Field(ge=3, le=999)] = 20
    answer_format: AnswerFormat = "boxed"


class Math(Wrapped):
    name = "math"
    Difficulty = MathDifficulty
    own = "boxed"
    protocol = "Put the final answer inside \\boxed{}."
    hint = "It helps to handle a single operation before the next one."
    levels = [
        {"operations": 1, "max_value": 60, "max_operand": 9},
        {"operations": 6, "max_value": 60, "max_operand": 9},
        {},
        {"operations": 64, "max_value": 1_000_000, "max_operand": 999},
    ]

    def draw(self, rng: random.Random) -> Draft:
        d = self.difficulty
        value = start = rng.randint(1, 9)
        operations: list[tuple[str, int]] = []
        while len(operations) < d.operations:
            symbol = rng.choice("++--*")
            operand = rng.randint(2, 3) if symbol == "*" else rng.randint(1, d.max_operand)
            result = apply(value, symbol, operand)
            if 0 <= result <= d.max_value:
                operations.append((symbol, operand))
                value = result
        chain = " ".join(f"{symbol}{operand}" for symbol, operand in operations)
        key = f"{start} {chain}"
        return Draft(key, f"Start and apply in order: {key}", str(value), {"start": start, "operations": operations})

    def check(self, problem: Problem, text: str) -> Score:
        content, place, subject = self.wrapper.read(text), self.wrapper.place, self.wrapper.subject
        if not content:
            return Score(
                0.0,
                self.teach(f"The answer was expected {self.wrapper.wanted}, and no value was found there.", text),
                "unparseable",
            )
        value, gold = plain(content), plain(problem.answer)
        if value == gold:
            return Score(1.0, CORRECT, "ok", clip(content))
        if len(content) > MAX_CHARS or sum(c.isdigit() for c in content) > MAX_DIGITS:
            return Score(
                0.0, self.teach(f"{subject} holds far more than one value.", text), "unparseable", clip(content)
            )
        if DECIMAL.fullmatch(value) and DECIMAL.fullmatch(gold):
            status: Status = "ok" if Fraction(value) == Fraction(gold) else "wrong"
        else:
            status = judge(gold, value)
        if status == "ok":
            return Score(1.0, CORRECT, "ok", clip(content))
        right = clip(problem.answer, MAX_CHARS)
        diagnosis = {
            "wrong": f"{subject} says {clip(content)}, but the right value is {right}.",
            "unparseable": f"{subject} says {clip(content)}, which is not a value; the right value is {right}.",
            "timeout": f"The expression in {place} took too long to judge.",
            "crash": f"The expression in {place} could not be judged.",
        }[status]
        return Score(0.0, self.teach(diagnosis, text), status, clip(content))

    def wrong_texts(self, problem: Problem) -> list[str]:
        right = problem.answer
        return [
            right,
            self.write(str(int(right) + 1)),
            self.write(f"{right}.5"),
            self.write(right) + " " + self.write(str(int(right) + 2)),
            self.write(""),
            self.write(right)[:-1],
            self.write(f"{right}, {int(right) + 1}"),
        ]


def apply(value: int, symbol: str, operand: int) -> int:
    """Return the result of one operation of a chain."""
    return value + operand if symbol == "+" else value - operand if symbol == "-" else value * operand
