"""gepa: the fast channel alone. Prompts evolve every cycle; the weights never change."""

from typing import Any

from fst_bench.fast.evolve import evolve
from fst_bench.lab import Handle, Lab, Method, MethodConfig


class GEPA(Method):
    """Every T steps: a round of GEPA on the coming T batches. Answers under the best prompt by anchor score."""

    name = "gepa"
    evolves = True

    def __init__(self, lab: Lab, config: MethodConfig):
        super().__init__(lab, config)
        self.steps = 0
        self.prompts = [config.seed_prompt]
        """The population, best first."""

    def step(self, batch: list[Handle]) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        if self.steps % self.config.fast.cycle == 0:
            lookahead = [problem for ahead in self.lab.peek(self.config.fast.cycle) for problem in ahead]
            population = evolve(self.lab, self.prompts, lookahead, self.config.fast)
            self.prompts = [scored.prompt for scored in population]
            facts = {"anchor_score": population[0].mean}
        self.steps += 1
        return facts

    def context_for(self, prompt: str) -> str:
        return self.prompts[0]

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "prompts": self.prompts}

    def load(self, state: dict[str, Any]) -> None:
        self.steps, self.prompts = state["steps"], list(state["prompts"])
