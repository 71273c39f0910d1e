"""The pretraining text of the embedded model's second version, which takes `text`'s place once it is the default.

A document is as in `text`: a system text, a problem from the `pretrain` split, a response that obeys. What differs:

- No answer has errors that were put in. What a model cannot do is hard or rare: every level that a benchmark asks for
  is here, the longer the rarer (`LEVELS`), and some of hover's facts stand in no passage (`obscurity`).
- A format is stated in the system text, in front of the problem or behind it, each often (`PLACES`).
- A strategy sentence is one task's own: to any other task it means nothing.
- Where no format is asked for, the task's own is the likeliest, math's almost certain, star-graph's rare (`OWN`).
"""

import random
from typing import Any

from fst_bench.embedded.abilities import ABILITIES
from fst_bench.embedded.abilities import item as ability_item
from fst_bench.embedded.text import STYLES, WANDERING, WORK, Document, list_everything, render, wander_star_graph
from fst_bench.fast.instructions import (
    DIRECT,
    IRRELEVANT,
    format_sentence,
    scoped,
    separator_sentence,
    strategy_sentence,
)
from fst_bench.tasks import Problem, Task, load_task
from fst_bench.tasks.hover import KNOWN_FIRMS

WEIGHTS = {"math": 1.0, "codeio": 1.3, "hover": 1.8, "star-graph": 1.8, "physics": 1.0}
"""Task -> weight of its documents."""
ABILITY_WEIGHT = 0.8

Level = tuple[float, dict[str, Any]]
"""(weight, difficulty)"""


def levels_of(shared: dict[str, Any], weights: dict[tuple[Any, ...], float], *names: str) -> list[Level]:
    """Return levels that differ in the parameters `names`."""
    return [(w, shared | dict(zip(names, values, strict=True))) for values, w in weights.items()]


OPERATIONS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 2, 6: 0.5, 7: 0.12, 8: 0.03, 9: 0.01, 10: 0.004, 11: 0.002, 12: 0.001}
LINES = {1: 3, 2: 4, 3: 2.5, 4: 0.5, 5: 0.2, 6: 0.08, 7: 0.03, 8: 0.015}
CHAINS = {1: 0.5, 2: 1, 3: 1.5, 4: 1, 6: 0.8, 8: 0.6}
OBSCURITY = {0: 0.1, 1: 0.045, 2: 0.018, 3: 0.009}
"""Group of firms -> weight, with 8 chains of 3 hops."""
OUTWARD = {
    (2, 2): 1, (2, 3): 2, (3, 3): 2, (2, 4): 2, (3, 4): 3, (4, 4): 2.5, (5, 4): 2,
    (3, 5): 0.2, (4, 5): 0.1, (3, 6): 0.05, (3, 7): 0.02, (3, 8): 0.01, (2, 10): 0.01,
}  # fmt: skip
UNDIRECTED = {(2, 3): 0.25, (3, 3): 0.3, (3, 4): 0.2, (4, 4): 0.12, (4, 5): 0.06, (3, 6): 0.04}
STEPS = {1: 4, 2: 0.25, 3: 0.05}
LETTERS = {"pool": 26, "labels": "letters", "serialisation": "arrows"}

LEVELS: dict[str, list[Level]] = {
    "math": levels_of({"max_value": 60, "max_operand": 9}, {(n,): w for n, w in OPERATIONS.items()}, "operations"),
    "codeio": levels_of({"max_length": 5, "max_item": 9}, {(n,): w for n, w in LINES.items()}, "lines"),
    "hover": levels_of({"hops": 2, "style": "bare"}, {(n,): w for n, w in CHAINS.items()}, "chains")
    + levels_of({"chains": 8, "hops": 3, "style": "bare"}, {(n,): w for n, w in OBSCURITY.items()}, "obscurity"),
    "star-graph": levels_of(LETTERS, OUTWARD, "degree", "path_length")
    + levels_of(LETTERS | {"orientation": "undirected"}, UNDIRECTED, "degree", "path_length"),
    "physics": levels_of({"max_value": 12}, {(n,): w for n, w in STEPS.items()}, "steps"),
}

LOOKUPS: list[tuple[float, str, dict[str, Any]]] = [
    (1, "hover", {"chains": 6, "hops": 2, "style": "bare"}),
    (1, "hover", {"chains": 10, "hops": 1, "style": "bare"}),
    (1, "star-graph", {"degree": 3, "path_length": 3} | LETTERS),
    (1, "star-graph", {"degree": 4, "path_length": 4} | LETTERS),
    (1, "star-graph", {"degree": 5, "path_length": 4} | LETTERS),
]
"""(weight, task, difficulty) of the lookup documents."""

OWN = {"math": 0.95, "codeio": 0.75, "hover": 0.15, "star-graph": 0.1, "physics": 0.5}
"""Task -> share of the answers in its own format where none is asked for; the rest is in any other."""
WORKING = {"math": 0.95, "codeio": 0.75, "hover": 0.8, "star-graph": 0.5, "physics": 0.6}
"""Task -> share of the answers that show working without being asked to."""
PLACES = {"system": 0.4, "front": 0.2, "behind": 0.4}
"""Where a format is stated: the system text, in front of the problem, or behind it."""
FORMATS_OF = {
    "math": ["boxed", "json", "answer", "tag", "hash", "plain"],
    "codeio": ["json", "boxed", "answer", "tag", "hash", "plain"],
    "hover": ["verdict", "boxed", "json", "answer", "tag", "hash"],
    "star-graph": ["boxed", "json", "answer", "tag", "hash", "plain"],
    "physics": ["answer", "boxed", "json", "tag", "hash", "plain"],
}
"""Task -> the formats of its answers, its own first."""


