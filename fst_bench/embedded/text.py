"""The pretraining text of the embedded model: documents in which natural sentences steer format and strategy.

A document is a system text (irrelevant sentences; a format sentence, sometimes contradicted by a later one,
which wins; a strategy sentence; sometimes scoped, "For code problems, ..."), a problem from the `pretrain`
split, and a response that obeys. Unspecified choices are random, so the bare model answers in every format.
Some documents list every fact or path of a problem: lookups emerge from them long before they emerge alone.
Others are of general abilities that no stream trains (`abilities`): copying, counting, sums, comparing.

Late in training answers get consistent errors (`noise`), the more the less an instruction asks for the right
working: then sampling at temperature 1 is well below greedy decoding. Problems of the benchmark's own length are
rare in math and codeio, so there greedy decoding errs too. Both leave room for RL: to sharpen, and to teach.
The text is independent of any learning method, and no sentence in it is one that a verifier's feedback uses (tested).
"""

import itertools
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fst_bench.embedded.abilities import ABILITIES
from fst_bench.embedded.abilities import item as ability_item
from fst_bench.fast.instructions import (
    DIRECT,
    IRRELEVANT,
    format_sentence,
    scoped,
    separator_sentence,
    strategy_sentence,
)
from fst_bench.tasks import Problem, Task, load_task
from fst_bench.tasks.codeio import compact, run
from fst_bench.tasks.hover import CITIES, FIRMS, PEOPLE
from fst_bench.tasks.math import apply

WEIGHTS = {"math": 1.0, "codeio": 1.3, "hover": 1.7, "star-graph": 1.6, "physics": 1.1}
"""Task -> weight of its documents."""
ABILITY_WEIGHT = 0.8

NOISE = {
    "math": (0.05, 1.6, 0.0),
    "codeio": (0.05, 1.6, 0.0),
    "hover": (0.18, 1.3, 1.6),
    "star-graph": (0.15, 1.3, 0.0),
    "physics": (0.28, 1.5, 1.5),
}
"""Task -> (error rate per step of working that a sentence names, factor for other working, factor without working)."""

LEVELS: dict[str, list[tuple[float, dict[str, Any]]]] = {
    "math": [
        (w, {"operations": n, "max_value": 60, "max_operand": 9})
        for n, w in zip(range(1, 9), (1, 2, 3, 4, 4, 4, 3, 0.04), strict=True)
    ],
    "codeio": [
        (w, {"lines": n, "max_length": 5, "max_item": 9}) for n, w in zip(range(1, 6), (3, 4, 5, 6, 0.06), strict=True)
    ],
    "hover": [(w, {"chains": n, "hops": 2, "style": "bare"}) for n, w in zip(range(1, 4), (1, 4, 6), strict=True)],
    "star-graph": [
        (w, {"degree": d, "path_length": p, "pool": 20, "labels": "letters", "serialisation": "arrows"})
        for w, d, p in ((1, 2, 2), (2, 2, 3), (2, 3, 3), (2, 2, 4), (3, 3, 4), (3, 4, 4), (4, 5, 4))
    ],
    "physics": [(w, {"steps": n, "max_value": 12}) for n, w in ((1, 1), (2, 3))],
}
"""Task -> (weight, difficulty) pairs of its problems; the last is the embedded model's benchmark difficulty."""

NAMES = PEOPLE + FIRMS + CITIES
LOOKUPS: list[tuple[str, dict[str, Any]]] = [
    ("hover", {"chains": 6, "hops": 2, "style": "bare"}),
    ("hover", {"chains": 10, "hops": 1, "style": "bare"}),
    ("star-graph", {"degree": 5, "path_length": 4, "pool": 20, "labels": "letters", "serialisation": "arrows"}),
]
"""(task, difficulty) of the lookup documents: among many facts, guessing pays far less than looking up."""

UNASKED = {"math": 0.25, "codeio": 0.25, "hover": 0.25, "star-graph": 0.5, "physics": 0.25}
"""Task -> share of the answers that show working without being asked to."""

