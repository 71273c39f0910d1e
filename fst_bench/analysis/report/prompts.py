"""Changes of the best prompt from cycle to cycle, sentence by sentence and word by word."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from fst_bench.harness.rows import PopulationRow, Prompt

WORDS = re.compile(r"\s+|\S+")
SENTENCES = re.compile(r"\s+|\S.*?(?:[.!?:](?=\s)|(?=\n)|\Z)", re.DOTALL)
LONGEST = 10_000
"""Characters of two prompts that are compared; the comparison is quadratic at worst."""


@dataclass(frozen=True)
class Cycle:
    """A round of prompt evolution, as a page shows it."""

    row: PopulationRow
    task: str
    """The tasks of its stage, as they are shown."""
    best: Prompt
    changes: list[tuple[str, str]]
    """Changes to the best prompt of the round before, at first to the seed prompt (see `changes`)."""
    others: Sequence[Prompt]


def cycles(rows: Sequence[PopulationRow], seed_prompt: str | None, task_of: dict[int, str]) -> list[Cycle]:
    """Return a cycle for each population; `task_of` is stage -> how its tasks are shown."""
    found = []
    before = seed_prompt or ""
    for row in rows:
        best, *others = row.population
        task = task_of.get(row.stage or 0, "")
        found.append(Cycle(row, task, best, changes(before, best.prompt), others))
        before = best.prompt
    return found


def changes(before: str, after: str) -> list[tuple[str, str]]:
    """Return the change as pieces ("same" | "added" | "removed", text).

    Without the removed ones they are `after`, without the added ones `before`. Sentences are matched first; a passage
    that was reworded is compared word by word if most of its words stayed. Prompts too long to compare (LONGEST) are
    replaced whole.
    """
    if before != after and len(before) + len(after) > LONGEST:
        return [(kind, text) for kind, text in (("removed", before), ("added", after)) if text]
    pieces: list[tuple[str, str]] = []
    for kind, old, new in compare(SENTENCES, before, after):
        reworded = compare(WORDS, old, new) if kind == "replace" else []
        stayed = sum(len(old_words) for word_kind, old_words, _ in reworded if word_kind == "equal")
        for part_kind, part_old, part_new in reworded if 2 * stayed > max(len(old), len(new)) else [(kind, old, new)]:
            if part_kind == "equal":
                pieces.append(("same", part_new))
            else:
                pieces += [(name, text) for name, text in (("removed", part_old), ("added", part_new)) if text]
    return pieces


def compare(units: re.Pattern[str], before: str, after: str) -> list[tuple[str, str, str]]:
    """Return passages (kind, old text, new text) of two texts cut into units, kinds as difflib names them.

    White space alone never aligns two passages.
    """
    old, new = units.findall(before), units.findall(after)
    opcodes = SequenceMatcher(str.isspace, old, new).get_opcodes()
    return [(kind, "".join(old[i:j]), "".join(new[k:m])) for kind, i, j, k, m in opcodes]