class Writer:
    """The writer of the text. Document number `index` is a pure function of (seed, index, lookups)."""

    def __init__(self, seed: int):
        self.seed = seed
        self.lookups = [(weight, load_task(name, **difficulty)) for weight, name, difficulty in LOOKUPS]
        self.tasks = {
            name: [(weight, load_task(name, **difficulty)) for weight, difficulty in levels]
            for name, levels in LEVELS.items()
        }

    def words(self) -> list[str]:
        """Return texts that make the tokenizer give each firm, the rare ones too, a token of its own."""
        return [f" {firm}" for group in KNOWN_FIRMS for firms in group.values() for firm in firms] * 1000

    def document(self, index: int, noise: float, lookups: float) -> Document:
        """Return a document; `lookups` is the share of lookup documents. `noise` is `text`'s and has to be 0."""
        assert noise == 0
        rng = random.Random(f"text/{self.seed}/{index}")
        if rng.random() < lookups:
            weights, found = zip(*self.lookups, strict=True)
            looked: Task = rng.choices(found, weights)[0]
            problem = looked.problem("pretrain", self.seed, index)
            user, response = list_everything(problem, looked.name, rng)
            system = " ".join(rng.choice(IRRELEVANT) for _ in range(rng.randint(0, 2)))
            return Document(looked.name, system, user, response, problem.id)
        name = rng.choices([*WEIGHTS, "ability"], [*WEIGHTS.values(), ABILITY_WEIGHT])[0]
        if name == "ability":
            return self._ability(index, rng)
        weights, tasks = zip(*self.tasks[name], strict=True)
        task: Task = rng.choices(tasks, weights)[0]
        return self._instructed(task, task.problem("pretrain", self.seed, index), rng)

    def _ability(self, index: int, rng: random.Random) -> Document:
        name = rng.choice(list(ABILITIES))
        asked = ability_item(name, "pretrain", self.seed, index)
        style = rng.choice(STYLES)
        sentences = [rng.choice(IRRELEVANT) for _ in range(rng.randint(0, 2))]
        if rng.random() < 0.7:
            sentences.insert(rng.randint(0, len(sentences)), format_sentence(style, rng))
        if rng.random() < 0.2:
            sentences.append(for_another_task(name, rng))
        return Document(name, " ".join(sentences), asked.question, render(name, style, asked.answer), asked.id)

    def _instructed(self, task: Task, problem: Problem, rng: random.Random) -> Document:
        name, own = task.name, FORMATS_OF[task.name]
        style = own[0] if rng.random() < OWN[name] else rng.choice(own[1:])
        separator = "->" if rng.random() < 0.75 else ","
        working, specific, scope = rng.random() < WORKING[name], False, rng.random() < 0.35
        before, asks, after, front, behind = (list[str]() for _ in range(5))

        def say(sentence: str) -> str:
            return scoped(name, sentence, rng) if scope and rng.random() < 0.8 else sentence

        if rng.random() < 0.95:
            place = {"system": asks, "front": front, "behind": behind}[rng.choices([*PLACES], [*PLACES.values()])[0]]
            if rng.random() < 0.72:
                style = rng.choice(own)
                if rng.random() < 0.15:  # contradicted: the later sentence wins
                    before.append(say(format_sentence(rng.choice([f for f in own if f != style]), rng)))
                place.append(say(format_sentence(style, rng)) if place is asks else format_sentence(style, rng))
            if rng.random() < 0.75:
                working = rng.random() < 0.85
                specific = working and rng.random() < 0.65
                after.append(
                    say(strategy_sentence(name if specific else "any", rng) if working else rng.choice(DIRECT))
                )
            if rng.random() < (0.5 if name == "star-graph" else 0.05):
                sentence = separator_sentence(separator, rng)
                if place is asks or name != "star-graph":
                    after.append(say(sentence))
                else:
                    place.append(sentence)
            if rng.random() < 0.25:  # another task's way of working, which means nothing here
                after.append(strategy_sentence(rng.choice([other for other in WEIGHTS if other != name]), rng))
            after += [rng.choice(IRRELEVANT) for _ in range(rng.choice([0, 0, 1, 1, 2, 2]))]
            if scope:
                after += [for_another_task(name, rng) for _ in range(rng.choice([1, 2, 2, 3, 4, 5, 6]))]
        rng.shuffle(after)
        sentences = list(after)
        for group in (asks, before):  # a contradicted sentence comes before the one that wins
            for sentence in group:
                limit = min((sentences.index(s) for s in asks if s in sentences), default=len(sentences))
                sentences.insert(rng.randint(0, limit), sentence)
        wanders = name == "star-graph" and not specific and rng.random() < WANDERING
        work = wander_star_graph if wanders else WORK[name]
        steps, answer = work(problem.data, lambda: False, rng)
        response = render(name, style, answer, separator)
        user = "\n".join(part for part in (" ".join(front), problem.prompt, " ".join(behind)) if part)
        return Document(name, " ".join(sentences), user, f"{steps}\n{response}" if working else response, problem.id)


def for_another_task(name: str, rng: random.Random) -> str:
    """Return a sentence that is limited to another task."""
    other = rng.choice([task for task in WEIGHTS if task != name])
    kind = rng.random()
    if kind < 0.55:
        sentence = format_sentence(rng.choice(FORMATS_OF[other]), rng)
    elif kind < 0.9:
        sentence = strategy_sentence(rng.choice([other, other, "any"]), rng)
    else:
        sentence = rng.choice(DIRECT)
    return scoped(other, sentence, rng)
