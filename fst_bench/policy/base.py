"""The boundary between the harness and whatever samples and trains.

The harness sees conversations, sampled tokens with the sampler's log-probabilities, and one `update`. It never
sees a device, a rank, an engine or a weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

Message = dict[str, str]
"""{"role": "system" | "user" | "assistant" | "tool", "content": text}"""


@dataclass(frozen=True)
class Ask:
    """Sample `n` answers to one conversation; their prefill is shared.

    The random numbers belong to the ask: what it samples does not depend on what else is asked beside it.
    """

    messages: tuple[Message, ...]
    seed: int
    n: int = 1
    after: "Sample | None" = None
    """The sample that stands for all of `messages` but the last one, which is the reply to it: the conversation goes on, token for token,
    and so does the sample, with one answer."""


@dataclass(frozen=True)
class Sample:
    """One sampled answer, of one turn or several: all tokens, which of them the policy sampled, and its log-probabilities of those."""

    tokens: list[int]
    mask: list[bool]
    """True where the policy sampled the token (the loss mask); prompt and tool tokens are False."""
    logprobs: list[float]
    """Of the sampled tokens only, at temperature 1, by the weights that sampled; len(logprobs) == sum(mask)."""
    text: str
    """Of the last turn."""
    finished: bool
    """False where the answer was cut off: at `max_tokens`, which all its turns share, or where the model has no more positions."""

    @property
    def sampled(self) -> int:
        return len(self.logprobs)


class TokenLoss(Protocol):
    """A policy-gradient loss, token by token: see `fst_bench.slow.losses`."""

    def __call__(self, logprobs: "Tensor", sampled_logprobs: "Tensor", advantages: "Tensor") -> "Tensor": ...


class Policy(Protocol):
    """Sampler and learner behind one interface. The base weights stay available for KL."""

    @property
    def version(self) -> int:
        """Counts optimizer steps: a score belongs to a version."""
        ...

    def sample(self, asks: Sequence[Ask], *, temperature: float = 1.0, base: bool = False) -> list[list[Sample]]:
        """`ask.n` samples for each ask, in order. A pure function of (weights, asks, temperature).

        `base` samples from the base weights. ValueError when a prompt leaves no room for an answer. Where a reply (`ask.after`) leaves
        none, the sample comes back as it was, but not finished; the tokens of a reply are not sampled ones.
        """
        ...

    def logprobs(self, samples: Sequence[Sample], *, base: bool = False) -> list[list[float]]:
        """Log-probability of every sampled token under the current weights, or the base's; temperature 1."""
        ...

    def retold(self, samples: Sequence[Sample], conversations: Sequence[tuple[Message, ...]]) -> list[Sample]:
        """The same sampled tokens after other prompts, with the log-probabilities that the current weights give them there.

        `conversations` are what comes before the first answer. ValueError when one leaves no room.
        """
        ...

    def kl_to_base(self, samples: Sequence[Sample], *, reverse: bool = False) -> list[float]:
        """Per sample: sum over its sampled tokens of KL(policy || base), exact over the vocabulary, in nats.

        `reverse` is KL(base || policy), for samples of the base's.
        """
        ...

    def update(
        self, samples: Sequence[Sample], advantages: Sequence[Sequence[float]], weights: Sequence[Sequence[float]], loss: TokenLoss
    ) -> dict[str, float]:
        """One optimizer step on sum over tokens of weight * loss; `advantages` and `weights` have one number for each sampled token of each sample.

        Nothing is normalised here, so how the samples are cut into micro-batches changes nothing but rounding.
        Returns loss, gradient norm and the mismatch between sampler and learner (see `scoring.Mismatch`).
        """
        ...

    def save(self, folder: Path) -> None:
        """Weights, optimizer state and version, so that `load` continues bit for bit."""
        ...

    def load(self, folder: Path) -> None: ...

    def export(self, folder: Path, *, base: bool = False) -> None:
        """A plain transformers model folder, tokenizer and chat template included: the weights now, or the base's."""
        ...

    def start_from(self, folder: Path) -> None:
        """The weights that `save` wrote, with a fresh optimizer. The base stays the base."""
        ...
