"""fst-reuse: reflections read the slow loop's rollouts, so that the fast loop samples fewer of its own.

An open direction of FST's authors. It isolates what fresh rollouts are worth to reflection: reused ones cost nothing,
but are of an older policy and of the last cycle's problems. Where a proposal is compared with its parent on a
minibatch, the parent's side is old too.
"""

from typing import Any

from fst_bench.fast import evolve
from fst_bench.fast.gepa_adapter import reflection_example
from fst_bench.method import Lab, Method, MethodConfig, ReflectionExample, Rollout

from .fst import FST


class FSTReuse(FST):
    """Candidates are still scored on fresh rollouts of the lookahead's valset. Without reuse it is fst."""

    name = "fst-reuse"

    class Settings(Method.Settings):
        reuse: bool = True

    def __init__(self, lab: Lab, config: MethodConfig):
        super().__init__(lab, config)
        self.examples: list[ReflectionExample] = []
        """Rollouts of the last cycle's slow loop, or of this one's so far."""

    def fast(self) -> dict[str, Any]:
        population = evolve(self.lab, self.prompts, self.lookahead(), self.config.fast, self.examples)
        self.prompts = [candidate.prompt for candidate in population]
        self.examples = []
        return {"valset_score": population[0].mean}

    def slow(self, groups: list[list[Rollout]]) -> dict[str, Any]:
        if self.config.settings.reuse:
            first = {(r.problem.index, r.context): r for group in groups for r in reversed(group)}
            self.examples += [reflection_example(first[key]) for key in sorted(first)]
        return super().slow(groups)

    def state(self) -> dict[str, Any]:
        return super().state() | {"examples": [example.to_json() for example in self.examples]}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.examples = [ReflectionExample.from_json(values) for values in state["examples"]]
