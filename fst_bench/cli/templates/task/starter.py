r"""starter: write letters in reverse order. Protocol: the letters in the last \boxed{}.

What a task promises is its base class's docstring: python -m pydoc fst_bench.tasks.Task
"""

import random
import string
from typing import Annotated

from fst_bench.core.types import Problem, Score
from fst_bench.tasks.base import CORRECT, Difficulty, Draft, Task, clip, last_boxed
from pydantic import Field


class StarterDifficulty(Difficulty):
    letters: Annotated[int, Field(ge=3, le=26)] = 6


class Starter(Task):
    """Letters are all different, so no problem reads the same in both directions."""

    name = "starter"  # of its stages, and in tables
    Difficulty = StarterDifficulty
    protocol = "Put the final answer inside \\boxed{}."  # stated in the problem where format_given is set
    hint = "It helps to begin with the last letter."  # what feedback adds to an answer without any working
    levels = [{"letters": 3}, {"letters": 4}, {}]  # difficulties from tiny to headline, which `validate tasks` tries

    def draw(self, rng: random.Random) -> Draft:
        """Draw one problem, every choice from `rng`.

        Its key is its content, which decides between training and held-out problems.
        """
        letters = rng.sample(string.ascii_uppercase, self.difficulty.letters)
        prompt = f"Letters: {' '.join(letters)}\nWrite them in reverse order."
        return Draft("".join(letters), prompt, " ".join(reversed(letters)), {})

    def write(self, answer: str) -> str:
        return f"\\boxed{{{answer}}}"

    def check(self, problem: Problem, text: str) -> Score:
        """Score any text at all; never raise.

        A prompt is learned from the feedback, so it does not contain the answer.
        """
        found = last_boxed(text)
        if not found:
            missing = "The answer was expected in \\boxed{}, and no letters were found there."
            return Score(0.0, self.teach(missing, text), "unparseable")
        if found.split() == problem.answer.split():
            return Score(1.0, CORRECT, "ok", clip(found))
        right = sum(a == b for a, b in zip(found.split(), problem.answer.split(), strict=False))
        return Score(0.0, self.teach(f"Only the letters at {right} places are right.", text), "wrong", clip(found))

    def wrong_texts(self, problem: Problem) -> list[str]:
        """Return near misses, which must earn nothing."""
        letters = problem.answer.split()
        return [
            problem.answer,
            self.write(" ".join(letters[::-1])),
            self.write(" ".join(letters[:-1])),
            self.write("".join(letters)),
            "\\boxed{}",
        ]
