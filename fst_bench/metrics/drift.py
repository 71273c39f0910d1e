"""How far a policy has moved from another one: KL, exact over the vocabulary at every token of an answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


ROWS = 512
"""Tokens at a time: with a vocabulary of 150,000 what stands between the logits and their KL would be gigabytes."""


@dataclass(frozen=True)
class Drift:
    """KL of each answer, in nats summed over its tokens, and how many tokens it has."""

    answers: Sequence[float]
    tokens: Sequence[int]

    @property
    def per_token(self) -> float:
        """Pooled over all tokens. It falls where answers get longer by tokens that both models agree on."""
        return sum(self.answers) / sum(self.tokens)

    @property
    def per_answer(self) -> float:
        """Mean of the answers' sums."""
        return sum(self.answers) / len(self.answers)


def token_kl(p: "Tensor", q: "Tensor", tokens: Sequence[int]) -> Drift:
    """KL(p || q) at the tokens of some answers to the same prompts, from logits (tokens, vocabulary), answer after answer.

    `tokens` is how many each answer has. KL(train || base), the paper's, is on the trained policy's own answers; the
    other direction is (base, train) on the base's: the first argument is the model whose answers they are.
    ValueError where shapes do not fit or a logit is NaN.
    """
    import torch  # here, so that reading finished runs does without

    if p.shape != q.shape or p.ndim != 2 or len(p) != sum(tokens) or not len(p) or min(tokens) < 1:
        raise ValueError(
            f"logits are (tokens, vocabulary) of {sum(tokens)} tokens in answers of {list(tokens)[:5]}..., got {tuple(p.shape)} and {tuple(q.shape)}"
        )
    if p.isnan().any() or q.isnan().any():
        raise ValueError("a logit is NaN")
    kl = torch.cat([exact(first, second) for first, second in zip(p.split(ROWS), q.split(ROWS), strict=True)])
    return Drift([float(part.sum()) for part in kl.split(list(tokens))], list(tokens))


def exact(p: "Tensor", q: "Tensor") -> "Tensor":
    """(tokens,) from (tokens, vocabulary)."""
    ours, theirs = p.float().log_softmax(-1), q.float().log_softmax(-1)
    return (ours.exp() * (ours - theirs)).sum(-1)
