"""fst-drop: fst that drops candidates far below the best before RL samples under them.

It isolates what rollouts under weak prompts cost and teach.
"""

from typing import Annotated, Any

from pydantic import Field

from fst_bench.fast import evolve
from fst_bench.method import Method

from .fst import FST


class FSTDrop(FST):
    """Keeps those of the population with at least `share` of the best one's validation score.

    With share 0 it is fst.
    """

    name = "fst-drop"

    class Settings(Method.Settings):
        share: Annotated[float, Field(ge=0, le=1)] = 0.5

    def fast(self) -> dict[str, Any]:
        population = evolve(self.lab, self.prompts, self.lookahead(), self.config.fast)
        least = self.config.settings.share * population[0].mean
        self.prompts = [candidate.prompt for candidate in population if candidate.mean >= least]
        return {"valset_score": population[0].mean}
