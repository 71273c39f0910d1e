"""From packed answers to the log-probabilities, KL and loss of their sampled tokens, for every backend's learner.

The logits of all tokens at once are the largest tensor of a training step: 8,192 tokens over a vocabulary of 151,936
are 5 GB in float32, and their backward pass takes as much again. They are computed some tokens at a time here, in the
forward and in the backward pass.
"""

import inspect
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fst_bench.core.errors import NotFinite
from fst_bench.core.types import Sample
from fst_bench.policy.interface import TokenLoss
from fst_bench.policy.packing import LARGE, TREE, Packed, hidden_states, pack
from fst_bench.policy.settings import PolicySettings

LOGITS = 2**26
"""Logits computed at a time: 256 MB in float32."""
KNOWN_LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers that a tree's mask can be made for."""
TRIAL_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}
"""Mean difference of log-probabilities below which two ways to compute them are taken to be the same."""


def check_finite(part: str, values: Tensor) -> None:
    """Raise NotFinite where any of the values is infinite or not a number."""
    finite = values.detach().isfinite()
    if not finite.all():
        first = values.detach()[~finite].flatten()[0].item()
        raise NotFinite(f"{part} is not finite ({first}): nothing was learned from it")


@dataclass(frozen=True)
class Head:
    """The output embeddings: hidden states (n, hidden) to float32 logits (n, vocabulary)."""

    weight: Tensor
    bias: Tensor | None
    softcap: float | None
    """Gemma's soft cap: logits are softcap * tanh(logits / softcap)."""
    float32: bool
    """Whether the result is in float32 where the model is not, as a sampler with a float32 head has it."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (n, vocabulary) of hidden states (n, hidden), in float32."""
        if not self.float32 or hidden.dtype == torch.float32:
            found = nn.functional.linear(hidden, self.weight).float()
        elif hidden.is_cuda:
            # a product of two bfloat16 numbers is exact in float32, so this is the line below with less memory
            found = torch.mm(hidden, self.weight.t(), out_dtype=torch.float32)
        else:
            found = hidden.float() @ self.weight.float().t()
        if self.bias is not None:
            found = found + self.bias
        return found if self.softcap is None else self.softcap * torch.tanh(found / self.softcap)

    def chunks(self, tokens: int) -> Iterator[slice]:
        """Yield the slices of `tokens` tokens whose logits are computed together."""
        size = max(1, LOGITS // self.weight.shape[0])
        return (slice(start, start + size) for start in range(0, tokens, size))


class ChosenLogprobs(torch.autograd.Function):
    """log softmax(head(hidden) / temperature)[target] for each token, without the logits of all tokens at once."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperatures: Tensor | None,
        head: Head,
    ) -> Tensor:
        chosen = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        total = torch.empty_like(chosen)
        parts = list(head.chunks(len(hidden)))
        probabilities = None
        for part in parts:
            logits = head.logits(hidden[part])
            if temperatures is not None:
                logits = logits.div_(temperatures[part, None])
            total[part] = logits.logsumexp(-1)
            chosen[part] = logits.gather(1, targets[part, None])[:, 0] - total[part]
            if len(parts) == 1 and any(ctx.needs_input_grad) and head.softcap is None:
                probabilities = logits.sub_(total[:, None]).exp_()  # small enough to keep
        ctx.head = head
        ctx.save_for_backward(hidden, weight, bias, targets, temperatures, total, probabilities)
        return chosen

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, temperatures, total, probabilities = ctx.saved_tensors
        head = Head(weight, bias, ctx.head.softcap, ctx.head.float32)
        for_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for_weight = (
            torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if ctx.needs_input_grad[1] else None
        )
        for_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and ctx.needs_input_grad[2] else None
        for part in head.chunks(len(hidden)):
            gradient = upstream[0][part, None]
            if probabilities is not None:
                slope, bend = probabilities, None
            else:
                logits = head.logits(hidden[part])
                bend = None if head.softcap is None else 1 - (logits / head.softcap) ** 2
                if temperatures is not None:
                    logits = logits.div_(temperatures[part, None])
                slope = logits.sub_(total[part, None]).exp_()
            # of the logits: gradient * (one-hot - probability) / temperature
            slope.mul_(-gradient).scatter_add_(1, targets[part, None], gradient)
            if temperatures is not None:
                slope.div_(temperatures[part, None])
            if bend is not None:
                slope.mul_(bend)
            if for_bias is not None:
                for_bias += slope.sum(0)
            low = slope.to(weight.dtype)
            if for_hidden is not None:
                for_hidden[part] = low @ weight
            if for_weight is not None:
                for_weight = (
                    for_weight.addmm_(low.t(), hidden[part])
                    if low.dtype == torch.float32
                    else for_weight.add_(low.t() @ hidden[part])
                )
        return (
            for_hidden,
            None if for_weight is None else for_weight.to(weight.dtype),
            None if for_bias is None else for_bias.to(weight.dtype),
            None,
            None,
            None,
        )


def exact_kl(p: Head, p_hidden: Tensor, q: Head, q_hidden: Tensor, temperatures: Tensor | None = None) -> Tensor:
    """Return (n,) KL(p || q) at each token, exact over the vocabulary, in nats.

    It is between the distributions that are sampled from: at the `temperatures` (n,), where None is 1.
    """

    def logits(head: Head, hidden: Tensor, part: slice) -> Tensor:
        found = head.logits(hidden[part])
        return found if temperatures is None else found / temperatures[part, None]

    parts = [kl(logits(p, p_hidden, part), logits(q, q_hidden, part)) for part in p.chunks(len(p_hidden))]
    return torch.cat(parts)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Return KL(p || q), (n,), of logits (n, vocabulary), in nats."""
    ours, theirs = p.float().log_softmax(-1), q.float().log_softmax(-1)
    return (ours.exp() * (ours - theirs)).sum(-1)


class Scorer(nn.Module):
    """A model as its learner runs it: from packed answers to the log-probabilities of their sampled tokens."""

    def __init__(self, model: PreTrainedModel, settings: PolicySettings, pad: int):
        super().__init__()
        self.model, self.settings, self.pad = model, settings, pad
        self.shared = False
        """Whether answers share their prompt. `prepare` finds out whether they can."""
        self.contexts = model.device.type == "cpu" and model.config.get_text_config().hidden_size >= LARGE
        """Whether prompts share what they begin with, where answers share their prompt."""
        self.flex = False
        """Whether passes are long rows for flex_attention, as on GPUs."""

    def forward(self, packed: Packed, result: Literal["logprobs", "hidden", "reference"] = "logprobs") -> Tensor:
        """Return the n sampled tokens' log-probabilities (n,) in float32, or hidden states (n, hidden) for the head.

        `reference` is the log-probabilities from the model's own logits, for rows that hold one answer each.
        """
        if result == "reference":
            assert packed.temperatures is None
            logits = self.model(input_ids=packed.ids, use_cache=False).logits.flatten(0, 1)[packed.sources].float()
            return logits.log_softmax(-1).gather(1, packed.targets[:, None])[:, 0]
        hidden = hidden_states(self.model, packed)
        head = self.head
        if result == "hidden":
            return hidden
        return ChosenLogprobs.apply(hidden, head.weight, head.bias, packed.targets, packed.temperatures, head)

    @property
    def head(self) -> Head:
        out = self.model.get_output_embeddings()
        return Head(
            out.weight,
            out.bias,
            getattr(self.model.config, "final_logit_softcapping", None),
            self.settings.float32_head,
        )

    def passes(self, samples: Sequence[Sample]) -> list[Packed]:
        """Return the samples as passes of at most `micro_batch_tokens` tokens."""
        return pack(
            samples,
            self.settings.micro_batch_tokens,
            self.model.device,
            pad=self.pad,
            shared=self.shared,
            contexts=self.shared and self.contexts,
            long_rows=self.flex,
        )

    @torch.no_grad()
    def prepare(self) -> None:
        """Find out with a few tokens whether this model scores packed answers like separate ones.

        If not, they stay separate: models with recurrent layers, or with positions that they count themselves. Raises
        NotFinite where the weights give no number, and ValueError where separate answers get other log-probabilities
        here than from the model itself: its head is then not one that `Head` covers.
        """
        config = self.model.config.get_text_config()
        ids = [(7919 * i + 13) % min(config.vocab_size, 10_000) for i in range(26)]
        prompt, answers = ids[:8], (ids[8:14], ids[14:17], ids[17:])
        samples = [
            Sample(prompt + a, [False] * len(prompt) + [True] * len(a), [0.0] * len(a), "", True) for a in answers
        ]
        separate = [pack([s], len(ids), self.model.device, pad=self.pad, shared=False)[0] for s in samples]
        expected = torch.cat([self(packed, "reference") for packed in separate])
        check_finite("a log-probability of the model as it was loaded", expected)

        def same(found: Tensor) -> bool:
            return float((found - expected).abs().mean()) < TRIAL_TOLERANCE[self.settings.dtype]

        if not same(torch.cat([self(packed) for packed in separate])):
            raise ValueError(
                f"a {type(self.model).__name__} can't be trained here: "
                "its head does more to the logits than a linear map"
            )
        if "position_ids" not in inspect.signature(self.model.base_model.forward).parameters:
            return
        if set(getattr(config, "layer_types", None) or []) - KNOWN_LAYERS:
            return
        ours = self.model.config._attn_implementation == "sdpa" and self.model._can_set_attn_implementation()
        if ours:
            self.model.set_attn_implementation(TREE)
        # as many as in learning: flex_attention compiles for each width
        tokens = max(len(ids), self.settings.micro_batch_tokens)
        for flex in (True, False) if ours and self.model.device.type == "cuda" else (False,):
            try:
                (together,) = pack(samples, tokens, self.model.device, pad=self.pad, long_rows=flex)
                if same(self(together)):
                    self.shared, self.flex = True, flex
                    return
            except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
                how = "flex_attention" if flex else "a mask of its own"
                logging.getLogger(__name__).warning(
                    "a %s does not run with %s: %s", type(self.model).__name__, how, error
                )
        if ours:
            self.model.set_attn_implementation("sdpa")


def per_sample(packed: Packed, values: Tensor, samples: Sequence[Sample]) -> Iterator[tuple[int, Tensor]]:
    """Yield (index of the sample, its part) from `values` (n,), one for each sampled token."""
    return zip(packed.samples, values.split([samples[i].sampled for i in packed.samples]), strict=True)


class Mismatch:
    """The distance of the learner's log-probabilities from the sampler's, over the tokens of one optimizer step.

    `effective_sample_size` is (sum w)^2 / (n sum w^2) with w = pi_learner / pi_sampler: 1 where both agree. After the
    first of several updates on one batch it counts, besides numerical differences, how far the policy itself has moved.
    """

    def __init__(self) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64)
        """Sums of |gap|, w, w^2 and 1 over tokens."""
        self.largest = 0.0

    def add(self, logprobs: Tensor, sampled: Tensor) -> None:
        gap = (logprobs.detach() - sampled).double().cpu()
        w = gap.exp()
        self.sums += torch.stack(
            [gap.abs().sum(), w.sum(), (w * w).sum(), torch.tensor(float(len(gap)), dtype=torch.float64)]
        )
        self.largest = max(self.largest, float(gap.abs().max()))

    @classmethod
    def of(cls, parts: "Iterable[Mismatch]") -> "Mismatch":
        """Return the mismatch over the tokens of all `parts`."""
        whole = cls()
        for part in parts:
            whole.sums, whole.largest = whole.sums + part.sums, max(whole.largest, part.largest)
        return whole

    def metrics(self) -> dict[str, float]:
        gap, w, squares, tokens = self.sums.tolist()
        return {
            "max_logprob_gap": self.largest,
            "mean_logprob_gap": gap / tokens,
            "effective_sample_size": w * w / (tokens * squares),
            "tokens": tokens,
        }


