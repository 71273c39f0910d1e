"""fst-random: prompts change at random and nothing selects them.

It is the control for the fast loop: does evolution help, or any variety of prompts?
"""

import random
from typing import Annotated, Any

from pydantic import Field

from fst_bench.method import Method

from .fst import FST


def mutate(prompt: str, rng: random.Random, limit: int) -> str:
    """Return the prompt with one to three words dropped, doubled or moved.

    It is never empty, nor longer than `limit` characters where the prompt is not.
    """
    words = prompt.split()
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(words))
        match rng.choice(("drop", "double", "move")):
            case "drop" if len(words) > 1:
                del words[at]
            case "double":
                words.insert(at, words[at])
            case _:
                words.insert(rng.randrange(len(words)), words.pop(at))
    changed = " ".join(words)
    return changed if len(changed) <= limit else prompt


class FSTRandom(FST):
    """K mutated survivors are the new population of a round, unscored: no rollout, no reflection.

    With share 0 it is fst.
    """

    name = "fst-random"

    class Settings(Method.Settings):
        share: Annotated[float, Field(ge=0, le=1)] = 1.0
        """Share of the rounds that are random; the others are GEPA's."""

    def fast(self) -> dict[str, Any]:
        rng = self.lab.random("mutate")
        if rng.random() >= self.config.settings.share:
            return super().fast()
        size, limit = self.config.fast.population_size, self.config.fast.max_prompt_characters
        # words are what a mutation changes: a population without any starts again from the seed prompt
        parents = [
            rng.choice(self.prompts) if self.prompts[0].split() else self.config.seed_prompt for _ in range(size)
        ]
        self.prompts = [mutate(parent, rng, limit) if parent.split() else parent for parent in parents]
        return {}
