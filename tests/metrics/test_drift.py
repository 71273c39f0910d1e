import math

import pytest
import torch
from scipy.special import rel_entr, softmax

from fst_bench.metrics import Drift, token_kl


def test_two_tokens_by_hand() -> None:
    # p = (1/2, 1/2), q = (1/4, 3/4)
    # KL(p||q) = .5 ln 2 + .5 ln (2/3) = .143841; KL(q||p) = .25 ln .5 + .75 ln 1.5 = .130812
    p, q = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, math.log(3)], [5.0, 5.0]])
    assert token_kl(p, q, [2]).answers == pytest.approx([0.143841], abs=1e-6)
    assert token_kl(q, p, [2]).answers == pytest.approx([0.130812], abs=1e-6)
    assert token_kl(p, q, [1, 1]).answers == pytest.approx([0.143841, 0.0], abs=1e-6)


def test_per_token_is_pooled_and_per_answer_is_summed() -> None:
    drift = Drift([0.6, 0.1], [2, 8])
    assert drift.per_token == pytest.approx(0.07)  # (.6 + .1) / 10, not the mean of .3 and .0125
    assert drift.per_answer == pytest.approx(0.35)


def test_against_an_independent_sum_over_the_vocabulary() -> None:
    torch.manual_seed(0)
    p, q = torch.randn(12, 50) * 3, torch.randn(12, 50) * 3
    exact = rel_entr(softmax(p.double().numpy(), -1), softmax(q.double().numpy(), -1)).sum(-1)
    drift = token_kl(p, q, [5, 3, 4])
    assert drift.answers == pytest.approx([exact[:5].sum(), exact[5:8].sum(), exact[8:].sum()], rel=1e-5)
    assert token_kl(p, p, [12]).answers == [0.0]
    assert drift.per_token == pytest.approx(exact.mean(), rel=1e-5)


def test_an_impossible_token_counts_nothing() -> None:
    p, q = torch.tensor([[0.0, -1e9, 0.0]]), torch.tensor([[0.0, 0.0, 0.0]])
    assert token_kl(p, q, [1]).answers == pytest.approx([math.log(1.5)], abs=1e-6)  # (1/2, 0, 1/2) against thirds


@pytest.mark.parametrize("tokens", [[2, 2], [3, 0], []])
def test_tokens_that_do_not_add_up_are_refused(tokens: list[int]) -> None:
    with pytest.raises(ValueError, match="logits are"):
        token_kl(torch.zeros(3, 4), torch.zeros(3, 4), tokens)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        token_kl(torch.full((3, 4), math.nan), torch.zeros(3, 4), [3])
