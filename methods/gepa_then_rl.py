"""gepa-then-rl: the two loops in phases, prompts first, as BetterTogether (arXiv 2407.10930) orders them.

It isolates the interleaving: both loops and their costs are FST's, but they never work on the same problems. A stream
announces no end, so phases of a fixed length alternate.
"""

from typing import Annotated, Any, ClassVar

from pydantic import Field

from fst_bench.method import Method, ProblemHandle, RolloutRequest
from fst_bench.slow import learn

from .fst import FST


class GEPAThenRL(FST):
    """Phases of prompts: a round of GEPA at the start of each cycle, no RL.

    Phases of weights: RL under the best prompt so far.
    """

    name = "gepa-then-rl"
    prompts_first: ClassVar[bool] = True

    class Settings(Method.Settings):
        phase: Annotated[int, Field(ge=1)] = 10
        """Steps of each phase; with a phase that never ends it is `gepa`, or `rl`."""

    def step(self, batch: list[ProblemHandle]) -> dict[str, Any]:
        prompts = (self.steps // self.config.settings.phase % 2 == 0) == self.prompts_first
        begins_cycle = self.steps % self.config.fast.cycle == 0
        self.steps += 1
        if prompts:
            return self.fast() if begins_cycle else {}
        requests = [RolloutRequest(problem, self.prompts[0], self.config.slow.group_size) for problem in batch]
        return learn(self.lab, self.lab.sample(requests, "train"), self.config.slow)
