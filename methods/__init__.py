"""The methods: one file each, read top to bottom like the algorithm it is."""

from fst_bench.lab import Method

from .base import Base
from .fst import FST
from .gepa import GEPA
from .rl import RL

METHODS: dict[str, type[Method]] = {method.name: method for method in (Base, RL, GEPA, FST)}
