"""Reflectors: reflection prompt in, text with a new prompt in a fenced block out.

`extractive` is the embedded default: deterministic, no hub, no key. It reads nothing but gepa's own reflection
prompt, and turns the feedback sentences in it into instructions by rules of English that know no task. It is not
a language model: it cannot see why an answer failed, but only reads the feedback.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence

from fst_bench.core.types import Sample, SampleRequest
from fst_bench.fast.bank import bank
from fst_bench.fast.demonstrations import Demonstrations
from fst_bench.method.ledger import Ledger
from fst_bench.method.reflection import FEEDBACK, SENTENCE, ReflectionFailure, Reflector, current_in, fence_around
from fst_bench.method.settings import EMBEDDED_REFLECTORS, BasePolicySettings, FastSettings
from fst_bench.policy import Policy

MAX_SENTENCES = 6
RULES: list[tuple[re.Pattern[str], tuple[str, ...]]] = [
    (re.compile(r"It helps to (.+)\."), ("{0}.", "Always {0}.")),
    (re.compile(r"The (\w+) was expected (.+?)(?:, and .+)?\."), ("Present the {0} {1}.", "Deliver the {0} {1}.")),
    (
        re.compile(r"The (\w+) were expected to be (.+?)(?:, and .+)?\."),
        ("The {0} have to be {1}.", "Make sure the {0} are {1}."),
    ),
]
"""Pattern of a feedback sentence -> wordings of the instruction in it."""


def instructions(feedback: str) -> list[tuple[str, ...]]:
    """Return the wordings of the instruction in each sentence of feedback that a rule matches."""
    found = []
    for sentence in SENTENCE.split(feedback.strip()):
        for pattern, wordings in RULES:
            if match := pattern.fullmatch(sentence.strip()):
                texts = (wording.format(*match.groups()) for wording in wordings)
                found.append(tuple(text[0].upper() + text[1:] for text in texts))
    return found


def extractive(prompt: str, seed: int) -> str:
    """Reply with the current prompt, changed in one way.

    It gains the instruction that the feedback asks for most, repeats an ignored one last or in other words, or loses a
    sentence. Raises ReflectionFailure where the reflection prompt holds no current one.
    """
    current = current_in(prompt)
    rng = random.Random(f"{seed}/{prompt}")
    sentences = [s for s in SENTENCE.split(current.strip()) if s]
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
    text = " ".join(sentences)
    fence = fence_around(text)
    return f"{fence}\n{text}\n{fence}"


class BasePolicy:
    """A reflector that is the frozen reference policy, on several reflection prompts in one batch.

    Its tokens are counted in the ledger at a price of zero.
    """

    def __init__(self, policy: Policy, ledger: Ledger, settings: BasePolicySettings):
        self.policy, self.ledger, self.settings = policy, ledger, settings

    def reflect_many(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[str | ReflectionFailure]:
        """Return the reply to each prompt; one that is too long, or whose reply was cut off, fails alone."""
        # one call: on GPUs the reference weights are loaded into the sampler for it, and the policy's again after it
        requests = [
            SampleRequest(
                ({"role": "user", "content": prompt},),
                seed,
                max_tokens=self.settings.max_tokens,
                stops=self.settings.stop,
            )
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        samples = self.sampled(requests)
        for sample in samples:
            if sample:
                self.ledger.reflected(len(sample.tokens) - sample.sampled, sample.sampled, 0.0)
        return [reply_of(sample) for sample in samples]

    def sampled(self, requests: list[SampleRequest]) -> list[Sample | None]:
        """Return a sample for each request, None where its prompt leaves no room for an answer."""
        try:
            return [group[0] for group in self.policy.reference.sample(requests)]
        except ValueError:  # one is too long, before anything was sampled: halving finds out which
            half = len(requests) // 2
            return [*self.sampled(requests[:half]), *self.sampled(requests[half:])] if half else [None]


def reply_of(sample: Sample | None) -> str | ReflectionFailure:
    """Return a sample's text as a reply; a failure where the prompt was too long, or the answer was cut off."""
    if sample is None:
        return ReflectionFailure("reflection prompt too long")
    return sample.text if sample.finished else ReflectionFailure("reply cut off")


def load_reflector(settings: FastSettings, policy: Policy, ledger: Ledger) -> Reflector:
    """Return the reflector of the settings, which charges its tokens to the ledger.

    Raise ValueError for an unknown one, or where a package, key or price is missing.
    """
    name = settings.reflector
    if name == "extractive":
        return extractive
    if name == "bank":
        return bank
    if name == "demonstrations":
        return Demonstrations(policy.template, settings.demonstration_tokens)
    if name == "base-policy":
        return BasePolicy(policy, ledger, settings.base_policy)
    if "/" in name or settings.reflection.base_url:
        from fst_bench.fast.remote import RemoteReflector  # only where it is needed: LiteLLM is large

        return RemoteReflector(name, settings.reflection, ledger)
    raise ValueError(
        f"unknown reflector {name!r}: there are {', '.join(sorted(EMBEDDED_REFLECTORS))}, a LiteLLM model such as "
        "openai/gpt-5.2, or any model's name with fast.reflection.base_url"
    )
