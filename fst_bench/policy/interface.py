"""The boundary between the harness and whatever samples and trains.

The harness sees conversations, sampled tokens with the sampler's log-probabilities, and one `update`. It never
sees a device, a rank, an engine or a weight.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from fst_bench.core.types import Message, Sample, SampleRequest
from fst_bench.policy.template import Template

if TYPE_CHECKING:
    from torch import Tensor


Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of samples that are whole, and of all."""


class TokenLoss(Protocol):
    """A policy-gradient loss, token by token: see `fst_bench.slow.losses`. All tensors have shape (tokens,)."""

    def __call__(self, logprobs: "Tensor", sampled_logprobs: "Tensor", advantages: "Tensor") -> "Tensor": ...


class LanguageModel(Protocol):
    """The interface that the policy and its reference policy share: they sample, score, and can be written to disk."""

    def sample(
        self, requests: Sequence[SampleRequest], *, temperature: float = 1.0, progress: Progress | None = None
    ) -> list[list[Sample]]:
        """Return `request.n` samples for each request, in order. A pure function of (weights, requests, temperature).

        Raises ValueError where a prompt leaves no room for an answer. Where a tool's reply (`request.after`) leaves
        none, the sample comes back as it was, but not finished; the tokens of a reply are not sampled ones. `progress`
        is called now and then by a backend that knows.
        """
        ...

    def logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        """Return the log-probability of every sampled token of each sample under these weights, at its temperature."""
        ...

    def export(self, folder: Path) -> None:
        """Write a plain transformers model folder, tokenizer and chat template included."""
        ...


class Policy(LanguageModel, Protocol):
    """The weights that learn. Sampler and learner are behind one interface."""

    @property
    def reference(self) -> LanguageModel:
        """The reference policy: the base model's weights, frozen."""
        ...

    @property
    def template(self) -> Template:
        """How conversations become the model's tokens."""
        ...

    @property
    def max_prompt_tokens(self) -> int:
        """The most tokens that a prompt may have: behind it there is room for an answer."""
        ...

    @property
    def version(self) -> int:
        """The number of optimizer steps taken: a score belongs to a version."""
        ...

    def with_prompt(self, samples: Sequence[Sample], conversations: Sequence[tuple[Message, ...]]) -> list[Sample]:
        """Return the same sampled tokens after other prompts, with their log-probabilities there.

        `conversations` are the messages before the first answer; the log-probabilities are the current weights'.
        Raises ValueError where a conversation leaves no room.
        """
        ...

    def kl_to_reference(self, samples: Sequence[Sample], *, reverse: bool = False) -> list[float]:
        """Return for each sample the sum over its sampled tokens of KL(policy || reference), in nats.

        Exact over the vocabulary. `reverse` is KL(reference || policy), for samples of the reference policy.
        """
        ...

    def update(
        self,
        samples: Sequence[Sample],
        advantages: Sequence[Sequence[float]],
        weights: Sequence[Sequence[float]],
        loss: TokenLoss,
    ) -> dict[str, float]:
        """Take one optimizer step on the sum over tokens of weight * loss, and return its metrics.

        `advantages` and `weights` have one number for each sampled token of each sample. Nothing is normalised here,
        so how the samples are cut into micro-batches changes nothing but rounding. The metrics are the loss, the
        gradient norm and the mismatch between sampler and learner (see `fst_bench.policy.scoring.Mismatch`).
        Raises NotFinite, and changes nothing, where one of them is infinite or not a number.
        """
        ...

    def save(self, folder: Path) -> None:
        """Save weights, optimizer state and version, so that `load` continues bit for bit.

        Raises OSError where they can't be written.
        """
        ...

    def load(self, folder: Path) -> None:
        """Load what `save` wrote."""
        ...

    def start_from(self, folder: Path) -> None:
        """Load the weights that `save` wrote, with a fresh optimizer. The reference policy stays the base model."""
        ...
