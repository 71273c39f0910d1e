"""Reflectors: reflection prompt in, text with a new prompt in a fenced block out.

`extractive` is the embedded default: deterministic, no hub, no key. It reads nothing but gepa's own reflection
prompt, and turns the feedback sentences in it into instructions by rules of English that know no task. It is not
a language model: it cannot see why an answer failed, only what the feedback says.
"""

import random
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from fst_bench.lab import ReflectionFailure
from fst_bench.policy import Ask, Policy

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


def base_policy(policy: Policy) -> Reflector:
    """The frozen base model reflects on itself."""

    def reflect(prompt: str, seed: int) -> str:
        try:
            return policy.sample([Ask(({"role": "user", "content": prompt},), seed)], base=True)[0][0].text
        except ValueError as error:  # the reflection prompt does not fit into the model
            raise ReflectionFailure(str(error)) from None

    return reflect


def litellm_model(model: str) -> Reflector:
    """Any LiteLLM model string; the key comes from the environment and is written nowhere."""
    try:
        import litellm
    except ImportError:
        raise ValueError(f"reflector {model!r} needs litellm: pip install 'fst-bench[reflection]'") from None

    def reflect(prompt: str, seed: int) -> str:
        try:
            reply: Any = litellm.completion(model=model, messages=[{"role": "user", "content": prompt}], num_retries=2, timeout=600)
            return reply.choices[0].message.content or ""
        except Exception as error:  # whatever a provider raises is one failed reflection; the run goes on with the old prompts
            raise ReflectionFailure(type(error).__name__) from error

    return reflect


def load_reflector(name: str, policy: Policy) -> Reflector:
    """The reflector of that name. ValueError says what exists."""
    if name == "extractive":
        return extractive
    if name == "base-policy":
        return base_policy(policy)
    if "/" in name:
        return litellm_model(name)
    raise ValueError(f"unknown reflector {name!r}: there are base-policy, extractive, or a LiteLLM model string such as openai/gpt-5.2")
