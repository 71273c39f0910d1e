"""fst: Fast-Slow Training. Prompts evolve by GEPA, weights learn by CISPO under them, interleaved.

A cycle is T steps. At its start the coming T batches are looked at ahead; GEPA runs on them with the CURRENT policy
and gives K prompts. Then T RL steps on those same batches, prompts fixed: the G rollouts of a problem are spread
over the K prompts, and the advantage is normalised once per problem over the whole group.
"""

from typing import Any

from fst_bench.fast.evolve import evolve
from fst_bench.lab import Attempt, Handle, Lab, Method, MethodConfig
from fst_bench.slow import learn


def spread(group: int, prompts: int, offset: int) -> list[int]:
    """How many of a group's rollouts each prompt gets: round-robin from `offset`; K need not divide G."""
    counts = [0] * prompts
    for i in range(group):
        counts[(offset + i) % prompts] += 1
    return counts


class FST(Method):
    """The paper's method: one population, no archive, no routing. Answers under the best prompt by anchor score."""

    name = "fst"
    trains = True
    evolves = True

    def __init__(self, lab: Lab, config: MethodConfig):
        super().__init__(lab, config)
        self.steps = 0
        self.prompts = [config.seed_prompt]
        """The fast weights, best first."""

    def step(self, batch: list[Handle]) -> dict[str, Any]:
        facts: dict[str, Any] = {}

        # fast: a new population from the coming cycle's problems
        if self.steps % self.config.fast.cycle == 0:
            lookahead = [problem for ahead in self.lab.peek(self.config.fast.cycle) for problem in ahead]
            population = evolve(self.lab, self.prompts, lookahead, self.config.fast)
            self.prompts = [scored.prompt for scored in population]
            facts = {"anchor_score": population[0].mean}
        self.steps += 1

        # slow: one RL step under the population
        offset = self.lab.random("spread").randrange(len(self.prompts))
        shares = [spread(self.config.slow.group, len(self.prompts), offset + i) for i in range(len(batch))]
        attempts = [
            Attempt(problem, prompt, n)
            for problem, share in zip(batch, shares, strict=True)
            for prompt, n in zip(self.prompts, share, strict=True)
            if n
        ]
        rollouts = self.lab.sample(attempts, "train")
        groups: dict[int, list] = {problem.index: [] for problem in batch}
        for attempt, answers in zip(attempts, rollouts, strict=True):
            groups[attempt.problem.index] += answers
        return facts | learn(self.lab, list(groups.values()), self.config.slow)

    def context_for(self, prompt: str) -> str:
        return self.prompts[0]

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "prompts": self.prompts}

    def load(self, state: dict[str, Any]) -> None:
        self.steps, self.prompts = state["steps"], list(state["prompts"])
