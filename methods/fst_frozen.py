"""fst-frozen: GEPA once, then RL under the prompts it gave.

It isolates the interleaving in time: prompts that follow the policy, and the stream.
"""

from typing import Annotated, Any

from pydantic import Field

from fst_bench.method import Method

from .fst import FST


class FSTFrozen(FST):
    """The first `rounds` rounds of evolution, and no more. With as many rounds as cycles it is fst."""

    name = "fst-frozen"

    class Settings(Method.Settings):
        rounds: Annotated[int, Field(ge=1)] = 1

    def fast(self) -> dict[str, Any]:
        return super().fast() if self.steps < self.config.settings.rounds * self.config.fast.cycle else {}
