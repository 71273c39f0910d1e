"""rl: the slow loop alone. Reinforcement learning with verifiable rewards (CISPO) under the seed prompt."""

from typing import Any

from fst_bench.method import Method, ProblemHandle, RolloutRequest
from fst_bench.slow import learn


class RL(Method):
    """Each step: G rollouts of every problem, advantages within each group, one CISPO update."""

    name = "rl"
    trains = True

    def step(self, batch: list[ProblemHandle]) -> dict[str, Any]:
        group_size = self.config.slow.group_size
        requests = [RolloutRequest(problem, self.config.seed_prompt, group_size) for problem in batch]
        groups = self.lab.sample(requests, "train")
        return learn(self.lab, groups, self.config.slow)
