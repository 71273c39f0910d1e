"""fst-reuse: the slow loop's rollouts are the evidence that reflections read, so that the fast loop samples fewer of its own.

An open direction of FST's authors. Isolates what fresh rollouts are worth to reflection: reused ones cost nothing, but are of an
older policy and of the last cycle's problems. Where a proposal is weighed against its parent on a minibatch, the parent's side is old too.
"""

from typing import Any

from fst_bench.fast.evolve import Evidence, evolve
from fst_bench.lab import Lab, Method, MethodConfig, Rollout

from .fst import FST


class FSTReuse(FST):
    """Candidates are still scored on fresh rollouts of the lookahead's anchor set. Without reuse it is fst."""

    name = "fst-reuse"

    class Settings(Method.Settings):
        reuse: bool = True

    def __init__(self, lab: Lab, config: MethodConfig):
        super().__init__(lab, config)
        self.evidence: list[Evidence] = []
        """Of the last cycle's slow loop, or of this one's so far."""

    def fast(self) -> dict[str, Any]:
        population = evolve(self.lab, self.prompts, self.lookahead(), self.config.fast, self.evidence)
        self.prompts, self.evidence = [scored.prompt for scored in population], []
        return {"anchor_score": population[0].mean}

    def slow(self, groups: list[list[Rollout]]) -> dict[str, Any]:
        if self.config.settings.reuse:
            first = {(r.problem.index, r.context): r for group in groups for r in reversed(group)}
            self.evidence += [Evidence.of(first[key]) for key in sorted(first)]
        return super().slow(groups)

    def state(self) -> dict[str, Any]:
        return super().state() | {"evidence": [evidence.to_json() for evidence in self.evidence]}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.evidence = [Evidence.from_json(values) for values in state["evidence"]]
