"""fst-prompt-advantage: the advantage is normalised among the rollouts of one prompt, not over the whole group of a problem.

Isolates the one normalisation per problem, by which rollouts under a good prompt are set against those under a bad one.
"""

from typing import Any, Literal

from fst_bench.method import Method, Rollout
from fst_bench.slow import learn
from fst_bench.slow.learn import per_problem

from .fst import FST


class FSTPromptAdvantage(FST):
    """With `per: problem` it is fst. A prompt with a single rollout of a problem gives it no signal."""

    name = "fst-prompt-advantage"

    class Settings(Method.Settings):
        per: Literal["prompt", "problem"] = "prompt"

    def slow(self, groups: list[list[Rollout]]) -> dict[str, Any]:
        if self.config.settings.per == "problem":
            return super().slow(groups)
        advantages = []
        for group in groups:
            contexts = list(dict.fromkeys(r.context for r in group))
            parts = [[r for r in group if r.context == context] for context in contexts]
            given = {
                context: iter(row) for context, row in zip(contexts, per_problem(parts, self.config.slow), strict=True)
            }
            advantages.append([next(given[r.context]) for r in group])
        return learn(self.lab, groups, self.config.slow, advantages=advantages)
