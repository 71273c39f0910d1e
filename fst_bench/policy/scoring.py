"""What every backend's learner shares: how rows are cut into micro-batches, padded and scored, and the policy-gradient loss over them."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .base import Sample, TokenLoss


def micro_batches(samples: Sequence[Sample], tokens: int) -> Iterator[list[int]]:
    """Indices of similar lengths, answers to one prompt side by side, each batch of at most `tokens` padded tokens (or one row)."""

    def key(i: int) -> tuple[int, list[int]]:
        prompt = samples[i].tokens[: samples[i].mask.index(True)]
        return len(prompt), prompt

    batch: list[int] = []
    for i in sorted(range(len(samples)), key=key):
        if batch and (len(batch) + 1) * max(len(samples[j].tokens) for j in (*batch, i)) > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def targets_of(samples: Sequence[Sample], device: torch.device) -> Tensor:
    """(sampled tokens,) of all rows, row after row."""
    return torch.tensor([t for s in samples for t, sampled in zip(s.tokens, s.mask, strict=True) if sampled], device=device)


def padded(samples: Sequence[Sample], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(ids, chosen), both (rows, longest): `chosen` marks the sampled tokens. Right-padded, so that causality hides the padding."""
    length = max(len(s.tokens) for s in samples)
    ids = torch.full((len(samples), length), pad, device=device)
    chosen = torch.zeros((len(samples), length), dtype=torch.bool, device=device)
    for i, s in enumerate(samples):
        ids[i, : len(s.tokens)] = torch.tensor(s.tokens)
        chosen[i, : len(s.tokens)] = torch.tensor(s.mask)
    return ids, chosen


def logits_at(model: PreTrainedModel, ids: Tensor, chosen: Tensor, float32_head: bool) -> Tensor:
    """float32 logits (sampled tokens, vocabulary) that predict the chosen tokens; the head itself runs in float32 where asked for."""
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][chosen[:, 1:]]
    head = model.get_output_embeddings()
    if float32_head and hidden.dtype != torch.float32:
        return torch.nn.functional.linear(hidden.float(), head.weight.float(), None if head.bias is None else head.bias.float())
    return head(hidden).float()


def chosen_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """(sampled tokens,)"""
    return torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]


def policy_loss(
    logprobs: Tensor, rows: Sequence[Sample], advantages: Sequence[Sequence[float]], weights: Sequence[Sequence[float]], loss: TokenLoss
) -> Tensor:
    """Sum over the sampled tokens of weight * loss. `logprobs` (sampled tokens,) carries the gradient; the lists have one number for each of them."""
    advantage, weight = (
        torch.tensor([x for row in values for x in row], dtype=torch.float32, device=logprobs.device) for values in (advantages, weights)
    )
    return (weight * loss(logprobs, sampler_logprobs(rows, logprobs.device), advantage)).sum()


def sampler_logprobs(rows: Sequence[Sample], device: torch.device) -> Tensor:
    return torch.tensor([lp for row in rows for lp in row.logprobs], device=device)


class Mismatch:
    """How far the learner's log-probabilities are from the sampler's, over the tokens of one optimizer step.

    `effective_sample_size` is (sum w)^2 / (n sum w^2) with w = pi_learner / pi_sampler: 1 where both agree. After the first
    of several updates on one batch it counts, besides numerical differences, how far the policy itself has moved.
    """

    def __init__(self) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64)
        """|gap|, w, w^2, tokens"""
        self.largest = 0.0

    def add(self, logprobs: Tensor, sampled: Tensor) -> None:
        gap = (logprobs.detach() - sampled).double().cpu()
        w = gap.exp()
        self.sums += torch.stack([gap.abs().sum(), w.sum(), (w * w).sum(), torch.tensor(float(len(gap)), dtype=torch.float64)])
        self.largest = max(self.largest, float(gap.abs().max()))

    def facts(self) -> dict[str, float]:
        gap, w, squares, tokens = self.sums.tolist()
        return {
            "max_logprob_gap": self.largest, "mean_logprob_gap": gap / tokens,
            "effective_sample_size": w * w / (tokens * squares), "tokens": tokens,
        }  # fmt: skip
