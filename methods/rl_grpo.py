"""rl-grpo: rl with GRPO's clipped objective in place of CISPO. Isolates what a token's gradient is worth once it has moved past the clip."""

from functools import partial
from typing import Annotated, Any

from pydantic import Field

from fst_bench.lab import Attempt, Handle, Method
from fst_bench.slow import learn
from fst_bench.slow.losses import clipped


class RLGRPO(Method):
    """As `rl`. With clips that never bind it is rl with a cap that never binds."""

    name = "rl-grpo"
    trains = True

    class Settings(Method.Settings):
        clip_low: Annotated[float, Field(gt=0, le=1)] = 0.2
        clip_high: Annotated[float, Field(gt=0)] = 0.2
        """The ratio's range is 1 - clip_low to 1 + clip_high; DAPO takes 0.28 above."""

    def step(self, batch: list[Handle]) -> dict[str, Any]:
        groups = self.lab.sample([Attempt(problem, self.config.seed_prompt, self.config.slow.group) for problem in batch], "train")
        own = self.config.settings
        return learn(self.lab, groups, self.config.slow, loss=partial(clipped, low=own.clip_low, high=own.clip_high))
