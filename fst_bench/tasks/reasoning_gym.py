"""reasoning-gym: data sets of that package, each a task. Protocol: the answer in the last <answer> tags.

`reasoning-gym/chain_sum` is the package's data set chain_sum. Its difficulty parameters are those of the set's own
config, as far as JSON can hold them. The package (extra `gym`) is imported when the first set is asked for.

Only the sets of the ALLOW-LIST, reasoning_gym.json, are tasks. A survey tries every set of one version of the package
(`python -m tests.tasks.survey_reasoning_gym`): the same problems in every process, a verifier that gives the gold
answer 1.0 and near misses less, and enough different problems. The list has the reason for every set that it refuses.

The package's scorers are lenient in many ways, so a reward is 1.0 only where the score is exactly 1; `partial_credit`
keeps the scores between. A scorer sees only an answer within our limits, and what it raises is a verdict.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cache, cached_property
from importlib import import_module, metadata, resources
from itertools import accumulate
from pathlib import Path
from types import GenericAlias, NoneType, UnionType
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from pydantic import Field, create_model, model_validator

from fst_bench.core.errors import unknown
from fst_bench.core.registry import Plugin, Source, digest_of, place_of_package
from fst_bench.core.types import Problem, Score
from fst_bench.tasks.base import CORRECT, Difficulty, Draft, Task, clip
from fst_bench.tasks.formats import WRAPPERS

FAMILY = "reasoning-gym"
INDICES = 2**31
"""Problems of a data set: each is the package's problem of one index, at seed 0."""
LEAST, TIMES = 400, 4
"""Characters of an answer: at most LEAST, or TIMES those of the gold answer."""
DEPTH = 32
"""Brackets within brackets."""
EXPONENT = re.compile(r"(?<![0-9A-Za-z])\d+(\.\d*)?[eE][+-]?\d{4,}", re.ASCII)
"""A number such as 1e99999, which takes exact arithmetic forever."""
BRACKETS = dict.fromkeys("([{", 1) | dict.fromkeys(")]}", -1)
NOT_SET = ("seed", "size", "data_file")
"""Fields of configs that are no parameters: draws choose the problem, and a stream names no file of the machine."""
TAG = WRAPPERS["tag"]


class GymDifficulty(Difficulty):
    """The parameters of a data set's config, added by `difficulty_of`, and what is done with its scores."""

    make: ClassVar[Callable[..., Any]]
    partial_credit: bool = Field(False, description="Whether a score between 0 and 1 is the reward, in place of 0.")

    def config(self) -> Any:
        """Return the package's config. Raise ValueError in one line where it refuses the parameters."""
        given = self.model_dump(exclude=set(GymDifficulty.model_fields))
        usual = self.make()
        as_there = {name: tuple(v) if isinstance(getattr(usual, name), tuple) else v for name, v in given.items()}
        try:
            config = self.make(seed=0, **as_there)
            getattr(config, "validate", bool)()
        except Exception as error:  # assertions, and whatever else its checks raise
            raise ValueError(" ".join(str(error).split()) or f"refused with {type(error).__name__}") from None
        return config

    @model_validator(mode="after")
    def allowed(self) -> Self:
        self.config()
        return self


class GymTask(Task):
    """A data set of the package; `task_of` makes its subclasses."""

    protocol = TAG.protocol.format("the final answer")
    hint = "It helps to write down each step before the answer."
    dataset_class: ClassVar[Callable[[Any], Any]]

    @cached_property
    def dataset(self) -> Any:
        """The package's data set at this difficulty."""
        return type(self).dataset_class(self.difficulty.config())

    def draw(self, rng: random.Random) -> Draft:
        index = rng.randrange(INDICES)
        try:
            entry = self.dataset[index]
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(f"{self.name} has no problem {index} at this difficulty: {said}") from None
        return Draft(entry["question"], entry["question"], str(entry["answer"]), entry)

    def check(self, problem: Problem, text: str) -> Score:
        content = TAG.read(text)
        if not content:
            said = f"The answer was expected {TAG.wanted}, and nothing was found there."
            return Score(0.0, self.teach(said, text), "unparseable")
        given, gold = clip(content), problem.answer.strip()
        if content != gold and excessive(content, gold):
            return Score(0.0, self.teach("The tag holds far more than an answer.", text), "unparseable", given)
        right = f"the right answer is {clip(gold, 120)}."
        try:
            score = float(self.dataset.score_answer(content, dict(problem.data)))
        except Exception:  # the package's scorers parse without care
            said = f"The tag says {given}, which is not an answer of the form that was asked for; {right}"
            return Score(0.0, self.teach(said, text), "unparseable", given)
        if score == 1:
            return Score(1.0, CORRECT, "ok", given)
        reward = min(max(score, 0.0), 1.0) if self.difficulty.partial_credit else 0.0
        return Score(reward, self.teach(f"The tag says {given}, but {right}", text), "wrong", given)

    def write(self, answer: str) -> str:
        return TAG.write(answer)

    def wrong_texts(self, problem: Problem) -> list[str]:
        right = problem.answer
        wrong = [f"{right} 0", f"{right} junk", f"junk {right}", f"{right}\njunk", "no answer", ""]
        if re.fullmatch(r"-?\d{1,30}", right, re.ASCII):
            wrong.append(str(2 * abs(int(right)) + 1))
        return [
            right,
            self.write(right)[:-1],
            self.write(right) + "\n" + self.write("no answer"),
            *map(self.write, wrong),
        ]


