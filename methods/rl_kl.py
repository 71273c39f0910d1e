"""rl-kl: rl with a penalty for leaving the base. Isolates whether FST's small drift is worth more than a penalty buys."""

import math
from typing import Annotated, Any

from pydantic import Field

from fst_bench.method import Method, ProblemHandle, RolloutRequest
from fst_bench.slow import learn


class RLKL(Method):
    """As `rl`; each token's advantage is less by beta (1 - pi_base / pi): the gradient of GRPO's estimate of KL(policy || base) (arXiv 2402.03300).

    With beta 0 it is rl.
    """

    name = "rl-kl"
    trains = True

    class Settings(Method.Settings):
        beta: Annotated[float, Field(ge=0)] = 0.04

    def step(self, batch: list[ProblemHandle]) -> dict[str, Any]:
        groups = self.lab.sample(
            [RolloutRequest(problem, self.config.seed_prompt, self.config.slow.group_size) for problem in batch],
            "train",
        )
        beta, base = (
            self.config.settings.beta,
            iter(self.lab.reference_logprobs([r for group in groups for r in group])),
        )
        penalties = [
            [
                [
                    beta * (1 - math.exp(theirs - ours))
                    for ours, theirs in zip(r.sample.logprobs, next(base), strict=True)
                ]
                for r in group
            ]
            for group in groups
        ]
        return learn(self.lab, groups, self.config.slow, penalties=penalties)
