"""rl-kl: rl with a penalty for leaving the reference policy.

It isolates whether FST's small drift is worth more than a penalty buys.
"""

import math
from typing import Annotated, Any

from pydantic import Field

from fst_bench.method import Method, ProblemHandle, RolloutRequest
from fst_bench.slow import learn


class RLKL(Method):
    """As `rl`; the advantage of each token is lower by beta (1 - pi_reference / pi).

    That is the gradient of GRPO's estimate of KL(policy || reference) (arXiv 2402.03300). With beta 0 it is rl.
    """

    name = "rl-kl"
    trains = True

    class Settings(Method.Settings):
        beta: Annotated[float, Field(ge=0)] = 0.04

    def step(self, batch: list[ProblemHandle]) -> dict[str, Any]:
        group_size = self.config.slow.group_size
        requests = [RolloutRequest(problem, self.config.seed_prompt, group_size) for problem in batch]
        groups = self.lab.sample(requests, "train")
        reference = iter(self.lab.reference_logprobs([r for group in groups for r in group]))
        penalties = [[self.penalty(r.sample.logprobs, next(reference)) for r in group] for group in groups]
        return learn(self.lab, groups, self.config.slow, penalties=penalties)

    def penalty(self, logprobs: list[float], reference: list[float]) -> list[float]:
        """Return beta (1 - pi_reference / pi) of every sampled token."""
        beta = self.config.settings.beta
        return [beta * (1 - math.exp(theirs - ours)) for ours, theirs in zip(logprobs, reference, strict=True)]
