"""rl-grpo: rl with GRPO's clipped objective in place of CISPO. Isolates what a token's gradient is worth once it has moved past the clip."""

from functools import partial
from typing import Annotated, Any

from pydantic import Field

from fst_bench.method import Method, ProblemHandle, RolloutRequest
from fst_bench.slow import learn
from fst_bench.slow.losses import ppo_clip


class RLGRPO(Method):
    """As `rl`. With clips that never bind it is rl with a cap that never binds."""

    name = "rl-grpo"
    trains = True

    class Settings(Method.Settings):
        epsilon_low: Annotated[float, Field(gt=0, le=1)] = 0.2
        epsilon_high: Annotated[float, Field(gt=0)] = 0.2
        """The ratio's range is 1 - epsilon_low to 1 + epsilon_high; DAPO takes 0.28 above."""

    def step(self, batch: list[ProblemHandle]) -> dict[str, Any]:
        groups = self.lab.sample(
            [RolloutRequest(problem, self.config.seed_prompt, self.config.slow.group_size) for problem in batch],
            "train",
        )
        own = self.config.settings
        return learn(
            self.lab,
            groups,
            self.config.slow,
            loss=partial(ppo_clip, epsilon_low=own.epsilon_low, epsilon_high=own.epsilon_high),
        )
