r"""math from Polaris (POLARIS-Project/Polaris-Dataset-53K): a competition problem. Protocol: the last \boxed{}.

Columns: problem (the text, which is the prompt as it stands), answer (LaTeX or a number), difficulty ("3/8"). The
answer is judged by math-verify in the killable child process that the procedural task uses (`tasks/math_judge.py`),
under the same limits: a gold answer that it would not take as an answer to itself (sums, integrals, determinants,
more than 120 characters) could not be answered in any other words, so its row is unusable. Words are read by
math-verify as products of letters: "Even" answers \text{even}, and so would an anagram.

Our own definitions, where the data set's card is silent: the k of "k/8" bounds the rows that are taken, whatever it
counts (`min_eighths`, `max_eighths`); a row without such a mark is used as long as no bound is set. Two problems that
differ in white space alone are the same text. A row has one answer: rows that give one problem answers which
math-verify does not take for each other are all unusable.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any

from pydantic import Field

from fst_bench.core.types import Problem
from fst_bench.tasks.data.base import FromRows, Item, RowDifficulty, cell, item, squeeze, text_of
from fst_bench.tasks.data.read import Unusable
from fst_bench.tasks.math import DECIMAL, MAX_CHARS, MAX_DIGITS, Math
from fst_bench.tasks.math_judge import judge

OTHER = ["271828", "314159"]
"""Wrong values."""


class PolarisDifficulty(RowDifficulty):
    min_eighths: Annotated[int, Field(ge=0, le=8)] = 0
    max_eighths: Annotated[int, Field(ge=0, le=8)] = 8


class Polaris(FromRows, Math):
    Difficulty = PolarisDifficulty  # type: ignore[assignment]  # other parameters than the procedural ones
    columns = ("problem", "answer", "difficulty")
    stem = "polaris"
    hub = "POLARIS-Project/Polaris-Dataset-53K"
    hint = "It helps to work through the problem before the answer is written down."
    levels = [{}, {"min_eighths": 4}, {"max_eighths": 3}]

    @classmethod
    def usable(cls, row: Mapping[str, Any]) -> Sequence[Item | Unusable]:
        problem, answer = text_of(row, "problem"), cell(row, "answer")
        if isinstance(answer, bool) or not isinstance(answer, str | int | float):
            raise Unusable("answer is not a text")
        gold = str(answer).strip()
        if not readable(gold):
            raise Unusable("an answer that math-verify does not read")
        mark = re.fullmatch(r"([0-8])/8", str(row.get("difficulty")).strip())
        return [
            item(
                cls.name,
                squeeze(problem),
                {"problem": problem, "answer": gold, "eighths": int(mark[1]) if mark else None},
            )
        ]

    @classmethod
    def question(cls, content: Mapping[str, Any]) -> list[Any]:
        return [squeeze(content["problem"])]

    @classmethod
    def agree(cls, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        return one["answer"] == other["answer"] or judge(one["answer"], other["answer"]) == "ok"

    def wanted(self, content: Mapping[str, Any]) -> bool:
        least, most = self.difficulty.min_eighths, self.difficulty.max_eighths
        return (least, most) == (0, 8) if content["eighths"] is None else least <= content["eighths"] <= most

    def ask(self, content: Mapping[str, Any]) -> tuple[str, str]:
        return content["problem"], content["answer"]

    def wrong_texts(self, problem: Problem) -> list[str]:
        right = self.write(problem.answer)
        other = next(value for value in OTHER if value not in problem.answer)
        return [
            problem.answer,
            self.write(other),
            f"{right} {self.write(other)}",
            "\\boxed{}",
            right[:-1],
            right.replace("\\boxed", ""),
        ]


@cache  # the same few thousand answers come again and again, at some milliseconds each
def readable(gold: str) -> bool:
    """Return whether a gold answer can be recognised in other words than its own."""
    if len(gold) > MAX_CHARS or sum(c.isdigit() for c in gold) > MAX_DIGITS:
        return False
    return bool(DECIMAL.fullmatch(gold)) or judge(gold, gold) == "ok"
