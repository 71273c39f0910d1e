"""fst-distill: fst that also learns its right answers after the seed prompt: its prompts distilled, naively.

The paper's negative result, and an open direction of its authors. It isolates how much of the prompts' gain the weights
can take over.
"""

from typing import Annotated, Any

from pydantic import Field

from fst_bench.method import Method, Rollout
from fst_bench.slow.learn import learned_tokens, reward
from fst_bench.slow.losses import nll

from .fst import FST


class FSTDistill(FST):
    """After each RL step one more step: nll of the batch's right answers after the seed prompt.

    With weight 0 it is fst. It still answers under its best prompt; what was distilled shows in the evaluation with the
    seed prompt.
    """

    name = "fst-distill"

    class Settings(Method.Settings):
        weight: Annotated[float, Field(ge=0)] = 1.0
        """Weight of the mean negative log-likelihood over tokens."""

    def slow(self, groups: list[list[Rollout]]) -> dict[str, Any]:
        metrics = super().slow(groups)
        weight = self.config.settings.weight
        slow = self.config.slow
        right = [r for group in groups for r in group if reward(r, slow) == 1.0 and learned_tokens(r, slow)]
        if not (weight and right):
            return metrics
        with_prompt = self.lab.with_prompt(right, self.config.seed_prompt)
        tokens = sum(r.sample.sampled for r in with_prompt)
        advantages = [[1.0] * r.sample.sampled for r in with_prompt]
        weights = [[weight / tokens] * r.sample.sampled for r in with_prompt]
        distilled = self.lab.update(with_prompt, advantages, weights, nll)
        return metrics | {"distilled": len(with_prompt), "distillation_loss": distilled["loss"]}
