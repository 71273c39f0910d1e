"""fst-archive: fst with several populations, each for problems of similar wording; a problem is routed by its text.

It isolates retention in the prompts: a single population answers for the last task only. What an archive keeps is due
to the router as much as to learning, so this is another method than fst; gepa-archive has the same archive.
"""

from typing import Annotated, Any

from pydantic import Field

from fst_bench.fast.archive import Archive
from fst_bench.method import Lab, Method, MethodConfig

from .fst import FST


class FSTArchive(FST):
    """With threshold 0 one entry holds all problems, and it is fst."""

    name = "fst-archive"

    class Settings(Method.Settings):
        threshold: Annotated[float, Field(ge=0, le=1)] = 0.3
        """Smallest cosine between the word counts of a problem and of an entry at which the problem is the entry's."""

    def __init__(self, lab: Lab, config: MethodConfig):
        super().__init__(lab, config)
        self.archive = Archive(config.seed_prompt, config.settings.threshold)

    def fast(self) -> dict[str, Any]:
        return self.archive.evolve(self.lab, self.lookahead(), self.config.fast)

    def prompts_for(self, problem: str) -> list[str]:
        return self.archive.prompts_for(problem)

    def state(self) -> dict[str, Any]:
        return super().state() | {"archive": self.archive.state()}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.archive.load(state["archive"])
