"""The contract of a task, problems with a verifier (see `Task`), and the helpers that verifiers share."""

import hashlib
import itertools
import math
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from fst_bench.core.errors import explain, unknown
from fst_bench.core.types import THOUGHTS, Problem, Score

Split = Literal["train", "test", "pretrain"]

SPLIT_SHARE: dict[str, range] = {"test": range(0, 2), "train": range(2, 10), "pretrain": range(10, 20)}
"""Split -> its hash buckets, of 20."""

MAX_TRIES = 5_000
"""Draws before a difficulty counts as too small to have disjoint splits."""

GOLDEN = (math.sqrt(5) - 1) / 2

TAIL = 32_768
"""Characters, from the end, in which a verifier looks for the answer: answers come last."""


class Difficulty(BaseModel):
    """The typed difficulty parameters of a task, and what every task has among them.

    `format_given` states the answer protocol inside the problem. `feedback` is how much a method learns of a wrong
    answer beside its reward: that it is wrong (verdict), what is wrong with it and what was expected (diagnosis), or
    that and, where the answer shows no working, the task's hint at how to solve it (hint).

    `mixture` lists levels, each the parameters that it has instead of these, with its `share` (1 unless stated). A
    problem is of one of them: those to train on of a random one, those held out in turns, so that each level has
    nearly its share of the first n, for every n.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format_given: bool = False
    feedback: Literal["verdict", "diagnosis", "hint"] = "hint"
    mixture: list[dict[str, Any]] = []

    @model_validator(mode="after")
    def sound_mixture(self) -> Self:
        """Raise ValueError for an unsound level, and for a parameter that is set beside levels that have it."""
        self.levels()
        if both := self.model_fields_set & in_levels(self.mixture):
            raise ValueError(f"{', '.join(sorted(both))}: set beside a mixture whose levels have it")
        return self

    def levels(self) -> list[tuple[str, float, Self]]:
        """Return (name, share, difficulty) of each level of the mixture; the shares add up to 1.

        Equal ones are one level. Raise ValueError for an unknown parameter, and for a share of nothing.
        """
        rest, found = self.model_dump(exclude={"mixture"}), dict[str, tuple[float, Self]]()
        for level in self.mixture:
            own = {name: value for name, value in level.items() if name != "share"}
            share = level.get("share", 1)
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < math.inf:
                raise ValueError(f"mixture: a share is a number above 0, not {share!r}")
            if not own or "mixture" in own:
                raise ValueError("mixture: a level has difficulty parameters, and no mixture of its own")
            name = ", ".join(f"{parameter} {value}" for parameter, value in own.items())
            before = found[name][0] if name in found else 0
            found[name] = before + share, explain(type(self), rest | own, f"level {name} of the mixture")
        total = sum(share for share, _ in found.values())
        return [(name, share / total, difficulty) for name, (share, difficulty) in found.items()]


def over(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Return the difficulty parameters `high` over `low`, unchecked.

    A mixture takes the place of the parameters that its levels have, and one of these that of the whole mixture.
    """
    if "mixture" in high:
        low = {name: value for name, value in low.items() if name not in in_levels(high["mixture"])}
    elif in_levels(low.get("mixture")) & high.keys():
        low = {name: value for name, value in low.items() if name != "mixture"}
    return {**low, **high}


def in_levels(mixture: Any) -> set[str]:
    """Return the parameters that the levels of a mixture have."""
    levels = [level for level in mixture if isinstance(level, Mapping)] if isinstance(mixture, list) else []
    return {name for level in levels for name in level}


@dataclass(frozen=True)
class Draft:
    """A problem as a generator draws it. `key` is its content, which decides its split."""

    key: str
    prompt: str
    answer: str
    data: Mapping[str, Any]


CORRECT = "The answer is correct."
WRONG = "The answer is wrong."
BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")


