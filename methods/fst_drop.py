"""fst-drop: candidates far below the best are dropped before RL samples under them. Isolates what rollouts under weak prompts cost and teach."""

from typing import Annotated, Any

from pydantic import Field

from fst_bench.fast.evolve import evolve
from fst_bench.lab import Method

from .fst import FST


class FSTDrop(FST):
    """Keeps those of the population with at least `share` of the best one's anchor score. With share 0 it is fst."""

    name = "fst-drop"

    class Settings(Method.Settings):
        share: Annotated[float, Field(ge=0, le=1)] = 0.5

    def fast(self) -> dict[str, Any]:
        population = evolve(self.lab, self.prompts, self.lookahead(), self.config.fast)
        least = self.config.settings.share * population[0].mean
        self.prompts = [scored.prompt for scored in population if scored.mean >= least]
        return {"anchor_score": population[0].mean}
