"""gepa-matched: gepa with FST's total number of rollouts.

It isolates the cost: is gepa below FST because it samples less?
"""

from typing import Annotated

from pydantic import Field

from fst_bench.method import FastSettings, Method, MethodConfig, ProblemHandle

from .gepa import GEPA


class GEPAMatched(GEPA):
    """The rollouts that FST's slow loop would sample in the coming cycle are added to the round's max_metric_calls.

    With share 0 it is gepa.
    """

    name = "gepa-matched"

    class Settings(Method.Settings):
        share: Annotated[float, Field(ge=0)] = 1.0

    @classmethod
    def most_rollouts(cls, config: MethodConfig, batch: int) -> tuple[int, int]:
        slow = round(config.settings.share * config.fast.cycle * batch * config.slow.group_size)
        return 0, super().most_rollouts(config, batch)[1] + slow

    def round_settings(self, lookahead: list[ProblemHandle]) -> FastSettings:
        slow = round(self.config.settings.share * len(lookahead) * self.config.slow.group_size)
        return self.config.fast.model_copy(update={"max_metric_calls": self.config.fast.max_metric_calls + slow})
