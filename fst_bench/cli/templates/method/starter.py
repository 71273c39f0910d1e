"""starter: RL under one of a few prompts, which a small bandit chooses.

The contract of a method is its base class's docstring: python -m pydoc fst_bench.method.Method
"""

from typing import Annotated, Any

from fst_bench.method import Lab, Method, MethodConfig, ProblemHandle, RolloutRequest
from fst_bench.slow import learn
from pydantic import Field


class Starter(Method):
    """Each step: one prompt, `group_size` rollouts of every problem under it, one update.

    It answers under the prompt with the best mean reward.
    """

    name = "starter"  # of the run directories, and in tables
    trains = True  # it updates the weights; with evolves = False this is for `run --dry-run`

    class Settings(Method.Settings):
        explore: Annotated[float, Field(ge=0, le=1)] = 0.2
        """Chance that a step takes any prompt instead of the best."""
        prompts: list[str] = [
            "Put the final answer inside \\boxed{}.",
            "Work step by step. Put the final answer inside \\boxed{}.",
        ]
        """The prompts to choose from, besides the seed prompt."""

    def __init__(self, lab: Lab, config: MethodConfig):
        super().__init__(lab, config)
        self.prompts = [config.seed_prompt, *config.settings.prompts]
        self.steps = [0] * len(self.prompts)
        """How often each prompt was taken."""
        self.rewards = [0.0] * len(self.prompts)
        """The sum of its mean rewards."""

    def step(self, batch: list[ProblemHandle]) -> dict[str, Any]:
        rng = self.lab.random("choose")  # the same numbers again after a resume
        chosen = rng.randrange(len(self.prompts)) if rng.random() < self.config.settings.explore else self.best()

        requests = [RolloutRequest(problem, self.prompts[chosen], self.config.slow.group_size) for problem in batch]
        # one list of rollouts for each request, charged to the ledger under this purpose
        groups = self.lab.sample(requests, "train")
        metrics = learn(self.lab, groups, self.config.slow)  # advantages within each group, then the update

        self.steps[chosen] += 1
        self.rewards[chosen] += metrics["reward"]
        return metrics | {"prompt": chosen}  # columns of the step in the run's events

    def best(self) -> int:
        """Return the index of the prompt with the best mean reward; an untried one counts as 1.0."""
        means = [reward / steps if steps else 1.0 for reward, steps in zip(self.rewards, self.steps, strict=True)]
        return means.index(max(means))

    def context_for(self, prompt: str) -> str:
        return self.prompts[self.best()]

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "rewards": self.rewards}

    def load(self, state: dict[str, Any]) -> None:
        self.steps, self.rewards = list(state["steps"]), list(state["rewards"])
