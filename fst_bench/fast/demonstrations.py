"""The reflector `demonstrations`: a prompt's worked examples, changed in one way, as in DSPy's bootstrapped few-shot.

It reads gepa's own reflection prompt, as `extractive` does. The examples come from there: problems that the policy has
just answered rightly, with its own answers. They are worded as the policy reads a problem, so a base model, which no
instruction moves, is shown what an answer looks like.

An example's own problem is among those on which gepa first compares the new prompt with the old one, which flatters the
new one. The validation problems, which decide, are never examples.
"""

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from fst_bench.method.reflection import ReflectionFailure, current_in, fence_around
from fst_bench.policy.template import Template, worded
from fst_bench.tasks.base import CORRECT

WORDING = "Problem: {user}\nSolution:"
"""How an example is worded where the policy reads problems by a chat template."""
ROLLOUT = re.compile(
    r"^# Example \d+\n## Inputs\n(?P<problem>.*?)\n\n## Generated Outputs\n(?P<answer>.*?)\n\n## Feedback\n"
    r"(?P<feedback>.*?)(?=\n\n\n\n# Example |\s*\n`{3,}\n)",
    re.DOTALL | re.MULTILINE,
)
"""A rollout in gepa's reflection prompt."""


class Example(NamedTuple):
    """A problem and a right answer to it."""

    problem: str
    answer: str


class Demonstrations:
    """Replies with the current prompt after one change of its worked examples.

    One is added, dropped or replaced, or they change their order; then the first ones go until all have
    `max_tokens` tokens together. The text in front of the examples stays. Deterministic in (reflection prompt, seed).
    """

    def __init__(self, template: Template, max_tokens: int):
        self.template, self.max_tokens = template, max_tokens
        wording = worded(template.settings.wording, {"user": "{user}"}) if template.plain else WORDING
        self.before, self.between = wording.split("{user}", 1)
        if not self.before.strip():  # nothing tells where an example begins
            self.before, self.between = WORDING.split("{user}")

    def __call__(self, prompt: str, seed: int) -> str:
        """Return the reply to a reflection prompt. Raises ReflectionFailure where it gives nothing to change."""
        instruction, examples = self.read(current_in(prompt).strip())
        text = self.write(instruction, self.changed(examples, right(prompt), random.Random(f"{seed}/{prompt}")))
        fence = fence_around(text)
        return f"{fence}\n{text}\n{fence}"

    def changed(self, examples: list[Example], found: list[Example], rng: random.Random) -> list[Example]:
        """Return the examples after one change, `found` being what can be added."""
        known = {example.problem for example in examples}
        fresh = [
            example for example in found if example.problem not in known and self.tokens([example]) <= self.max_tokens
        ]
        several = int(len(examples) > 1)
        chances = {
            self.add: 5 * bool(fresh),
            self.replace: 3 * bool(fresh and examples),
            self.drop: several,
            self.reorder: several,
        }
        if not any(chances.values()):
            raise ReflectionFailure("no right answer to show")
        (change,) = rng.choices([*chances], [*chances.values()])
        made = change(list(examples), fresh, rng)
        while self.tokens(made) > self.max_tokens:
            made.pop(0)
        return made

    def add(self, examples: list[Example], fresh: list[Example], rng: random.Random) -> list[Example]:
        return [*examples, rng.choice(fresh)]

    def replace(self, examples: list[Example], fresh: list[Example], rng: random.Random) -> list[Example]:
        examples[rng.randrange(len(examples))] = rng.choice(fresh)
        return examples

    def drop(self, examples: list[Example], fresh: list[Example], rng: random.Random) -> list[Example]:
        examples.pop(rng.randrange(len(examples)))
        return examples

    def reorder(self, examples: list[Example], fresh: list[Example], rng: random.Random) -> list[Example]:
        first = rng.randrange(1, len(examples))
        return examples[first:] + examples[:first]

    def tokens(self, examples: Sequence[Example]) -> int:
        """Return the number of tokens of examples."""
        return len(self.template.encode([self.write("", examples)])[0])

    def read(self, prompt: str) -> tuple[str, list[Example]]:
        """Return a prompt's text in front of its examples, and these."""
        instruction, *parts = re.split(rf"(?:\A|\n\n){re.escape(self.before)}", prompt)
        examples = []
        for part in parts:
            problem, found, answer = part.rpartition(self.between)
            if not found:  # no example, but text that begins like one
                return prompt, []
            examples.append(Example(problem, answer.strip()))
        return instruction.strip(), examples

    def write(self, instruction: str, examples: Sequence[Example]) -> str:
        """Return the prompt with these examples; `read` undoes it."""
        texts = [f"{self.before}{problem}{self.between} {answer}" for problem, answer in examples]
        return "\n\n".join([instruction, *texts] if instruction else texts)


def right(prompt: str) -> list[Example]:
    """Return the rollouts in a reflection prompt that the verifier calls correct, each problem once."""
    found = {
        rollout["problem"]: rollout["answer"].strip()
        for rollout in ROLLOUT.finditer(prompt)
        if rollout["feedback"].strip() == CORRECT and rollout["answer"].strip()
    }
    return [Example(*pair) for pair in found.items()]
