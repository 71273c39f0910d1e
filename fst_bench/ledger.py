"""What a run has spent, charged by the lab at the moment it is spent."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Ledger:
    """Counts are exact and reproducible; `seconds` are wall-clock and belong to no metric."""

    problems: int = 0
    """Problems of the stream seen so far, the peeked ones included."""
    rollouts: Counter[str] = field(default_factory=Counter)
    """By purpose: train, anchor, feedback, ..."""
    prompt_tokens: int = 0
    sampled_tokens: int = 0
    reflections: int = 0
    reflection_failures: int = 0
    reflection_characters: int = 0
    optimizer_steps: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def total_rollouts(self) -> int:
        return sum(self.rollouts.values())

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start

    def counts(self) -> dict[str, Any]:
        """Everything that is the same on every machine: all but the seconds."""
        return {key: dict(sorted(value.items())) if isinstance(value, dict) else value for key, value in vars(self).items() if key != "seconds"}

    def to_dict(self) -> dict[str, Any]:
        return self.counts() | {"seconds": {part: round(s, 3) for part, s in sorted(self.seconds.items())}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Ledger":
        ledger = cls(**{key: value for key, value in values.items() if not isinstance(value, dict)})
        ledger.rollouts.update(values["rollouts"])
        ledger.seconds.update(values["seconds"])
        return ledger
