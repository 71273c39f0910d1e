"""gepa-archive: gepa with the archive and the routing of fst-archive.

It isolates how much of fst-archive is the archive alone.
"""

from typing import Annotated, Any

from pydantic import Field

from fst_bench.fast.archive import Archive
from fst_bench.method import Lab, Method, MethodConfig

from .gepa import GEPA


class GEPAArchive(GEPA):
    """With threshold 0 one entry holds all problems, and it is gepa."""

    name = "gepa-archive"

    class Settings(Method.Settings):
        threshold: Annotated[float, Field(ge=0, le=1)] = 0.3
        """As of fst-archive."""

    def __init__(self, lab: Lab, config: MethodConfig):
        super().__init__(lab, config)
        self.archive = Archive(config.seed_prompt, config.settings.threshold)

    def fast(self) -> dict[str, Any]:
        return self.archive.evolve(self.lab, self.lookahead(), self.config.fast)

    def context_for(self, prompt: str) -> str:
        return self.archive.prompts_for(prompt)[0]

    def state(self) -> dict[str, Any]:
        return super().state() | {"archive": self.archive.state()}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.archive.load(state["archive"])
