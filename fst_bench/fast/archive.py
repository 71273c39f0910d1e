"""An archive of populations, each for problems of similar wording, as `fst-archive` and `gepa-archive` keep it.

A problem is routed by its words alone: by the cosine between its word counts and those that an entry has seen so far.
The archive does not know the tasks; it may split one or join two.
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
    """Return the counts of a text's words of two letters or more."""
    return Counter(re.findall(r"[^\W\d_]{2,}", text.lower()))


def cosine(a: Counter[str], b: Counter[str]) -> float:
    """Return the cosine of two word counts, in [0, 1]; 0 where one has no words."""
    product = math.sqrt(sum(n * n for n in a.values()) * sum(n * n for n in b.values()))
    return sum(n * b[word] for word, n in a.items()) / product if product else 0.0


@dataclass
class Entry:
    """A population, best first, and the words of the problems it is for."""

    prompts: list[str]
    words: Counter[str] = field(default_factory=Counter)


class Archive:
    """Entries in the order they were opened.

    A text belongs to the nearest entry, where their cosine is at least `threshold`; with 0 one entry holds everything.
    """

    def __init__(self, seed_prompt: str, threshold: float):
        self.seed_prompt, self.threshold = seed_prompt, threshold
        self.entries: list[Entry] = []

    def prompts_for(self, text: str) -> list[str]:
        """Return the nearest entry's prompts, or the seed prompt where no entry is near enough."""
        entry = self.nearest(words(text))
        return entry.prompts if entry else [self.seed_prompt]

    def nearest(self, counts: Counter[str]) -> Entry | None:
        """Return the entry with the highest cosine to the word counts, or None where that is below the threshold."""
        best = max(self.entries, key=lambda entry: cosine(counts, entry.words), default=None)
        return best if best and cosine(counts, best.words) >= self.threshold else None

    def place(self, problems: Sequence[ProblemHandle]) -> list[list[ProblemHandle]]:
        """Return each entry's share of the problems, and add their words to it.

        A problem that no entry is near to opens a new one; entries that are near each other are then joined.
        """
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
        """Join entries that are near each other; the older one's prompts stay.

        The first few texts of a new wording may have opened an entry each.
        """
        kept: list[Entry] = []
        for entry in self.entries:
            near = next((older for older in kept if cosine(older.words, entry.words) >= self.threshold), None)
            if near is None:
                kept.append(entry)
            else:
                near.words += entry.words
        self.entries = kept

    def evolve(self, lab: Lab, lookahead: Sequence[ProblemHandle], settings: FastSettings) -> dict[str, Any]:
        """Evolve the entries, each with a part of max_metric_calls in proportion to its share of the coming problems.

        An entry whose part is not enough for a round is left as it is. Return the metrics.
        """
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
        """Return the entries as JSON values."""
        return [{"prompts": entry.prompts, "words": dict(entry.words)} for entry in self.entries]

    def load(self, state: list[dict[str, Any]]) -> None:
        """Restore what `state` returned."""
        self.entries = [Entry(list(values["prompts"]), Counter(values["words"])) for values in state]
