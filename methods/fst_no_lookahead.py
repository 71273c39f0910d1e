"""fst-no-lookahead: prompts evolve on the last cycle's problems, not the coming one's.

It isolates what looking ahead is worth, most of all at a switch of tasks.
"""

from dataclasses import astuple
from typing import Any

from fst_bench.method import Lab, Method, MethodConfig, ProblemHandle

from .fst import FST


class FSTNoLookahead(FST):
    """The first cycle has seen nothing and keeps the seed prompt. With lookahead it is fst."""

    name = "fst-no-lookahead"

    class Settings(Method.Settings):
        lookahead: bool = False

    def __init__(self, lab: Lab, config: MethodConfig):
        super().__init__(lab, config)
        self.past: list[ProblemHandle] = []
        """The problems of the last cycle, and of this one so far."""

    def step(self, batch: list[ProblemHandle]) -> dict[str, Any]:
        metrics = super().step(batch)
        self.past = [*self.past, *batch][-self.config.fast.cycle * len(batch) :]
        return metrics

    def fast(self) -> dict[str, Any]:
        return super().fast() if self.past or self.config.settings.lookahead else {}

    def lookahead(self) -> list[ProblemHandle]:
        return super().lookahead() if self.config.settings.lookahead else self.past

    def state(self) -> dict[str, Any]:
        return super().state() | {"past": [list(astuple(problem)) for problem in self.past]}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.past = [ProblemHandle(*values) for values in state["past"]]
