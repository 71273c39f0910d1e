"""Several populations, each for problems of one look: what `fst-archive` and `gepa-archive` keep and route by.

A problem is routed by its words alone: by the cosine between its word counts and what an entry has seen so far. Nobody tells the archive
what the tasks are; it may split one or join two.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fst_bench.core.types import ProblemHandle
from fst_bench.fast.evolve import evolve
from fst_bench.method.lab import Lab
from fst_bench.method.settings import FastSettings


def words(text: str) -> Counter[str]:
    """Counts of its words of two letters or more."""
    return Counter(re.findall(r"[^\W\d_]{2,}", text.lower()))


def cosine(a: Counter[str], b: Counter[str]) -> float:
    """In [0, 1]; 0 where one has no words."""
    product = math.sqrt(sum(n * n for n in a.values()) * sum(n * n for n in b.values()))
    return sum(n * b[word] for word, n in a.items()) / product if product else 0.0


@dataclass
class Entry:
    """A population, best first, and the words of the problems it is for."""

    prompts: list[str]
    words: Counter[str] = field(default_factory=Counter)


class Archive:
    """Entries in the order they were opened. A text is an entry's from a cosine of `threshold` on; with 0 one entry holds everything."""

    def __init__(self, seed_prompt: str, threshold: float):
        self.seed_prompt, self.threshold = seed_prompt, threshold
        self.entries: list[Entry] = []

    def prompts_for(self, text: str) -> list[str]:
        """The nearest entry's prompts, or the seed prompt where nothing is near enough."""
        entry = self.nearest(words(text))
        return entry.prompts if entry else [self.seed_prompt]

    def nearest(self, counts: Counter[str]) -> Entry | None:
        best = max(self.entries, key=lambda entry: cosine(counts, entry.words), default=None)
        return best if best and cosine(counts, best.words) >= self.threshold else None

    def place(self, problems: Sequence[ProblemHandle]) -> list[list[ProblemHandle]]:
        """Each entry's share of the problems, which it learns to know; new entries for what none is near to, then near ones joined."""
        for problem in problems:
            counts = words(problem.prompt)
            if (entry := self.nearest(counts)) is None:
                self.entries.append(entry := Entry([self.seed_prompt]))
            entry.words += counts
        self.join()
        shares: list[list[ProblemHandle]] = [[] for _ in self.entries]
        for problem in problems:
            entry = self.nearest(words(problem.prompt))
            shares[self.entries.index(entry) if entry else 0].append(problem)
        return shares

    def join(self) -> None:
        """Near entries become one, the older one's prompts stay: the first few texts of a new look may have opened an entry each."""
        kept: list[Entry] = []
        for entry in self.entries:
            near = next((k for k in kept if cosine(k.words, entry.words) >= self.threshold), None)
            if near is None:
                kept.append(entry)
            else:
                near.words += entry.words
        self.entries = kept

    def evolve(self, lab: Lab, lookahead: Sequence[ProblemHandle], settings: FastSettings) -> dict[str, Any]:
        """A round for every entry whose part of the budget, by how many of the coming problems it has, is enough for one."""
        metrics: dict[str, Any] = {}
        shares = self.place(lookahead)
        for entry, share in zip(self.entries, shares, strict=True):
            calls = round(settings.max_metric_calls * len(share) / len(lookahead))
            rescoring = min(settings.valset_size, len(share)) * settings.population_size
            if calls < rescoring + 2 * settings.reflection_minibatch_size * settings.proposals:
                continue
            population = evolve(lab, entry.prompts, share, settings.model_copy(update={"max_metric_calls": calls}))
            entry.prompts = [candidate.prompt for candidate in population]
            metrics = {"valset_score": population[0].mean}
        return metrics | {"entries": len(self.entries)}

    def state(self) -> list[dict[str, Any]]:
        return [{"prompts": entry.prompts, "words": dict(entry.words)} for entry in self.entries]

    def load(self, state: list[dict[str, Any]]) -> None:
        self.entries = [Entry(list(values["prompts"]), Counter(values["words"])) for values in state]
