"""The choice of the problems that score a candidate, and of the candidates that stay."""

import random
from collections.abc import Sequence

from fst_bench.core.types import Candidate, ProblemHandle
from fst_bench.method.settings import FastSettings


def split(
    lookahead: Sequence[ProblemHandle], settings: FastSettings, rng: random.Random
) -> tuple[list[ProblemHandle], list[ProblemHandle]]:
    """Return (valset, trainset), as gepa calls them: problems that score candidates, and problems for reflections.

    They are disjoint where the lookahead is large enough for both.
    """
    shuffled = rng.sample(list(lookahead), len(lookahead))
    valset, rest = shuffled[: settings.valset_size], shuffled[settings.valset_size :]
    return valset, rest if len(rest) >= settings.reflection_minibatch_size else shuffled


def select(candidates: Sequence[Candidate], k: int) -> list[Candidate]:
    """Return K candidates, best first: the best by mean, then those that cover most validation problems, then by mean.

    A candidate wins a problem where it has the highest score of all, and that score is above zero (the per-instance
    Pareto front of GEPA, arXiv 2507.19457). Each pick is the candidate that adds most problems not yet won by a pick.
    Ties go to the higher mean, then to the earlier candidate.
    """
    order = sorted(range(len(candidates)), key=lambda i: (-candidates[i].mean, i))
    top = [max(column) for column in zip(*(c.scores for c in candidates), strict=True)]
    wins = {i: {p for p, s in enumerate(candidates[i].scores) if s == top[p] > 0} for i in order}
    chosen, covered = order[:1], set(wins[order[0]])
    while len(chosen) < min(k, len(order)):
        pick = max((i for i in order if i not in chosen), key=lambda i: (len(wins[i] - covered), -order.index(i)))
        chosen.append(pick)
        covered |= wins[pick]
    return [candidates[i] for i in sorted(chosen, key=order.index)]


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the first candidate of each text: a survivor's new scores come before gepa's copy of it."""
    first: dict[str, Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.prompt, candidate)
    return list(first.values())
