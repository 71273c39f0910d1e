"""rl-grpo: rl with GRPO's clipped objective in place of CISPO.

It isolates what a token's gradient is worth once its ratio has left the clip range.
"""

from functools import partial
from typing import Annotated, Any

from pydantic import Field

from fst_bench.method import Method, ProblemHandle, RolloutRequest
from fst_bench.slow import learn
from fst_bench.slow.losses import ppo_clip


class RLGRPO(Method):
    """As `rl`. With a clip range that never binds it is rl with a ratio_clip_max that never binds."""

    name = "rl-grpo"
    trains = True

    class Settings(Method.Settings):
        epsilon_low: Annotated[float, Field(gt=0, le=1)] = 0.2
        epsilon_high: Annotated[float, Field(gt=0)] = 0.2
        """The ratio's range is 1 - epsilon_low to 1 + epsilon_high; DAPO takes 0.28 above."""

    def step(self, batch: list[ProblemHandle]) -> dict[str, Any]:
        group_size = self.config.slow.group_size
        requests = [RolloutRequest(problem, self.config.seed_prompt, group_size) for problem in batch]
        groups = self.lab.sample(requests, "train")
        own = self.config.settings
        loss = partial(ppo_clip, epsilon_low=own.epsilon_low, epsilon_high=own.epsilon_high)
        return learn(self.lab, groups, self.config.slow, loss=loss)
