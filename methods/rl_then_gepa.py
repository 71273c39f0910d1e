"""rl-then-gepa: the two loops in phases, weights first. It isolates the order of gepa-then-rl."""

from .gepa_then_rl import GEPAThenRL


class RLThenGEPA(GEPAThenRL):
    """As gepa-then-rl, with its phases in the other order."""

    name = "rl-then-gepa"
    prompts_first = False