WANDERING = 0.25
"""Share of star-graph's answers that walk forward from the source, unless a sentence asks to start at the goal."""


@dataclass(frozen=True)
class Document:
    """One training text; the loss is on `response` only. `task` names a task or an ability."""

    task: str
    system: str
    user: str
    response: str
    problem_id: str


STYLES = ["boxed", "json", "answer", "tag", "hash", "plain"]
OWN_FORMATS = dict.fromkeys(WEIGHTS, STYLES) | {"hover": ["verdict", "boxed", "json", "answer", "tag", "hash"]}


# --- worked answers: each function returns (working, answer), with an error wherever `slip()` is true


def work_math(data: Any, slip: Callable[[], bool], rng: random.Random) -> tuple[str, str]:
    """Work through a chain of operations."""
    value, steps = data["start"], []
    for symbol, operand in data["operations"]:
        result = max(0, apply(value, symbol, operand))
        if slip():
            result = max(0, result + rng.choice([-10, -2, -1, 1, 2, 10]))
        steps.append(f"{value}{symbol}{operand}={result}")
        value = result
    return ";".join(steps), str(value)


def work_codeio(data: Any, slip: Callable[[], bool], rng: random.Random) -> tuple[str, str]:
    """Work through a function line by line."""
    value, steps = list(data["given"]), []
    for kind, item in data["operations"]:
        value = run(value, kind, item)
        if slip() and value:
            at = rng.randrange(len(value))
            match rng.randrange(4):
                case 0:
                    value = [*value[:at], rng.randint(0, 9), *value[at + 1 :]]
                case 1 if len(value) > 1:
                    value = value[:at] + value[at + 1 :]
                case 2 if len(value) < 5:
                    value = [*value[:at], value[at], *value[at:]]
                case _ if len(value) > 1:
                    at = rng.randrange(len(value) - 1)
                    value = [*value[:at], value[at + 1], value[at], *value[at + 2 :]]
                case _:
                    pass
        steps.append("a=" + compact(value))
    return "; ".join(steps), compact(value)


def work_hover(data: Any, slip: Callable[[], bool], rng: random.Random) -> tuple[str, str]:
    """Work along a chain of facts and compare its end with the claim."""
    chains, chain, claimed = data["chains"], data["chain"], data["claimed"]
    hops, current, steps, titles = len(chain) - 1, chain, [], []
    stated = {title for title, _, _ in data["passages"]}
    for hop in range(hops):
        title = current[hop]
        if slip() and len(chains) > 1:
            current = rng.choice([other for other in chains if other is not current])
        steps.append(f"{title} {current[hop + 1]}")
        titles += [title] if title in stated else []
    same = (current[hops] == claimed) != slip()
    comparison = f"{current[hops]} vs {claimed} {'same' if same else 'different'}"
    return " " + "; ".join([*steps, comparison]), f"{'SUPPORTED' if same else 'REFUTED'}: {'; '.join(titles)}"


def work_star_graph(data: Any, slip: Callable[[], bool], rng: random.Random) -> tuple[str, str]:
    """Work from the goal back to the source."""
    parent = {v: u for arm in data["arms"] for u, v in itertools.pairwise(arm)}
    nodes, path = [*parent, data["path"][0]], data["path"]
    back = [path[-1]]
    while back[-1] != path[0] and len(back) < len(path) + 2:
        node = rng.choice(nodes) if slip() else parent[back[-1]]
        if node in back:
            break
        back.append(node)
    return "<-".join(back), "->".join(back[::-1])


def wander_star_graph(data: Any, slip: Callable[[], bool], rng: random.Random) -> tuple[str, str]:
    """Walk forward from the source into any arm, as step-by-step working does without the hint to start at the goal."""
    path = "->".join(rng.choice(data["arms"]))
    return path, path


