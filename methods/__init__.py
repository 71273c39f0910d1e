"""The methods: one file each, read top to bottom like the algorithm it is. `fst` is the paper's; those below it are its ablations."""

from fst_bench.lab import Method
from fst_bench.plugins import Shelf

from .base import Base
from .fst import FST
from .fst_archive import FSTArchive
from .fst_distill import FSTDistill
from .fst_drop import FSTDrop
from .fst_frozen import FSTFrozen
from .fst_no_lookahead import FSTNoLookahead
from .fst_prompt_advantage import FSTPromptAdvantage
from .fst_random import FSTRandom
from .fst_reuse import FSTReuse
from .fst_single import FSTSingle
from .gepa import GEPA
from .gepa_archive import GEPAArchive
from .gepa_matched import GEPAMatched
from .phases import GEPAThenRL, RLThenGEPA
from .rl import RL
from .rl_grpo import RLGRPO
from .rl_kl import RLKL
from .rl_replay import RLReplay

ALL: tuple[type[Method], ...] = (
    Base, RL, GEPA, FST,
    RLGRPO, RLKL, RLReplay, GEPAMatched, GEPAArchive, GEPAThenRL, RLThenGEPA,
    FSTSingle, FSTFrozen, FSTNoLookahead, FSTPromptAdvantage, FSTRandom, FSTDrop, FSTArchive, FSTReuse, FSTDistill,
)  # fmt: skip
METHODS: dict[str, type[Method]] = {method.name: method for method in ALL}
"""The shipped ones."""


def unsound(method: type[Method]) -> str | None:
    if not issubclass(method.Settings, Method.Settings):
        return f"{method.__name__}.Settings has to be a class over Method.Settings, which knows typing errors"
    return None


SHELF: Shelf[Method] = Shelf("method", Method, METHODS, unsound)
find_method = SHELF.find
