"""starter: RL under one of a few prompts, which a small bandit chooses.

The contract of a method is its base class's docstring: python -m pydoc fst_bench.method.lab.Method
"""

from typing import Annotated, Any

from pydantic import Field

from fst_bench.core.types import ProblemHandle, RolloutRequest
from fst_bench.method.lab import Lab
from fst_bench.method.method import Method
from fst_bench.method.settings import MethodConfig
from fst_bench.slow import learn


class Starter(Method):
    """Each step: one prompt, G rollouts of every problem under it, one CISPO update. Answers under the prompt with the best mean reward."""

    name = "starter"  # of the run directories, and in tables
    trains = True  # it updates the weights; with evolves = False this is for `run --dry-run`

    class Settings(Method.Settings):
        explore: Annotated[float, Field(ge=0, le=1)] = 0.2
        """Chance that a step takes any prompt instead of the best."""
        prompts: list[str] = [
            "Put the final answer inside \\boxed{}.",
            "Work step by step. Put the final answer inside \\boxed{}.",
        ]
        """What there is to choose from, besides the seed prompt."""

    def __init__(self, lab: Lab, config: MethodConfig):
        super().__init__(lab, config)
        self.prompts = [config.seed_prompt, *config.settings.prompts]
        self.steps = [0] * len(self.prompts)
        """How often each prompt was taken, and the sum of its mean rewards."""
        self.rewards = [0.0] * len(self.prompts)

    def step(self, batch: list[ProblemHandle]) -> dict[str, Any]:
        rng = self.lab.random("choose")  # the same numbers again after a resume
        chosen = rng.randrange(len(self.prompts)) if rng.random() < self.config.settings.explore else self.best()

        attempts = [RolloutRequest(problem, self.prompts[chosen], self.config.slow.group_size) for problem in batch]
        groups = self.lab.sample(
            attempts, "train"
        )  # charged to the ledger under this purpose; one list of rollouts for each attempt
        facts = learn(self.lab, groups, self.config.slow)  # advantages within each group, then the update

        self.steps[chosen] += 1
        self.rewards[chosen] += facts["reward"]
        return facts | {"prompt": chosen}  # shown in the run's events

    def best(self) -> int:
        means = [
            reward / steps if steps else 1.0 for reward, steps in zip(self.rewards, self.steps, strict=True)
        ]  # hopeful where untried
        return means.index(max(means))

    def context_for(self, prompt: str) -> str:
        return self.prompts[self.best()]

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "rewards": self.rewards}

    def load(self, state: dict[str, Any]) -> None:
        self.steps, self.rewards = list(state["steps"]), list(state["rewards"])