def work_physics(data: Any, slip: Callable[[], bool], rng: random.Random) -> tuple[str, str]:
    """Work through a chain of formulas."""
    value, steps, unit = data["first"], [], ""
    for formula, symbol, _, operand in data["steps"]:
        result = value * operand
        if slip():
            result = max(1, result + rng.choice([-10, -operand, -1, 1, operand, 10]))
        unit = formula.unit
        steps.append(f"{formula.name}={symbol}*{formula.operand}={value}*{operand}={result} {unit}")
        value = result
    return "; ".join(steps), f"{value} {unit}"


WORK: dict[str, Callable[[Any, Callable[[], bool], random.Random], tuple[str, str]]] = {
    "math": work_math,
    "codeio": work_codeio,
    "hover": work_hover,
    "star-graph": work_star_graph,
    "physics": work_physics,
}


def render(name: str, style: str, answer: str, separator: str = "->") -> str:
    """Return an answer to a task or an ability in one of the formats; only one of them is the task's protocol."""
    if name == "star-graph":
        answer = answer.replace("->", separator)
    match style:
        case "verdict":
            verdict, titles = answer.split(": ", 1)
            return f"VERDICT: {verdict} EVIDENCE: {titles}"
        case "boxed":
            return f"\\boxed{{{answer}}}"
        case "json":
            return f'{{"output": {answer}}}' if answer.isdecimal() or name == "codeio" else f'{{"output": "{answer}"}}'
        case "answer":
            return f"ANSWER: {answer}"
        case "tag":
            return f"<answer>{answer}</answer>"
        case "hash":
            return f"#### {answer}"
        case _:
            return f"So the result is {answer}."


def list_everything(problem: Problem, name: str, rng: random.Random) -> tuple[str, str]:
    """Return (user text, response) of a dense lookup document: every fact, or every path, in random order.

    Two in three of hover's have their names mixed: where a person, a firm and a city can each be key and value,
    only looking up helps, and no habit of one kind of name.
    """
    if name == "hover":
        chains = rng.sample(problem.data["chains"], len(problem.data["chains"]))
        facts = ";".join(f" {title} {value}" for chain in chains for title, value in itertools.pairwise(chain))
        text = problem.prompt.split("\n")[0]
        if rng.random() < 2 / 3:
            mixed = dict(zip(NAMES, rng.sample(NAMES, len(NAMES)), strict=True))
            text, facts = (re.sub(r"\w+", lambda m: mixed.get(m[0], m[0]), t) for t in (text, facts))
        return f"{text}\nList all facts.", facts
    arms = rng.sample(problem.data["arms"], len(problem.data["arms"]))
    return problem.prompt.split("\n")[0] + "\nList all paths.", ";".join("<-".join(arm[::-1]) for arm in arms)


# --- documents


