"""fst-single: fst with a population of one prompt. Isolates the worth of a population: several prompts in one group, and a Pareto front."""

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from fst_bench.method import Lab, Method, MethodConfig

from .fst import FST


class FSTSingle(FST):
    """K is this method's own. With fst's K it is fst."""

    name = "fst-single"

    class Settings(Method.Settings):
        population_size: Annotated[int, Field(ge=1)] = 1

    def __init__(self, lab: Lab, config: MethodConfig):
        super().__init__(
            lab,
            replace(config, fast=config.fast.model_copy(update={"population_size": config.settings.population_size})),
        )
