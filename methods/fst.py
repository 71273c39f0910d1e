"""fst: Fast-Slow Training (arXiv 2605.12484). Prompts evolve by GEPA, weights learn by CISPO under them, interleaved.

A cycle is T steps. At its start the method looks ahead at the coming T batches; GEPA runs on them with the CURRENT
policy and gives K prompts. Then T RL steps on those same batches, prompts fixed: the G rollouts of a problem are spread
over the K prompts, and the advantage is normalised once per problem over the whole group.
"""

from typing import Any

from fst_bench.fast import evolve
from fst_bench.method import Lab, Method, MethodConfig, ProblemHandle, Rollout, RolloutRequest
from fst_bench.slow import learn


def spread(group_size: int, prompts: int, offset: int) -> list[int]:
    """Return how many of a group's rollouts each prompt gets: round-robin from `offset`; K need not divide G."""
    counts = [0] * prompts
    for i in range(group_size):
        counts[(offset + i) % prompts] += 1
    return counts


class FST(Method):
    """The paper's method: one population, no archive, no routing. Answers under the best prompt by validation score."""

    name = "fst"
    trains = True
    evolves = True

    def __init__(self, lab: Lab, config: MethodConfig):
        super().__init__(lab, config)
        self.steps = 0
        self.prompts = [config.seed_prompt]
        """The fast weights, best first."""

    def step(self, batch: list[ProblemHandle]) -> dict[str, Any]:
        metrics = self.fast() if self.steps % self.config.fast.cycle == 0 else {}
        self.steps += 1
        return metrics | self.slow(self.rollouts(batch))

    def fast(self) -> dict[str, Any]:
        """Evolve a new population on the coming cycle's problems."""
        population = evolve(self.lab, self.prompts, self.lookahead(), self.config.fast)
        self.prompts = [candidate.prompt for candidate in population]
        return {"valset_score": population[0].mean}

    def lookahead(self) -> list[ProblemHandle]:
        """Return the problems of the coming cycle."""
        return [problem for batch in self.lab.peek(self.config.fast.cycle) for problem in batch]

    def rollouts(self, batch: list[ProblemHandle]) -> list[list[Rollout]]:
        """Sample a group for each problem, spread over the population."""
        populations = [self.prompts_for(problem.prompt) for problem in batch]
        offset = self.lab.random("spread").randrange(len(populations[0]))
        requests = []
        for i, (problem, prompts) in enumerate(zip(batch, populations, strict=True)):
            counts = spread(self.config.slow.group_size, len(prompts), offset + i)
            requests += [RolloutRequest(problem, prompt, n) for prompt, n in zip(prompts, counts, strict=True) if n]
        groups: dict[int, list[Rollout]] = {problem.index: [] for problem in batch}
        for request, rollouts in zip(requests, self.lab.sample(requests, "train"), strict=True):
            groups[request.problem.index] += rollouts
        return list(groups.values())

    def slow(self, groups: list[list[Rollout]]) -> dict[str, Any]:
        """Take one RL step on rollouts under the population."""
        return learn(self.lab, groups, self.config.slow)

    def prompts_for(self, problem: str) -> list[str]:
        """Return the prompts that a problem's text is answered under, best first: here the same for all."""
        return self.prompts

    def context_for(self, prompt: str) -> str:
        return self.prompts_for(prompt)[0]

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "prompts": self.prompts}

    def load(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.prompts = list(state["prompts"])
