"""gepa-then-rl, rl-then-gepa: the two channels in phases, as BetterTogether (arXiv 2407.10930) orders them.

They isolate the interleaving: both channels and their costs are FST's, but never at work on the same problems. A stream has no
announced end, so phases of a fixed length take turns for ever.
"""

from typing import Annotated, Any

from pydantic import Field

from fst_bench.lab import Attempt, Handle, Method
from fst_bench.slow import learn

from .fst import FST


class Phases(FST):
    """Prompts: a round of GEPA at the start of each cycle, no RL. Weights: RL under the best prompt so far."""

    prompts_first: bool

    class Settings(Method.Settings):
        phase: Annotated[int, Field(ge=1)] = 10
        """Steps of each phase; a phase that never ends is `gepa`, or `rl`."""

    def step(self, batch: list[Handle]) -> dict[str, Any]:
        prompts = (self.steps // self.config.settings.phase % 2 == 0) == self.prompts_first
        due = self.steps % self.config.fast.cycle == 0
        self.steps += 1
        if prompts:
            return self.fast() if due else {}
        groups = self.lab.sample([Attempt(problem, self.prompts[0], self.config.slow.group) for problem in batch], "train")
        return learn(self.lab, groups, self.config.slow)


class GEPAThenRL(Phases):
    name = "gepa-then-rl"
    prompts_first = True


class RLThenGEPA(Phases):
    name = "rl-then-gepa"
    prompts_first = False
