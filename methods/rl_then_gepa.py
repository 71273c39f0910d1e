"""rl-then-gepa: the two channels in phases, weights first. Isolates the order of gepa-then-rl."""

from .gepa_then_rl import GEPAThenRL


class RLThenGEPA(GEPAThenRL):
    """As gepa-then-rl, its phases in the other order."""

    name = "rl-then-gepa"
    prompts_first = False
