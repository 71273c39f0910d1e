"""rl-replay: rl that also trains on problems it has seen before, charged like any others.

It isolates how much of forgetting rehearsal repairs.
"""

import math
from dataclasses import astuple
from typing import Annotated, Any

from pydantic import Field

from fst_bench.method import Lab, Method, MethodConfig, ProblemHandle, RolloutRequest
from fst_bench.slow import learn


class RLReplay(Method):
    """As `rl`, on the batch and on `share` as many earlier problems, each sampled again. With share 0 it is rl."""

    name = "rl-replay"
    trains = True

    class Settings(Method.Settings):
        share: Annotated[float, Field(ge=0)] = 0.25
        memory: Annotated[int, Field(ge=1)] = 256
        """Problems remembered: a uniform sample of all seen (reservoir)."""

    def __init__(self, lab: Lab, config: MethodConfig):
        super().__init__(lab, config)
        self.seen = 0
        self.memory: list[ProblemHandle] = []

    @classmethod
    def most_rollouts(cls, config: MethodConfig, batch: int) -> tuple[int, int]:
        return config.slow.group_size + math.ceil(config.slow.group_size * config.settings.share), 0

    def step(self, batch: list[ProblemHandle]) -> dict[str, Any]:
        rng = self.lab.random("replay")
        replayed = rng.sample(self.memory, min(len(self.memory), round(self.config.settings.share * len(batch))))
        group_size = self.config.slow.group_size
        requests = [RolloutRequest(problem, self.config.seed_prompt, group_size) for problem in batch + replayed]
        groups = self.lab.sample(requests, "train")
        for problem in batch:
            self.seen += 1
            if len(self.memory) < self.config.settings.memory:
                self.memory.append(problem)
            elif (place := rng.randrange(self.seen)) < len(self.memory):
                self.memory[place] = problem
        metrics = learn(self.lab, groups, self.config.slow)
        rewards = [r.score.reward for group in groups[: len(batch)] for r in group]
        return metrics | {"reward": sum(rewards) / len(rewards), "replayed": len(replayed)}

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen, "memory": [list(astuple(problem)) for problem in self.memory]}

    def load(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]
        self.memory = [ProblemHandle(*values) for values in state["memory"]]