@dataclass
class Update:
    """The loss of one optimizer step as it adds up over passes: a sum over sampled tokens of weight * loss."""

    samples: Sequence[Sample]
    advantages: Sequence[Sequence[float]]
    weights: Sequence[Sequence[float]]
    loss: TokenLoss
    total: float = 0.0
    mismatch: Mismatch = field(default_factory=Mismatch)

    def add(self, packed: Packed, logprobs: Tensor) -> Tensor:
        """Return these tokens' part of the loss, a scalar; `logprobs` (n,) carry the gradient.

        Raises NotFinite where one of the two is infinite or not a number.
        """
        check_finite("a log-probability of the policy", logprobs)

        def flat(values: Sequence[Sequence[float]]) -> Tensor:
            return torch.tensor(
                [x for i in packed.samples for x in values[i]], dtype=torch.float32, device=logprobs.device
            )

        sampled = flat([s.logprobs for s in self.samples])
        part = (flat(self.weights) * self.loss(logprobs, sampled, flat(self.advantages))).sum()
        check_finite("the loss", part)
        self.total += float(part.detach())
        self.mismatch.add(logprobs, sampled)
        return part

    def metrics(self, gradient_norm: float) -> dict[str, float]:
        return {"loss": self.total, "gradient_norm": gradient_norm} | self.mismatch.metrics()
