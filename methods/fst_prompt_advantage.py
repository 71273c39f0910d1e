"""fst-prompt-advantage: the advantage is normalised over the rollouts of one prompt, not of a whole problem.

It isolates the one normalisation per problem, which compares rollouts under a good prompt with those under a bad one.
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
            rows = per_problem(parts, self.config.slow)
            by_context = {context: iter(row) for context, row in zip(contexts, rows, strict=True)}
            advantages.append([next(by_context[r.context]) for r in group])
        return learn(self.lab, groups, self.config.slow, advantages=advantages)
