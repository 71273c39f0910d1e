"""Distance of a policy to another one: KL, exact over the vocabulary at every token of an answer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from torch import Tensor


ROWS = 512
"""Tokens at a time: with a vocabulary of 150,000 the intermediate tensors of all at once would be gigabytes."""


@dataclass(frozen=True)
class Drift:
    """KL of some answers."""

    answers: Sequence[float]
    """Nats summed over each answer's tokens."""
    tokens: Sequence[int]
    """Tokens of each answer."""

    @property
    def per_token(self) -> float:
        """Nats per token, pooled over all tokens. It falls where answers grow by tokens that both models agree on."""
        return sum(self.answers) / sum(self.tokens)

    @property
    def per_answer(self) -> float:
        """Nats per answer: the mean of the answers' sums."""
        return sum(self.answers) / len(self.answers)


def least_kl(accuracy: float, base: float, n: int) -> float:
    """Return the least KL an answer, in nats, of a policy with this accuracy to a base with that one.

    Whether an answer is right is a function of it, and a function loses KL: it is at least the KL between two coins
    with the accuracies (data processing). Those of `n` answers each are estimated as (right + 1/2) / (n + 1), so that
    a base that was never right has a floor too.
    """
    p, q = ((share * n + 0.5) / (n + 1) for share in (accuracy, base))
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def token_kl(p: "Tensor | ArrayLike", q: "Tensor | ArrayLike", tokens: Sequence[int]) -> Drift:
    """Return KL(p || q) at the tokens of some answers, from logits (tokens, vocabulary), answer after answer.

    `tokens` are the lengths of the answers. The first argument is the model that sampled them: KL(train || base), the
    paper's, is on the trained policy's own answers, and KL(base || train) on the base's. Raises ValueError where shapes
    do not fit or a logit is NaN.
    """
    import torch  # not needed to read finished runs

    p, q = (logits if isinstance(logits, torch.Tensor) else torch.tensor(np.asarray(logits)) for logits in (p, q))
    tokens = [int(length) for length in tokens]
    if p.shape != q.shape or p.ndim != 2 or len(p) != sum(tokens) or not len(p) or min(tokens) < 1:
        raise ValueError(
            f"logits are (tokens, vocabulary) of {sum(tokens)} tokens in answers of {tokens[:5]}..., "
            f"got {tuple(p.shape)} and {tuple(q.shape)}"
        )
    if p.isnan().any() or q.isnan().any():
        raise ValueError("a logit is NaN")
    kl = torch.cat([exact(first, second) for first, second in zip(p.split(ROWS), q.split(ROWS), strict=True)])
    return Drift([float(part.sum()) for part in kl.split(tokens)], tokens)


def exact(p: "Tensor", q: "Tensor") -> "Tensor":
    """Return KL(p || q) at each token, (tokens,), from logits (tokens, vocabulary)."""
    ours, theirs = p.float().log_softmax(-1), q.float().log_softmax(-1)
    return (ours.exp() * (ours - theirs)).sum(-1)
