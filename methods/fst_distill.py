"""fst-distill: what the prompts earn is distilled into the weights, naively: right answers are also learned as if the seed prompt had been there.

The paper's negative result, and an open direction of its authors. Isolates how much of the prompts' gain the weights can take over.
"""

from typing import Annotated, Any

from pydantic import Field

from fst_bench.method import Method, Rollout
from fst_bench.slow.losses import nll

from .fst import FST


class FSTDistill(FST):
    """After each RL step one more: nll of the batch's right answers after the seed prompt. With weight 0 it is fst.

    It goes on answering under its best prompt; what was distilled shows in the column of the seed prompt.
    """

    name = "fst-distill"

    class Settings(Method.Settings):
        weight: Annotated[float, Field(ge=0)] = 1.0
        """Of the mean negative log-likelihood over tokens."""

    def slow(self, groups: list[list[Rollout]]) -> dict[str, Any]:
        metrics = super().slow(groups)
        weight, right = self.config.settings.weight, [r for group in groups for r in group if r.score.reward == 1.0]
        if not (weight and right):
            return metrics
        with_prompt = self.lab.with_prompt(right, self.config.seed_prompt)
        tokens = sum(r.sample.sampled for r in with_prompt)
        ones = [[1.0] * r.sample.sampled for r in with_prompt]
        distilled = self.lab.update(with_prompt, ones, [[weight / tokens] * r.sample.sampled for r in with_prompt], nll)
        return metrics | {"distilled": len(with_prompt), "distillation_loss": distilled["loss"]}
