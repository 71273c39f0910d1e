"""The ledger: the costs of a run, charged by the lab at the moment they arise."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Ledger:
    """The costs of a run. Counts are exact and reproducible; `seconds` are wall-clock and belong to no metric."""

    problems: int = 0
    """Problems of the stream seen so far, the peeked ones included."""
    rollouts: Counter[str] = field(default_factory=Counter)
    """Rollouts by purpose: train, valset, feedback, ..."""
    prompt_tokens: int = 0
    sampled_tokens: int = 0
    reflections: int = 0
    reflection_failures: int = 0
    reflection_characters: int = 0
    reflection_reasons: Counter[str] = field(default_factory=Counter)
    """Failures by reason."""
    reflection_retries: int = 0
    reflection_prompt_tokens: int = 0
    reflection_sampled_tokens: int = 0
    reflection_usd: float | None = 0.0
    """US dollars; None from the first reply on whose price is unknown."""
    reflection_unanswered_tokens: int = 0
    """Upper bound for requests that were sent and got no readable answer: a provider may bill them all the same."""
    reflection_unanswered_usd: float | None = 0.0
    optimizer_steps: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def total_rollouts(self) -> int:
        """The number of rollouts of all purposes."""
        return sum(self.rollouts.values())

    def reflected(self, prompt_tokens: int, sampled_tokens: int, usd: float | None) -> None:
        """Charge a reflection's reply; `usd` is None where the price is unknown."""
        self.reflection_prompt_tokens += prompt_tokens
        self.reflection_sampled_tokens += sampled_tokens
        self.reflection_usd = total(self.reflection_usd, usd)

    def unanswered(self, tokens: int, usd: float | None) -> None:
        """Charge a reflection request that got no readable answer, with the most it can have cost."""
        self.reflection_unanswered_tokens += tokens
        self.reflection_unanswered_usd = total(self.reflection_unanswered_usd, usd)

    def reflection_spent(self) -> tuple[int, float | None]:
        """Return (tokens, USD) of all reflection so far; requests without an answer count at their upper bound."""
        tokens = self.reflection_prompt_tokens + self.reflection_sampled_tokens + self.reflection_unanswered_tokens
        return tokens, total(self.reflection_usd, self.reflection_unanswered_usd)

    def reflection_failed(self, reason: str) -> None:
        """Count a failed reflection under its reason."""
        self.reflection_failures += 1
        self.reflection_reasons[reason] += 1

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the wall-clock time of the block to `seconds[part]`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start

    def counts(self) -> dict[str, Any]:
        """Return everything that is the same on every machine: all but the seconds."""
        return {
            key: dict(sorted(value.items())) if isinstance(value, dict) else value
            for key, value in vars(self).items()
            if key != "seconds"
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the ledger as JSON values, seconds rounded to milliseconds."""
        return self.counts() | {"seconds": {part: round(s, 3) for part, s in sorted(self.seconds.items())}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Ledger":
        """Return the ledger that `to_dict` wrote; counts that it lacks are zero."""
        ledger = cls(**{key: value for key, value in values.items() if not isinstance(value, dict)})
        ledger.rollouts.update(values["rollouts"])
        ledger.reflection_reasons.update(values.get("reflection_reasons", {}))
        ledger.seconds.update(values["seconds"])
        return ledger


def total(spent: float | None, usd: float | None) -> float | None:
    """Return the sum of two prices. An unknown one (None) makes the sum unknown, never smaller."""
    return None if spent is None or usd is None else spent + usd