def excessive(content: str, gold: str) -> bool:
    """Return whether an answer is beyond the limits within which a scorer is quick."""
    if len(content) > max(LEAST, TIMES * len(gold)) or EXPONENT.search(content):
        return True
    return max(accumulate(BRACKETS.get(c, 0) for c in content)) > DEPTH


# --- from the package


def allow_list() -> dict[str, Any]:
    """Return the allow-list: the package's version, and each of its sets with two levels or the reason against it."""
    return json.loads(resources.files("fst_bench.tasks").joinpath("reasoning_gym.json").read_text("utf-8"))


def allowed() -> dict[str, str]:
    """Return the tasks by name, each with what the package says of its set in a line."""
    sets = allow_list()["sets"]
    return {f"{FAMILY}/{name}": about["about"] for name, about in sets.items() if "levels" in about}


@cache
def find_set(name: str) -> Plugin[Task]:
    """Return the task of a data set. Raise ValueError in one line where it is not one, or the package is missing."""
    listed = allow_list()
    sets = listed["sets"]
    if name not in sets:
        known = [other for other, about in sets.items() if "levels" in about]
        raise ValueError(unknown(f"data set of {FAMILY}", name, known))
    if "levels" not in sets[name]:
        raise ValueError(f"{FAMILY}/{name} is not on the allow-list of data sets: {sets[name]['refused']}")
    installed = version()
    if installed is None:
        raise ValueError(f"{FAMILY}/{name} requires the package {FAMILY}: pip install 'fst-bench[gym]'")
    if installed != listed["version"]:
        raise ValueError(
            f"{FAMILY}/{name}: the data sets of {FAMILY} {listed['version']} were surveyed, {installed} is installed: "
            "pip install 'fst-bench[gym]'"
        )
    return Plugin(task_of(name, sets[name]["levels"]), Source(sha256=digest(), package=f"{FAMILY} {installed}"), None)


def version() -> str | None:
    """Return the version of the installed package; None without one."""
    try:
        return metadata.version(FAMILY)
    except metadata.PackageNotFoundError:
        return None


@cache
def digest() -> str:
    """Return one digest of all Python files of the package: a set shares helpers with others."""
    place = place_of_package("reasoning_gym")
    assert isinstance(place, Path)
    return digest_of(place)


def task_of(name: str, levels: Sequence[dict[str, Any]]) -> type[Task]:
    """Return the class of a data set, on the list or not."""
    made, config = import_module("reasoning_gym.factory").DATASETS[name]
    own = {
        "name": f"{FAMILY}/{name}",
        "__module__": made.__module__,
        "__doc__": made.__doc__,
        "Difficulty": difficulty_of(config),
        "levels": list(levels),
        "dataset_class": made,
    }
    return type(made.__name__, (GymTask,), own)


def difficulty_of(config: type) -> type[GymDifficulty]:
    """Return the typed parameters of a config: its fields that JSON can hold."""
    usual, kinds = config(), get_type_hints(config)
    own: dict[str, Any] = {}
    for name in (field.name for field in fields(config) if field.name not in NOT_SET):
        value = getattr(usual, name)
        if (kind := json_kind(kinds[name], value)) is not None:
            own[name] = (kind, list(value) if isinstance(value, tuple) else value)
    made = create_model(f"{config.__name__}Difficulty", __base__=GymDifficulty, __module__=__name__, **own)
    made.make = config
    return made


def json_kind(kind: Any, value: Any) -> Any:
    """Return the type of a parameter as JSON has it, None where it has none; `value` is the default."""
    if get_origin(kind) is Literal:
        return kind
    if kind in (int, float, bool, str):
        return kind if value is None or isinstance(value, kind) else type(value)
    if get_origin(kind) in (Union, UnionType):
        inner = [json_kind(part, value) for part in get_args(kind) if part is not NoneType]
        return inner[0] | None if len(inner) == 1 and inner[0] is not None else None
    if isinstance(value, list | tuple):
        item = type(value[0]) if value else None
        same = item in (int, float, bool, str) and all(type(other) is item for other in value)
        return GenericAlias(list, (item,)) if same else None
    return None
