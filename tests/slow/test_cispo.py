"""CISPO on a policy of three tokens, against values worked out with `math` alone."""

import math

import pytest
import torch

from fst_bench.slow.losses import cispo

LOGITS = [0.2, -0.1, 0.4]
TOTAL = sum(math.exp(z) for z in LOGITS)
PROBABILITIES = [math.exp(z) / TOTAL for z in LOGITS]


@pytest.mark.parametrize(
    ("token", "sampled_probability", "advantage", "cap", "coefficient"),
    [
        (2, 0.5, 1.5, 5.0, PROBABILITIES[2] / 0.5),  # below the cap: the ratio itself
        (2, 0.05, 1.5, 2.0, 2.0),  # ratio about 8: the cap
        (0, 0.05, -0.7, 2.0, 2.0),  # capped with a negative advantage: PPO would drop this gradient too, CISPO keeps it
        (1, 0.9, -0.7, 5.0, PROBABILITIES[1] / 0.9),
    ],
)
def test_loss_and_gradient(
    token: int, sampled_probability: float, advantage: float, cap: float, coefficient: float
) -> None:
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    logprob = torch.log_softmax(logits, 0)[token][None]
    loss = cispo(
        logprob,
        torch.tensor([math.log(sampled_probability)], dtype=torch.float64),
        torch.tensor([advantage], dtype=torch.float64),
        cap,
    )
    loss.sum().backward()
    assert loss.item() == pytest.approx(-coefficient * advantage * math.log(PROBABILITIES[token]), rel=1e-12)
    for i, gradient in enumerate(logits.grad.tolist()):  # d log p_token / d z_i = [i == token] - p_i
        assert gradient == pytest.approx(-coefficient * advantage * ((i == token) - PROBABILITIES[i]), rel=1e-12)


def test_two_tokens_are_two_terms() -> None:
    logprobs, sampled = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -2.0])
    terms = cispo(logprobs, sampled, torch.tensor([1.0, -1.0]), 5.0)
    assert terms.tolist() == pytest.approx([math.exp(0.5) * 1.0, -2.0])
