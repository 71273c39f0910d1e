"""physics from a multiple-choice file of one's own: which choice is right? Protocol: its letter after the last ANSWER:.

Columns: question, choices (a list of 2 to 26 texts or numbers; in csv as JSON or as Python writes it), answer (the
letter of the right choice, A for the first; small letters, brackets and a dot are the same). Choices are shown in the
data's order under letters.
No hub default exists: the paper does not name the set it used. An index instead of a letter is unusable: sets count
from 0 or from 1. Two questions that differ in white space alone are the same text.
"""

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from fst_bench.core.types import Problem, Score
from fst_bench.tasks.base import CORRECT, clip
from fst_bench.tasks.data.base import FromRows, Item, RowDifficulty, item, squeeze, structure, text_of
from fst_bench.tasks.data.read import Unusable
from fst_bench.tasks.formats import WRAPPERS
from fst_bench.tasks.physics import Physics

LETTER = re.compile(r"\(?([A-Za-z])\)?\.?", re.ASCII)


class PhysicsRows(FromRows, Physics):
    Difficulty = RowDifficulty  # type: ignore[assignment]  # other parameters than the procedural ones
    columns = ("question", "choices", "answer")
    stem = "physics"
    protocol = "Write ANSWER: before the letter of the right choice."
    hint = "It helps to work the problem out before a letter is picked."
    levels = [{"max_characters": 500}, {}]

    @classmethod
    def usable(cls, row: Mapping[str, Any]) -> Sequence[Item | Unusable]:
        question, choices = text_of(row, "question"), structure(row, "choices")
        if not isinstance(choices, list) or not 2 <= len(choices) <= len(ascii_uppercase):
            raise Unusable("choices is not a list of 2 to 26")
        if not all(isinstance(c, str | int | float) and not isinstance(c, bool) and str(c).strip() for c in choices):
            raise Unusable("a choice that is not a text")
        letter = LETTER.fullmatch(text_of(row, "answer"))
        if letter is None or ascii_uppercase.index(letter[1].upper()) >= len(choices):
            raise Unusable("answer is not a letter of the choices")
        content = {"question": question, "choices": [str(c).strip() for c in choices], "letter": letter[1].upper()}
        return [item(cls.name, squeeze(question), content)]

    @classmethod
    def question(cls, content: Mapping[str, Any]) -> list[Any]:
        return [squeeze(content["question"]), content["choices"]]

    @classmethod
    def agree(cls, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        return bool(one["letter"] == other["letter"])

    def ask(self, content: Mapping[str, Any]) -> tuple[str, str]:
        listed = [f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, content["choices"], strict=False)]
        return "\n".join([content["question"], *listed]), content["letter"]

    def check(self, problem: Problem, text: str) -> Score:
        line = WRAPPERS["answer"].read(text)
        if not line:
            return Score(
                0.0,
                self.teach("The letter was expected after ANSWER:, and nothing was found there.", text),
                "unparseable",
            )
        choices = dict(zip(ascii_uppercase, problem.data["choices"], strict=False))
        letter = LETTER.fullmatch(line)
        if letter is None or letter[1].upper() not in choices:
            diagnosis = f"ANSWER: says {clip(line)}, which is none of the letters {', '.join(choices)}."
            return Score(0.0, self.teach(diagnosis, text), "unparseable", clip(line))
        given, right = letter[1].upper(), problem.answer
        if given == right:
            return Score(1.0, CORRECT, "ok", given)
        diagnosis = f"ANSWER: says {given} ({clip(choices[given])}), but {right} ({clip(choices[right])}) is right."
        return Score(0.0, self.teach(diagnosis, text), "wrong", given)

    def wrong_texts(self, problem: Problem) -> list[str]:
        letters = ascii_uppercase[: len(problem.data["choices"])]
        other = next(letter for letter in letters if letter != problem.answer)
        return [
            problem.answer,
            self.write(other),
            self.write(f"{problem.answer} or {other}"),
            self.write(f"{problem.answer}{other}"),
            f"{self.write(problem.answer)}\n{self.write(other)}",
            self.write(""),
        ]
