"""The reflector `bank`: it knows what one can ask of the embedded model, and not what helps.

Its bank are the sentences of the language of instruction, the same for every task: for each format, way of working and
separator, and idle ones. It reads gepa's own reflection prompt, and replies with the current prompt after one change:
mostly a sentence is added, half of the time one that is like the feedback on a wrong answer, otherwise any. This is
the miniature of what a reflection LM brings along: it has seen many instructions, and it reads what went wrong.
"""

import math
import random
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache

from fst_bench.fast.instructions import (
    DIRECT,
    FORMATS,
    IRRELEVANT,
    SEPARATORS,
    STRATEGIES,
    format_sentence,
    separator_sentence,
)
from fst_bench.method.reflection import FEEDBACK, SENTENCE, current_in, fence_around
from fst_bench.tasks.base import CORRECT

WORDINGS = 6
"""Sentences of each family."""
MAX_SENTENCES = 6
WORD = re.compile(r"[\w\\]+:?|#+|<\w+>")
"""A word as likeness counts it; labels and marks such as ANSWER:, ####, \\boxed and <answer> are words of their own."""

Vector = dict[str, float]
"""Word -> weight; the squares of the weights add up to 1."""


@dataclass(frozen=True)
class Sentence:
    """A sentence of the bank. Those of one family ask for the same in other words."""

    text: str
    family: str
    vector: Vector


@cache
def sentences() -> tuple[Sentence, ...]:
    """Return the bank: WORDINGS sentences of each family."""
    rng = random.Random("bank")
    families = {f"format {style}": [format_sentence(style, rng) for _ in range(40)] for style in FORMATS}
    families |= {f"working {kind}": [worded(kind, rng) for _ in range(40)] for kind in STRATEGIES}
    families |= {f"separator {mark}": [separator_sentence(mark, rng) for _ in range(40)] for mark in SEPARATORS}
    families |= {"no working": DIRECT, "idle": IRRELEVANT}
    texts = {name: list(dict.fromkeys(found))[:WORDINGS] for name, found in families.items()}
    frequency = Counter(word for found in texts.values() for text in found for word in set(words(text)))
    total = sum(map(len, texts.values()))
    rarity = {word: math.log(total / n) for word, n in frequency.items()}
    return tuple(Sentence(text, name, vector(text, rarity)) for name, found in texts.items() for text in found)


def worded(kind: str, rng: random.Random) -> str:
    """Return a sentence of one kind of strategy, in the words of that kind alone."""
    return " ".join(rng.choice(part) for part in STRATEGIES[kind]) + "."


def words(text: str) -> list[str]:
    """Return the words of a text, small ones of letters in lower case."""
    return [word if word.isupper() or not word.isalpha() else word.lower() for word in WORD.findall(text)]


def vector(text: str, rarity: Vector) -> Vector:
    """Return a text's words, each weighted by how rare it is in the bank (tf-idf)."""
    weights = {word: n * rarity.get(word, 0.0) for word, n in Counter(words(text)).items()}
    length = math.sqrt(sum(weight**2 for weight in weights.values())) or 1.0
    return {word: weight / length for word, weight in weights.items() if weight}


def likeness(sentence: Sentence, text: str) -> float:
    """Return how like a text is to a sentence: the cosine of their words' weights, but for the text's own length."""
    return sum(weight for word, weight in sentence.vector.items() if word in set(words(text)))


def bank(prompt: str, seed: int) -> str:
    """Reply with the current prompt after one change.

    One or two sentences are added, or one is dropped or replaced. Raises ReflectionFailure where the reflection prompt
    holds no current one.
    """
    current = current_in(prompt)
    rng = random.Random(f"{seed}/{prompt}")
    kept = [sentence for sentence in SENTENCE.split(current.strip()) if sentence]
    wrong = [text for text in FEEDBACK.findall(prompt) if text.strip() != CORRECT]
    change = rng.random()
    if change < 0.15 and len(kept) > 1:
        kept.pop(rng.randrange(len(kept)))
    else:
        if change < 0.3 and len(kept) > 1:
            kept.pop(rng.randrange(len(kept)))
        for _ in range(1 if rng.random() < 0.7 else 2):
            kept.append(chosen(kept, wrong, rng))
    while len(kept) > MAX_SENTENCES:
        kept.pop(rng.randrange(len(kept) - 1))
    text = " ".join(kept)
    fence = fence_around(text)
    return f"{fence}\n{text}\n{fence}"


def chosen(kept: list[str], wrong: list[str], rng: random.Random) -> str:
    """Return a sentence of the bank that the prompt lacks.

    Half of the time it is the likest to the feedback on one of the wrong answers, in a random half of the bank.
    """
    missing = [sentence for sentence in sentences() if sentence.text not in kept]
    if wrong and rng.random() < 0.5:
        feedback, some = rng.choice(wrong), rng.sample(missing, len(missing) // 2)  # so not always the same one
        return max(some, key=lambda sentence: likeness(sentence, feedback)).text
    return rng.choice(missing).text
