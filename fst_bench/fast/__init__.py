"""The fast loop: a population of prompts, evolved by gepa with the current policy and a reflector."""

from fst_bench.fast.evolve import evolve

__all__ = ["evolve"]
