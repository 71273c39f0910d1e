"""General abilities of the embedded model that no task and no stream trains: forgetting shows in them.

Each draws (question, answer) from its own pool. As with a task's problems, an item's content hash decides its split, so
no measured item was pretrained on. An item is right in any answer format; to obey the asked format is an ability of its
own (`fst_bench.embedded.card`).
"""

import hashlib
import random
import string
from collections.abc import Callable
from dataclasses import dataclass

from fst_bench.core.errors import unknown
from fst_bench.tasks.base import MAX_TRIES, SPLIT_SHARE, Split


@dataclass(frozen=True)
class Item:
    """One question with its answer."""

    id: str
    question: str
    answer: str


def letters(rng: random.Random, low: int, high: int, pool: str = string.ascii_uppercase) -> list[str]:
    """Return `low` to `high` random letters of a pool."""
    return [rng.choice(pool) for _ in range(rng.randint(low, high))]


def copy(rng: random.Random) -> tuple[str, str]:
    """Draw a line of letters to copy."""
    line = " ".join(letters(rng, 3, 6))
    return f"Copy: {line}", line


def reverse(rng: random.Random) -> tuple[str, str]:
    """Draw a line of letters to reverse."""
    line = letters(rng, 2, 4)
    return f"Reverse: {' '.join(line)}", " ".join(reversed(line))


def count(rng: random.Random) -> tuple[str, str]:
    """Draw a line of letters in which to count one."""
    line = letters(rng, 3, 7, "ABC")
    letter = rng.choice("ABC")
    return f"Count {letter}: {' '.join(line)}", str(line.count(letter))


def add(rng: random.Random) -> tuple[str, str]:
    """Draw a sum of two numbers below 50."""
    a, b = rng.randint(0, 49), rng.randint(0, 49)
    return f"Sum: {a} and {b}", str(a + b)


def compare(rng: random.Random) -> tuple[str, str]:
    """Draw two numbers below 100 to compare."""
    a, b = rng.sample(range(100), 2)
    return f"Larger: {a} or {b}", str(max(a, b))


def successor(rng: random.Random) -> tuple[str, str]:
    """Draw an arithmetic sequence to continue."""
    a, step = rng.randint(0, 80), rng.randint(1, 5)
    return f"Next: {a}, {a + step}, {a + 2 * step}", str(a + 3 * step)


ABILITIES: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "copy": copy,
    "reverse": reverse,
    "count": count,
    "add": add,
    "compare": compare,
    "successor": successor,
}


def item(name: str, split: Split, seed: int, index: int) -> Item:
    """Return item number `index` of a split: a pure function of its arguments. Raise ValueError for an unknown name."""
    if name not in ABILITIES:
        raise ValueError(unknown("ability", name, ABILITIES))
    rng = random.Random(f"{name}/{split}/{seed}/{index}")
    for _ in range(MAX_TRIES):
        question, answer = ABILITIES[name](rng)
        digest = hashlib.sha256(f"{name}/{question}".encode()).hexdigest()
        if int(digest[:8], 16) % 20 in SPLIT_SHARE[split]:
            return Item(f"{name}-{digest[:12]}", question, answer)
    raise AssertionError(f"{name} has too few {split} items")
