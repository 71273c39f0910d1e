"""rl-prompted: rl under a prompt that its user states.

It isolates the prompt: is fst above rl because it evolves prompts along with the weights, or would a good one do?
"""

from typing import Any

from fst_bench.method import Method, ProblemHandle, RolloutRequest
from fst_bench.slow import learn


class RLPrompted(Method):
    """As `rl`, trained and judged under `prompt`. Without one it is rl."""

    name = "rl-prompted"
    trains = True

    class Settings(Method.Settings):
        prompt: str | None = None

    @property
    def prompt(self) -> str:
        stated: str | None = self.config.settings.prompt
        return self.config.seed_prompt if stated is None else stated

    def step(self, batch: list[ProblemHandle]) -> dict[str, Any]:
        group_size = self.config.slow.group_size
        requests = [RolloutRequest(problem, self.prompt, group_size) for problem in batch]
        groups = self.lab.sample(requests, "train")
        return learn(self.lab, groups, self.config.slow)

    def context_for(self, prompt: str) -> str:
        return self.prompt
