"""Policy-gradient losses, one small function each: (logprobs, sampled_logprobs, advantages) -> per-token terms.

All tensors have shape (tokens,), float32. The terms are weighted and summed by the learner; a loss knows neither
groups nor batches. The importance ratio is rho_t = pi_theta(y_t) / pi_old(y_t), pi_old as in `slow.old_logprobs`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def cispo(
    logprobs: "Tensor", sampled_logprobs: "Tensor", advantages: "Tensor", ratio_clip_max: float = 5.0
) -> "Tensor":
    """Return -stopgrad(min(rho, ratio_clip_max)) * A * log pi (CISPO, arXiv 2506.13585).

    Every token keeps a gradient.
    """
    rho = (logprobs.detach() - sampled_logprobs).exp().clamp(max=ratio_clip_max)
    return -rho * advantages * logprobs


def nll(logprobs: "Tensor", sampled_logprobs: "Tensor", advantages: "Tensor") -> "Tensor":
    """Return -A * log pi: the negative log-likelihood of tokens that need not be this policy's own."""
    return -advantages * logprobs


def ppo_clip(
    logprobs: "Tensor",
    sampled_logprobs: "Tensor",
    advantages: "Tensor",
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
) -> "Tensor":
    """Return a term with the gradient of PPO's clipped objective: -min(rho A, clip(rho, 1 - low, 1 + high) A).

    It is GRPO's (arXiv 2402.03300). Its only difference from `cispo`: a token that has moved past its clip, in the
    direction of its advantage, has no gradient. The value is not the objective's.
    """
    rho = (logprobs.detach() - sampled_logprobs).exp()
    past = ((advantages > 0) & (rho > 1 + epsilon_high)) | ((advantages < 0) & (rho < 1 - epsilon_low))
    return -rho.masked_fill(past, 0.0) * advantages * logprobs
