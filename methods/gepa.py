"""gepa: the fast loop alone. Prompts evolve every cycle; the weights never change."""

from typing import Any

from fst_bench.fast import evolve
from fst_bench.method import FastSettings, Lab, Method, MethodConfig, ProblemHandle


class GEPA(Method):
    """Every T steps: a round of GEPA on the coming T batches. Answers under the best prompt by validation score."""

    name = "gepa"
    evolves = True

    def __init__(self, lab: Lab, config: MethodConfig):
        super().__init__(lab, config)
        self.steps = 0
        self.prompts = [config.seed_prompt]
        """The population, best first."""

    def step(self, batch: list[ProblemHandle]) -> dict[str, Any]:
        metrics = self.fast() if self.steps % self.config.fast.cycle == 0 else {}
        self.steps += 1
        return metrics

    def fast(self) -> dict[str, Any]:
        """Evolve a new population on the coming cycle's problems."""
        lookahead = self.lookahead()
        population = evolve(self.lab, self.prompts, lookahead, self.round_settings(lookahead))
        self.prompts = [candidate.prompt for candidate in population]
        return {"valset_score": population[0].mean}

    def lookahead(self) -> list[ProblemHandle]:
        """Return the problems of the coming cycle."""
        return [problem for batch in self.lab.peek(self.config.fast.cycle) for problem in batch]

    def round_settings(self, lookahead: list[ProblemHandle]) -> FastSettings:
        """Return the settings of one round: here the same for all."""
        return self.config.fast

    def context_for(self, prompt: str) -> str:
        return self.prompts[0]

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "prompts": self.prompts}

    def load(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.prompts = list(state["prompts"])
