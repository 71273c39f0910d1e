"""Reflectors: reflection prompt in, text with a new prompt in a fenced block out.

`extractive` is the embedded default: deterministic, no hub, no key. It reads nothing but gepa's own reflection
prompt, and turns the feedback sentences in it into instructions by rules of English that know no task. It is not
a language model: it cannot see why an answer failed, only what the feedback says.
"""

import random
import re
from collections import Counter
from collections.abc import Callable

from fst_bench.lab import ReflectionFailure
from fst_bench.ledger import Ledger
from fst_bench.policy import Ask, Policy

from .settings import FastSettings

Reflector = Callable[[str, int], str]
"""(reflection prompt, seed) -> reply. Raises ReflectionFailure."""

MAX_SENTENCES = 6
FENCE = re.compile(r"```\w*\n?(.*?)```", re.DOTALL)
FEEDBACK = re.compile(r"^## Feedback\n(.*?)(?=\n#|\n```|\Z)", re.DOTALL | re.MULTILINE)
SENTENCE = re.compile(r"(?<=\.)\s+")
RULES: list[tuple[re.Pattern[str], tuple[str, ...]]] = [
    (re.compile(r"It helps to (.+)\."), ("{0}.", "Always {0}.")),
    (re.compile(r"The (\w+) was expected (.+?)(?:, and .+)?\."), ("Present the {0} {1}.", "Deliver the {0} {1}.")),
    (re.compile(r"The (\w+) were expected to be (.+?)(?:, and .+)?\."), ("The {0} have to be {1}.", "Make sure the {0} are {1}.")),
]
"""Declarative feedback -> imperative wordings."""


def instructions(feedback: str) -> list[tuple[str, ...]]:
    """For each sentence of feedback that a rule understands: the wordings of the instruction in it."""
    found = []
    for sentence in SENTENCE.split(feedback.strip()):
        for pattern, wordings in RULES:
            if match := pattern.fullmatch(sentence.strip()):
                texts = (wording.format(*match.groups()) for wording in wordings)
                found.append(tuple(text[0].upper() + text[1:] for text in texts))
    return found


def extractive(prompt: str, seed: int) -> str:
    """Add what the feedback asks for most, say an ignored instruction last or in other words, or drop a sentence."""
    fence = FENCE.search(prompt)
    if fence is None:
        raise ReflectionFailure("no current instruction in the reflection prompt")
    rng = random.Random(f"{seed}/{prompt}")
    sentences = [s for s in SENTENCE.split(fence[1].strip()) if s]
    asked = Counter(wordings for text in FEEDBACK.findall(prompt) for wordings in instructions(text))
    ranked = [wordings for wordings, _ in asked.most_common()]
    missing = [wordings for wordings in ranked if not set(wordings) & set(sentences)]
    ignored = [wordings for wordings in ranked if set(wordings) & set(sentences)]
    if missing and rng.random() < 0.85:
        added = missing[:1] if rng.random() < 0.7 else [rng.choice(missing)]
        if len(missing) > 1 and rng.random() < 0.5:
            added.append(rng.choice([wordings for wordings in missing if wordings not in added]))
        sentences += [rng.choice(wordings) for wordings in added]
    elif ignored and rng.random() < 0.7:
        wordings = ignored[0]
        sentences = [s for s in sentences if s not in wordings] + [rng.choice(wordings)]
    elif len(sentences) > 1:
        sentences.pop(rng.randrange(len(sentences)))
    while len(sentences) > MAX_SENTENCES:
        sentences.pop(rng.randrange(len(sentences) - 1))
    return "```\n" + " ".join(sentences) + "\n```"


def base_policy(policy: Policy, ledger: Ledger) -> Reflector:
    """The frozen base model reflects on itself. Its tokens are charged; there is no price to them."""

    def reflect(prompt: str, seed: int) -> str:
        try:
            sample = policy.sample([Ask(({"role": "user", "content": prompt},), seed)], base=True)[0][0]
        except ValueError:
            raise ReflectionFailure("reflection prompt too long") from None
        ledger.reflected(len(sample.tokens) - sample.sampled, sample.sampled, 0.0)
        return sample.text

    return reflect


def load_reflector(settings: FastSettings, policy: Policy, ledger: Ledger) -> Reflector:
    """The reflector of the settings, which charges its tokens to the ledger. ValueError says what exists, or what it lacks."""
    name = settings.reflector
    if name == "extractive":
        return extractive
    if name == "base-policy":
        return base_policy(policy, ledger)
    if "/" in name or settings.reflection.base_url:
        from .remote import RemoteReflector  # not before it is needed: LiteLLM is large

        return RemoteReflector(name, settings.reflection, ledger)
    raise ValueError(
        f"unknown reflector {name!r}: there are base-policy, extractive, a LiteLLM model string such as openai/gpt-5.2, "
        "or any model's name with fast.reflection.base_url"
    )
