"""Policy-gradient losses, one small function each: (logprobs, sampled_logprobs, advantages) -> per-token terms.

All tensors have shape (tokens,), float32. The terms are weighted and summed by the learner; a loss knows neither
groups nor batches. The ratio is rho_t = pi_theta(y_t) / pi_sampler(y_t).
"""

import torch
from torch import Tensor


def cispo(logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor, cap: float = 5.0) -> Tensor:
    """- stopgrad(min(rho, cap)) * A * log pi: every token keeps a gradient (MiniMax-M1, arXiv 2506.13585).

    `cap` is absolute; libraries that write 1 + eps_high have cap = 1 + eps_high.
    """
    rho = torch.exp(logprobs.detach() - sampled_logprobs).clamp(max=cap)
    return -rho * advantages * logprobs
