"""The base of the real data sets: rows become items, items become the splits' problems.

A row is read once. The usable parts of it become one item or several (CodeIO: one for each input and output); anything
else is skipped with a reason, counted and named, never repaired. So are problems that were kept with different gold
answers: one of them would be scored as wrong. More skipped than kept is an error: such a file is
most likely not the intended one.

Splits are frozen by content, like those of procedural problems: the hash of an item's key (the text of the problem,
claim, question or function) decides its bucket out of 20, and `SPLIT_SHARE` the split of a bucket. So a tenth of the
keys is held out and two fifths train; half of them, the `pretrain` buckets, are unused. The order in the file changes
nothing, and items with one key never lie in two splits.

`train` is a permutation seeded by the run's seed; an index past its end continues in a new permutation (the next
epoch). `test` is in the order of the ids, the same for every seed, and has an end: an index past it is an error.
"""

import ast
import hashlib
import json
import random
import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from fst_bench.core.errors import unknown
from fst_bench.core.types import Problem
from fst_bench.tasks.base import SPLIT_SHARE, Difficulty, Split, Task
from fst_bench.tasks.data.read import Unusable, download, rows

HUB = "hub"


class RowDifficulty(Difficulty):
    max_characters: Annotated[int, Field(ge=1)] = 8_000
    """Longest prompt. Longer ones are left out of every split: a model that reads less needs room for its answer."""


@dataclass(frozen=True, slots=True)
class Item:
    """A usable problem of a data set: `id` is the hash of all its content, `bucket` comes from its key."""

    id: str
    bucket: int
    content: Mapping[str, Any]


def item(task: str, key: str, content: Mapping[str, Any]) -> Item:
    """Return an item with its hashes. Raise Unusable where the content cannot be written as JSON in UTF-8."""
    try:
        written = json.dumps([task, key, content], ensure_ascii=False, allow_nan=False).encode()
        split = hashlib.sha256(f"{task}/{key}".encode()).hexdigest()
    except UnicodeEncodeError:
        raise Unusable("text with a lone surrogate") from None
    except ValueError:
        raise Unusable("NaN or Infinity, which is not JSON") from None
    except RecursionError:
        raise Unusable("nesting too deep to be written") from None
    return Item(hashlib.sha256(written).hexdigest(), int(split[:8], 16) % 20, content)


@dataclass(frozen=True)
class Rows:
    """A data set that was read: its items by id, and the skipped rows as (name of the row, reason)."""

    source: str
    items: tuple[Item, ...]
    skipped: tuple[tuple[str, str], ...]

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The record of the data: the source's name without its folder, a fingerprint of the items kept, and counts."""
        fingerprint = hashlib.sha256("".join(item.id for item in self.items).encode()).hexdigest()
        skipped = dict(Counter(reason for _, reason in self.skipped).most_common())
        return {"source": self.source, "fingerprint": fingerprint, "kept": len(self.items), "skipped": skipped}


