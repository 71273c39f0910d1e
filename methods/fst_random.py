"""fst-random: prompts change at random and nothing selects them. The control for the fast loop: is it evolution that helps, or any variety of prompts?"""

import random
from typing import Annotated, Any

from pydantic import Field

from fst_bench.method import Method

from .fst import FST


def mutate(prompt: str, rng: random.Random, limit: int) -> str:
    """One to three words dropped, said twice or moved; never empty, never longer than `limit` characters."""
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
    """A round in which K mutated survivors are the new population, unscored: no rollout, no reflection. With share 0 it is fst."""

    name = "fst-random"

    class Settings(Method.Settings):
        share: Annotated[float, Field(ge=0, le=1)] = 1.0
        """Of the rounds that are random; the others are GEPA's."""

    def fast(self) -> dict[str, Any]:
        rng = self.lab.random("mutate")
        if rng.random() >= self.config.settings.share:
            return super().fast()
        own = self.config.fast
        parents = [
            rng.choice(self.prompts) if self.prompts[0].split() else self.config.seed_prompt
            for _ in range(own.population_size)
        ]
        self.prompts = [
            mutate(parent, rng, own.max_prompt_characters) if parent.split() else parent for parent in parents
        ]
        return {}
