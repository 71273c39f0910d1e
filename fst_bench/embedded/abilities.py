"""General abilities of the embedded model that no task and no stream trains: what forgetting is seen on.

Each draws (question, answer) from its own pool; like a task's, an item's content hash decides its split, so what
is measured was never pretrained on. An item is right in any answer format; that the asked format is obeyed is an
ability of its own (`fst_bench.embedded.card`).
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
    return [rng.choice(pool) for _ in range(rng.randint(low, high))]


def copy(rng: random.Random) -> tuple[str, str]:
    line = " ".join(letters(rng, 3, 6))
    return f"Copy: {line}", line


def reverse(rng: random.Random) -> tuple[str, str]:
    line = letters(rng, 2, 4)
    return f"Reverse: {' '.join(line)}", " ".join(reversed(line))


def count(rng: random.Random) -> tuple[str, str]:
    line = letters(rng, 3, 7, "ABC")
    letter = rng.choice("ABC")
    return f"Count {letter}: {' '.join(line)}", str(line.count(letter))


def add(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(0, 49), rng.randint(0, 49)
    return f"Sum: {a} and {b}", str(a + b)


def compare(rng: random.Random) -> tuple[str, str]:
    a, b = rng.sample(range(100), 2)
    return f"Larger: {a} or {b}", str(max(a, b))


def successor(rng: random.Random) -> tuple[str, str]:
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
    """Item number `index` of a split: a pure function of its arguments. ValueError for a name that is none."""
    if name not in ABILITIES:
        raise ValueError(unknown("ability", name, ABILITIES))
    rng = random.Random(f"{name}/{split}/{seed}/{index}")
    for _ in range(MAX_TRIES):
        question, answer = ABILITIES[name](rng)
        digest = hashlib.sha256(f"{name}/{question}".encode()).hexdigest()
        if int(digest[:8], 16) % 20 in SPLIT_SHARE[split]:
            return Item(f"{name}-{digest[:12]}", question, answer)
    raise AssertionError(f"{name} has too few {split} items")
