"""Policy-gradient losses, one small function each: (logprobs, sampled_logprobs, advantages) -> per-token terms.

All tensors have shape (tokens,), float32. The terms are weighted and summed by the learner; a loss knows neither
groups nor batches. The ratio is rho_t = pi_theta(y_t) / pi_sampler(y_t).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def cispo(logprobs: "Tensor", sampled_logprobs: "Tensor", advantages: "Tensor", cap: float = 5.0) -> "Tensor":
    """- stopgrad(min(rho, cap)) * A * log pi: every token keeps a gradient (MiniMax-M1, arXiv 2506.13585).

    `cap` is absolute; libraries that write 1 + eps_high have cap = 1 + eps_high.
    """
    rho = (logprobs.detach() - sampled_logprobs).exp().clamp(max=cap)
    return -rho * advantages * logprobs


def likelihood(logprobs: "Tensor", sampled_logprobs: "Tensor", advantages: "Tensor") -> "Tensor":
    """- A * log pi: supervised learning on tokens that need not be this policy's own."""
    return -advantages * logprobs


def clipped(logprobs: "Tensor", sampled_logprobs: "Tensor", advantages: "Tensor", low: float = 0.2, high: float = 0.2) -> "Tensor":
    """PPO's clipped objective, as GRPO has it (arXiv 2402.03300): -min(rho A, clip(rho, 1 - low, 1 + high) A).

    Written so that its gradient is that of the objective and its only difference to `cispo` is plain: a token that has moved
    past its clip, in the direction that its advantage asks for, has no gradient. (The value is not the objective's.)
    """
    rho = (logprobs.detach() - sampled_logprobs).exp()
    past = ((advantages > 0) & (rho > 1 + high)) | ((advantages < 0) & (rho < 1 - low))
    return -rho.masked_fill(past, 0.0) * advantages * logprobs