class Task(ABC):
    """A family of problems with one verifier and one answer protocol.

    Subclass it in one file: this is the whole contract. It draws problems deterministically: problem number `index` of
    a split is a pure function of (task, difficulty, split, seed, index). Splits are disjoint by construction, for every
    seed and every difficulty: the hash of a problem's CONTENT decides the one split it may appear in. `pretrain` is the
    split that the embedded model's text is drawn from, so no benchmark problem was ever seen in pretraining.

    Its verifier reads a model's text as data. It never raises, never evaluates or executes any of it, and its limits
    are structural (length, depth, digits), so that the same text always earns the same reward. A model's thinking
    (everything up to the last </think>) is not its answer: `verify`, through which every text goes, cuts it off.

    It may hold a conversation: `respond` is the reply of its environment, such as a tool, to the model's turn. Since
    that is a pure function too, the model's turns are all of a conversation that has to be kept to judge it again.

    Class attributes:
    - name: its name in folders, tables and settings.
    - Difficulty: the class of its difficulty parameters, over `Difficulty`, each with a default.
    - levels: difficulties from tiny to headline, two or more dicts of parameters; `fst-bench validate tasks` walks
      through them.
    - protocol: the answer protocol in one sentence, stated in the problem when `format_given` is set.
    - hint: a teacher's hint for an answer without any working; `teach` puts it behind a diagnosis.
    - sizes: nominal sizes of the splits.
    """

    name: ClassVar[str]
    Difficulty: ClassVar[type[Difficulty]]
    sizes: dict[str, int] = {"train": 10_000, "test": 200}
    protocol: str
    hint: str
    levels: ClassVar[list[dict[str, Any]]]

    def __init__(self, difficulty: BaseModel):
        self.difficulty: Any = difficulty

    @cached_property
    def parts(self) -> dict[str, tuple[float, "Task"]]:
        """Level -> (its share, the task at that level) where the difficulty is a mixture; empty where it is not."""
        return {name: (share, type(self)(difficulty)) for name, share, difficulty in self.difficulty.levels()}

    def at(self, problem: Problem) -> "Task":
        """Return the task at the level of a problem of a mixture; without one, itself."""
        return self.parts[problem.level][1] if problem.level else self

    def part(self, split: Split, seed: int, index: int) -> str:
        """Return the level that problem number `index` of a split is of, in a mixture."""
        if split == "test":  # multiples of the golden ratio: every stretch of them is spread evenly over 0 to 1
            point = (index + 0.5) * GOLDEN % 1
        else:
            point = random.Random(f"{self.name}/{split}/{seed}/{index}/level").random()
        ends = itertools.accumulate(share for share, _ in self.parts.values())
        return next((level for level, end in zip(self.parts, ends, strict=True) if point < end), [*self.parts][-1])

    @property
    def has_tool(self) -> bool:
        """Return whether an environment may reply to the model's turns."""
        return type(self).respond is not Task.respond

    @abstractmethod
    def draw(self, rng: random.Random) -> Draft:
        """Return a problem of this difficulty, every choice taken from `rng`."""

    def respond(self, problem: Problem, turns: Sequence[str]) -> str | None:
        """Return the environment's reply to the last of a model's `turns`; None ends the conversation.

        The turns may be adversarial texts of any length. Tasks without a tool end it at once. A pure function that
        never raises. A reply repeats nothing of the turns: their characters could stand for the tokens that end one.
        """
        return None

    def verify(self, problem: Problem, text: str, before: Sequence[str] = ()) -> Score:
        """Score `text` as an answer to `problem`: reward 1.0 or 0.0.

        The text may be adversarial and of any length: this never raises. `before` are the model's earlier turns of the
        conversation that `text` ends.
        """
        if problem.level:
            return self.at(problem).verify(replace(problem, level=""), text, before)
        answer = answer_of(text)
        if answer is None:
            never_closed = (
                "The thinking was never closed, so no answer came after it: think more briefly and then answer."
            )
            return Score(0.0, WRONG if self.difficulty.feedback == "verdict" else never_closed, "unparseable")
        score = self.check(problem, answer)
        if self.difficulty.feedback == "verdict":
            return replace(score, feedback=CORRECT if score.reward == 1 else WRONG)
        return score

    @abstractmethod
    def check(self, problem: Problem, text: str) -> Score:
        """Score an answer without the thinking before it; as `verify`."""

    @abstractmethod
    def write(self, answer: str) -> str:
        """Return `answer` in the task's answer protocol: `verify(p, write(p.answer))` earns 1.0."""

    @abstractmethod
    def wrong_texts(self, problem: Problem) -> list[str]:
        """Return texts near the right answer that must earn 0.0."""

    def problem(self, split: Split, seed: int, index: int) -> Problem:
        """Return problem number `index` of a split: a pure function of (task, difficulty, split, seed, index).

        Raise ValueError for an unknown split, and where the difficulty has too few problems.
        """
        if split not in SPLIT_SHARE:
            raise ValueError(unknown("split", split, SPLIT_SHARE))
        if self.parts:
            level = self.part(split, seed, index)
            return replace(self.parts[level][1].problem(split, seed, index), level=level)
        rng = random.Random(f"{self.name}/{split}/{seed}/{index}")
        for _ in range(MAX_TRIES):
            draft = self.draw(rng)
            digest = hashlib.sha256(f"{self.name}/{draft.key}".encode()).hexdigest()
            if int(digest[:8], 16) % 20 in SPLIT_SHARE[split]:
                prompt = f"{draft.prompt}\n{self.protocol}" if self.difficulty.format_given else draft.prompt
                return Problem(f"{self.name}-{digest[:12]}", prompt, draft.answer, draft.data)
        raise ValueError(f"{self.name}: no {split} problem in {MAX_TRIES} draws, this difficulty has too few problems")

    def problems(self, split: Split, seed: int = 0, n: int | None = None) -> list[Problem]:
        """Return the first `n` problems of a split (default: the split's nominal size)."""
        if n is None and split not in self.sizes:
            raise ValueError(unknown("sized split", split, self.sizes))
        return [self.problem(split, seed, i) for i in range(self.sizes[split] if n is None else n)]

    def teach(self, diagnosis: str, text: str) -> str:
        """Return the diagnosis, followed by the task's hint where the text shows no working."""
        hinted = self.difficulty.feedback == "hint" and "\n" not in text[-TAIL:].strip()
        return f"{diagnosis} {self.hint}" if hinted else diagnosis


def answer_of(text: str) -> str | None:
    """Return the text after the last thought, all of it without one; None where a thought is left open.

    `THOUGHTS` has the tags. A sample's text begins with the opening one where the chat template wrote it.
    """
    for opening, closing in THOUGHTS.items():
        text = text.rpartition(closing)[2]
        if opening in text:
            return None
    return text


def clip(text: str, limit: int = 60) -> str:
    """Return a model's words on one line of at most `limit` characters; unprintable ones become \ufffd."""
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last \boxed{...} or \fbox{...} with balanced braces, or None.

    An outer box that holds a box yields the inner one.
    """
    tail = text[-TAIL:]
    start = max((box.end() for box in BOX.finditer(tail)), default=0)
    if not start:
        return None
    depth = 1
    for i in range(start, len(tail)):
        depth += {"{": 1, "}": -1}.get(tail[i], 0)
        if depth == 0:
            return tail[start:i].strip()
    return None