class FromRows(Task):
    """A task whose problems are rows.

    It comes before the procedural task that it replaces: class Polaris(FromRows, Math).
    """

    columns: ClassVar[tuple[str, ...]]
    stem: ClassVar[str]
    endings: ClassVar[tuple[str, ...]] = ("jsonl", "parquet", "csv")
    """Endings of its file in a folder, `stem`.`ending`."""
    hub: ClassVar[str | None] = None
    """Hub id of the default, if one exists."""
    hub_file: ClassVar[str | None] = None
    """A jsonl file of that repository, where `datasets` cannot read it as a table."""

    def __init__(self, difficulty: Any, rows: Rows):
        super().__init__(difficulty)
        self.rows = rows
        fitting = [
            i for i in rows.items if self.wanted(i.content) and len(self.ask(i.content)[0]) <= difficulty.max_characters
        ]
        self.pools = {split: [i for i in fitting if i.bucket in share] for split, share in SPLIT_SHARE.items()}
        self.sizes = {split: len(self.pools[split]) for split in ("train", "test")}
        self._orders: dict[str, list[int]] = {}

    @classmethod
    @abstractmethod
    def usable(cls, row: Mapping[str, Any]) -> Sequence[Item | Unusable]:
        """Return the items of a row, and the reasons for those of it that are unusable.

        Raise Unusable for a whole row.
        """

    @classmethod
    @abstractmethod
    def question(cls, content: Mapping[str, Any]) -> list[Any]:
        """Return the parts of an item that are what is asked."""

    @classmethod
    @abstractmethod
    def agree(cls, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        """Return whether two items with the same question have the same gold answer."""

    @classmethod
    def refused(cls, items: Sequence[Item]) -> dict[str, str]:
        """Return the ids of those items that are unusable beside the others, with the reasons."""
        asked: dict[str, list[Item]] = {}
        for one in items:
            asked.setdefault(json.dumps(cls.question(one.content), sort_keys=True), []).append(one)
        return {
            one.id: "a problem with two gold answers"
            for first, *others in asked.values()
            if not all(cls.agree(first.content, other.content) for other in others)
            for one in (first, *others)
        }

    @abstractmethod
    def ask(self, content: Mapping[str, Any]) -> tuple[str, str]:
        """Return (prompt, gold answer) of an item at this difficulty."""

    def wanted(self, content: Mapping[str, Any]) -> bool:
        """Return whether an item is of this difficulty."""
        return True

    def problem(self, split: Split, seed: int, index: int) -> Problem:
        """Return problem number `index` of a split: a pure function of (rows, difficulty, split, seed, index).

        The seed orders all splits but `test`. Raise ValueError for an unknown split, and past the end of `test`.
        """
        if split not in self.pools:
            raise ValueError(unknown("split", split, self.pools))
        pool = self.pools[split]
        if not pool or (split == "test" and index >= len(pool)):
            raise ValueError(
                f"{self.rows.source} has {len(pool)} {split} problems of {self.name} at this difficulty, "
                f"number {index + 1} is required: take more rows, another difficulty or smaller evaluations"
            )
        epoch, place = divmod(index, len(pool))
        chosen = pool[
            index if split == "test" else self._order(f"{self.name}/{split}/{seed}/{epoch}", len(pool))[place]
        ]
        prompt, answer = self.ask(chosen.content)
        return Problem(
            f"{self.name}-{chosen.id[:16]}",
            f"{prompt}\n{self.protocol}" if self.difficulty.format_given else prompt,
            answer,
            chosen.content,
        )

    def _order(self, name: str, size: int) -> list[int]:
        """Return the permutation of that name."""
        if name not in self._orders:
            self._orders[name] = random.Random(name).sample(range(size), size)
        return self._orders[name]


def files(task: type[FromRows], folder: str) -> list[Path]:
    """Return the task's files in a folder."""
    return [path for ending in task.endings if (path := Path(folder) / f"{task.stem}.{ending}").is_file()]


def locate(task: type[FromRows], data: str) -> str | Path:
    """Return the place of the task's rows: a hub id or a file.

    Raise ValueError in one line that names what is required.
    """
    columns = ", ".join(task.columns)
    if data == HUB:
        if task.hub is None:
            raise ValueError(
                f"no {task.name} exists on the hub: the paper does not name the set it used; take --data FOLDER with "
                f"{task.stem}.jsonl ({columns}), or a stream without {task.name}"
            )
        return task.hub
    there = files(task, data)
    if len(there) != 1:
        names = " or ".join(f"{task.stem}.{ending}" for ending in task.endings)
        raise ValueError(
            f"the folder {data} holds {'more than one of' if there else 'no'} {names}: "
            f"{task.name} requires one, with the columns {columns}"
        )
    return there[0]


def load(task: type[FromRows], data: str) -> Rows:
    """Return the task's rows of `data` (hub or a folder), read once as long as the file does not change.

    Raise ValueError where they cannot be read, or few of them are usable.
    """
    where = locate(task, data)
    if data == HUB and task.hub_file:
        where = download(str(where), task.hub_file)
    stamp = (where.stat().st_mtime_ns, where.stat().st_size) if isinstance(where, Path) else (0, 0)
    return _load(task, where, stamp)


@lru_cache(maxsize=8)
def _load(task: type[FromRows], where: str | Path, stamp: tuple[int, int]) -> Rows:
    kept: dict[str, Item] = {}
    names: dict[str, str] = {}
    skipped: list[tuple[str, str]] = []
    for number, row in rows(where):
        try:
            if isinstance(row, Unusable):
                raise row
            items = task.usable(row)
        except Unusable as reason:
            items = [reason]
        for place, made in enumerate(items, 1):
            name = f"{number}" if len(items) == 1 else f"{number}/{place}"
            if isinstance(made, Unusable):
                skipped.append((name, str(made)))
            elif made.id in kept:
                skipped.append((name, "a repetition"))
            else:
                kept[made.id] = made
                names[made.id] = name
    for refused, why in task.refused([kept[number] for number in sorted(kept)]).items():
        del kept[refused]
        skipped.append((names[refused], why))
    source = where.name if isinstance(where, Path) else where
    if len(skipped) > len(kept) or not kept:
        counts = Counter(reason for _, reason in skipped).most_common(3)
        why = ", ".join(
            f"{n} x {reason} (first in row {next(name for name, r in skipped if r == reason)})" for reason, n in counts
        )
        raise ValueError(
            f"{where}: {len(skipped)} of {len(skipped) + len(kept)} rows are unusable ({why or 'it is empty'}); "
            f"{task.name} requires the columns {', '.join(task.columns)}"
        )
    return Rows(source, tuple(sorted(kept.values(), key=lambda i: i.id)), tuple(skipped))


def text_of(row: Mapping[str, Any], column: str) -> str:
    """Return a cell that holds text. Raise Unusable where it is missing, empty or something else."""
    value = cell(row, column)
    if not isinstance(value, str):
        raise Unusable(f"{column} is not a text")
    return value.strip()


def cell(row: Mapping[str, Any], column: str) -> Any:
    """Return a cell.

    Raise Unusable where it is missing or empty: null, blank text, or the NaN of an empty table cell.
    """
    value = row.get(column)
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        raise Unusable(f"{column} is missing or empty")
    return value


def structure(row: Mapping[str, Any], column: str) -> Any:
    """Return a cell that holds a list or an object.

    It is as a table has it or, for csv, written as JSON or as Python writes it.
    """
    value = cell(row, column)
    if not isinstance(value, str):
        return value
    with suppress(ValueError, RecursionError):
        return json.loads(value)
    with suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a backslash of LaTeX is not an escape
        if isinstance(written := ast.literal_eval(value.strip()), list | dict):
            return written
    raise Unusable(f"{column} is not a list")


def squeeze(text: str) -> str:
    """Return a text with every run of white space as one space: texts that differ in it alone are one key."""
    return " ".join(text.split())
