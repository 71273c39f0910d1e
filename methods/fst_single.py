"""fst-single: fst with a population of one prompt.

It isolates the worth of a population: several prompts in one group, and a Pareto front.
"""

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from fst_bench.method import Lab, Method, MethodConfig

from .fst import FST


class FSTSingle(FST):
    """A population of its own size K. With fst's K it is fst."""

    name = "fst-single"

    class Settings(Method.Settings):
        population_size: Annotated[int, Field(ge=1)] = 1

    def __init__(self, lab: Lab, config: MethodConfig):
        fast = config.fast.model_copy(update={"population_size": config.settings.population_size})
        super().__init__(lab, replace(config, fast=fast))