class Writer:
    """The writer of the text. Document number `index` is a pure function of (seed, index, noise, lookups)."""

    def __init__(self, seed: int):
        self.seed = seed
        self.lookups = [load_task(name, **difficulty) for name, difficulty in LOOKUPS]
        self.tasks = {
            name: [(weight, load_task(name, **difficulty)) for weight, difficulty in levels]
            for name, levels in LEVELS.items()
        }

    def words(self) -> list[str]:
        """Return texts beside the documents that the tokenizer is trained on."""
        return []

    def document(self, index: int, noise: float, lookups: float) -> Document:
        """Return a document. `noise` scales NOISE (0 is clean); `lookups` is the share of lookup documents."""
        rng = random.Random(f"text/{self.seed}/{index}")
        if rng.random() < lookups:
            looked = rng.choice(self.lookups)
            problem = looked.problem("pretrain", self.seed, index)
            user, response = list_everything(problem, looked.name, rng)
            system = " ".join(rng.choice(IRRELEVANT) for _ in range(rng.randint(0, 2)))
            return Document(looked.name, system, user, response, problem.id)
        name = rng.choices([*WEIGHTS, "ability"], [*WEIGHTS.values(), ABILITY_WEIGHT])[0]
        if name == "ability":
            return self._ability(index, rng)
        weights, tasks = zip(*self.tasks[name], strict=True)
        task: Task = rng.choices(tasks, weights)[0]
        return self._instructed(task, task.problem("pretrain", self.seed, index), noise, rng)

    def _ability(self, index: int, rng: random.Random) -> Document:
        name = rng.choice(list(ABILITIES))
        asked = ability_item(name, "pretrain", self.seed, index)
        style = rng.choice(STYLES)
        sentences = [rng.choice(IRRELEVANT) for _ in range(rng.randint(0, 2))]
        if rng.random() < 0.7:
            sentences.insert(rng.randint(0, len(sentences)), format_sentence(style, rng))
        if rng.random() < 0.2:
            sentences.append(self._for_another_task(name, rng))
        return Document(name, " ".join(sentences), asked.question, render(name, style, asked.answer), asked.id)

    def _instructed(self, task: Task, problem: Problem, noise: float, rng: random.Random) -> Document:
        name, style = task.name, rng.choice(OWN_FORMATS[task.name])
        separator, working, specific = ("->" if rng.random() < 0.75 else ","), rng.random() < UNASKED[name], False
        scope = rng.random() < 0.3
        user, before, asks, after = problem.prompt, list[str](), list[str](), list[str]()

        def say(sentence: str) -> str:
            return scoped(name, sentence, rng) if scope and rng.random() < 0.8 else sentence

        if rng.random() < 0.95:
            if rng.random() < 0.72:
                if rng.random() < 0.15:  # contradicted: the later sentence wins
                    before.append(say(format_sentence(rng.choice([f for f in OWN_FORMATS[name] if f != style]), rng)))
                sentence = format_sentence(style, rng)
                if rng.random() < 0.1:
                    user = f"{problem.prompt}\n{sentence}"
                else:
                    asks.append(say(sentence))
            if rng.random() < 0.75:
                working = rng.random() < 0.85
                specific = working and rng.random() < 0.65
                after.append(
                    say(strategy_sentence(name if specific else "any", rng) if working else rng.choice(DIRECT))
                )
            if rng.random() < (0.5 if name == "star-graph" else 0.05):
                sentence = separator_sentence(separator, rng)
                if name == "star-graph" and rng.random() < 0.1:
                    user = f"{user} {sentence}" if user != problem.prompt else f"{user}\n{sentence}"
                else:
                    after.append(say(sentence))
            after += [rng.choice(IRRELEVANT) for _ in range(rng.choice([0, 0, 1, 1, 2, 2]))]
            if scope:
                after += [self._for_another_task(name, rng) for _ in range(rng.choice([1, 2, 2, 3, 4, 5, 6]))]
        rng.shuffle(after)
        sentences = list(after)
        for group in (asks, before):  # a contradicted sentence comes before the one that wins
            for sentence in group:
                limit = min((sentences.index(s) for s in asks if s in sentences), default=len(sentences))
                sentences.insert(rng.randint(0, limit), sentence)
        base, vague, direct = NOISE[name]
        rate = noise * base * (1.0 if specific else vague if working else direct)
        wanders = name == "star-graph" and not specific and rng.random() < WANDERING
        work = wander_star_graph if wanders else WORK[name]
        steps, answer = work(problem.data, lambda: rng.random() < rate, rng)
        response = render(name, style, answer, separator)
        return Document(name, " ".join(sentences), user, f"{steps}\n{response}" if working else response, problem.id)

    def _for_another_task(self, name: str, rng: random.Random) -> str:
        other = rng.choice([task for task in WEIGHTS if task != name])
        kind = rng.random()
        if kind < 0.55:
            sentence = format_sentence(rng.choice(OWN_FORMATS[other]), rng)
        elif kind < 0.9:
            sentence = strategy_sentence(rng.choice([other, other, "any"]), rng)
        else:
            sentence = rng.choice(DIRECT)
        return scoped(other, sentence, rng)
