"""rl-informed: rl under the best instruction that is known for each task. An oracle: no method is told the tasks.

It bounds what prompts can add to learning in the weights: is fst below rl with every task's prompt known beforehand?
"""

from typing import Any

from fst_bench.method import Method, ProblemHandle, RolloutRequest
from fst_bench.slow import learn


class RLInformed(Method):
    """As `rl`, trained and judged under the prompt of the problem's task, which its text shows. Without prompts: rl."""

    name = "rl-informed"
    trains = True

    class Settings(Method.Settings):
        prompts: dict[str, str] = {}
        """Words that only one task's problems have -> the prompt for these problems; others have the seed prompt."""

    def step(self, batch: list[ProblemHandle]) -> dict[str, Any]:
        group_size = self.config.slow.group_size
        requests = [RolloutRequest(problem, self.context_for(problem.prompt), group_size) for problem in batch]
        groups = self.lab.sample(requests, "train")
        return learn(self.lab, groups, self.config.slow)

    def context_for(self, prompt: str) -> str:
        prompts: dict[str, str] = self.config.settings.prompts
        return next((own for words, own in prompts.items() if words in prompt), self.config.seed_prompt)
