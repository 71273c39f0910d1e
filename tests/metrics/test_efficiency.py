import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from fst_bench.metrics import (
    Curve,
    Drift,
    Ratio,
    Reached,
    efficiency_ratio,
    least_kl,
    matched_kl,
    ratios_to_peak,
    samples_to_threshold,
    token_kl,
)
from fst_bench.metrics.paired_curves import ratios_of_means, seed_rows

X = [0, 100, 200, 300, 400, 500]


@pytest.mark.parametrize(
    ("accuracy", "hold", "expected"),
    [
        ([0.1, 0.2, 0.5, 0.6, 0.7, 0.8], 2, Reached(200.0, 100.0)),  # at the threshold counts
        ([0.1, 0.6, 0.2, 0.6, 0.7, 0.8], 2, Reached(300.0, 200.0)),  # the lone peak at 100 is not held
        ([0.1, 0.6, 0.2, 0.6, 0.7, 0.8], 1, Reached(100.0, 0.0)),
        ([0.1, 0.6, 0.6, 0.2, 0.7, 0.8], 3, Reached(None, 500.0)),
        ([0.1, 0.2, 0.3, 0.4, 0.4, 0.9], 2, Reached(None, 500.0)),  # one evaluation at the end is no run of two
        ([0.6, 0.7, 0.3, 0.4, 0.4, 0.4], 2, Reached(0.0, 0.0)),  # had it before learning
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.5], 2, Reached(400.0, 300.0)),
    ],
)
def test_the_first_run_that_holds(accuracy: list[float], hold: int, expected: Reached) -> None:
    assert samples_to_threshold(X, accuracy, 0.5, hold) == expected


def test_it_is_shown_with_its_censoring() -> None:
    assert (str(Reached(1200.0, 1000.0)), str(Reached(None, 5040.0))) == ("1,200", ">5,040")


@given(st.lists(st.floats(0, 1), min_size=3, max_size=12), st.floats(0, 1), st.integers(1, 3))
def test_a_higher_threshold_or_longer_hold_never_comes_sooner(
    accuracy: list[float], threshold: float, hold: int
) -> None:
    x = list(range(len(accuracy)))

    def when(t: float, h: int) -> float:
        reached = samples_to_threshold(x, accuracy, t, h).samples
        return math.inf if reached is None else reached

    assert when(threshold, hold) <= when(min(1.0, threshold + 0.1), hold)
    assert when(threshold, hold) <= when(threshold, hold + 1)
    at = when(threshold, hold)
    if at < math.inf:
        assert all(a >= threshold for a in accuracy[int(at) : int(at) + hold])


def test_ratios_keep_what_censoring_leaves() -> None:
    assert efficiency_ratio(Reached(1200.0, 1100.0), Reached(400.0, 300.0)) == Ratio(3.0, "exactly")
    assert efficiency_ratio(Reached(None, 1200.0), Reached(400.0, 300.0)) == Ratio(3.0, "at least")
    assert efficiency_ratio(Reached(600.0, 500.0), Reached(None, 1200.0)) == Ratio(0.5, "at most")
    assert efficiency_ratio(Reached(None, 1200.0), Reached(None, 1200.0)) == Ratio(None, "unknown")
    with pytest.raises(ValueError, match="other curve has no samples"):
        efficiency_ratio(Reached(600.0, 500.0), Reached(0.0, 0.0))


@pytest.mark.parametrize(
    ("samples", "accuracy", "complaint"),
    [
        ([0, 1], [0.1, math.nan], r"accuracy \(1,\) is nan"),
        ([0, 2, 2], [0.1, 0.2, 0.3], "2 is followed by 2"),
        ([0, 1], [0.1], r"got \(2,\) and \(1,\)"),
        ([-1, 1], [0.1, 0.2], "negative: -1"),
        ([], [], "at least 1 points"),
    ],
)
def test_what_is_no_curve_is_refused(samples: list, accuracy: list, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        samples_to_threshold(samples, accuracy, 0.5)


# --- test_drift


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


def test_the_least_kl_is_that_of_two_coins() -> None:
    # (3 + .5) / 4 and (1 + .5) / 4 = .875 and .375: .875 ln(7/3) + .125 ln(1/5)
    assert least_kl(1.0, 1 / 3, 3) == pytest.approx(0.875 * math.log(7 / 3) + 0.125 * math.log(1 / 5))
    assert least_kl(0.3, 0.3, 192) == 0 and math.isfinite(least_kl(1.0, 0.0, 192))


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1), st.booleans()), min_size=1, max_size=8))
def test_no_kl_of_answers_is_below_the_least(answers: list[tuple[float, float, bool]]) -> None:
    """Two distributions over some answers, of which some are right, in the limit of many samples."""
    p, q = (np.array([a[i] for a in answers]) for i in (0, 1))
    p, q = p / p.sum(), q / q.sum()
    right = np.array([a[2] for a in answers])
    many = 10**9
    assert rel_entr(p, q).sum() >= least_kl(float(p[right].sum()), float(q[right].sum()), many) - 1e-6


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


# --- peak ratios and KL at matched accuracy, worked by hand on curves of a few points


def steps(accuracy: list[list[float]], rollouts: float) -> Curve:
    y = np.array(accuracy)
    x = np.arange(y.shape[1]) * 10.0
    every = np.tile(x, (len(y), 1))
    return Curve("m", list(range(len(y))), x, {"problems": every, "rollouts": rollouts * every}, y, y.copy())


def test_the_ratio_by_hand() -> None:
    rl = steps([[0.0, 0.1, 0.2, 0.3, 0.5, 0.4], [0.0, 0.1, 0.2, 0.3, 0.3, 0.4]], rollouts=8)
    fst = steps([[0.0, 0.3, 0.6, 0.6, 0.6, 0.6], [0.0, 0.1, 0.2, 0.2, 0.2, 0.2]], rollouts=16)
    # rl's mean is .4 at its highest, first at 40; fst's mean is .4 first at 20: half the problems, the same rollouts
    ratios = ratios_of_means(fst, rl, [0, 1])
    assert ratios["problems"] == (2.0, False) and ratios["rollouts"] == (1.0, False)
    assert np.isnan(ratios["tokens"][0])  # tokens were not recorded
    # with the second seed alone fst never gets to .4: rl is there at 50, fst not at 50 either
    assert ratios_of_means(fst, rl, [1, 1])["problems"] == (1.0, True)
    problems, rollouts, tokens = ratios_to_peak(fst, rl)
    assert problems is not None and not problems.censored
    assert problems.estimate.low == 0.0 and problems.estimate.high >= 2.0
    assert rollouts is not None and rollouts.estimate.value == 1.0 and tokens is None
    assert ratios_to_peak(steps([[0.5, 0.5]], 1), steps([[0.1, 0.4]], 1)) == [None] * 3  # there before learning


def test_kl_at_matched_accuracy_by_hand() -> None:
    rl = steps([[0.0, 0.2, 0.4, 0.5]] * 2, rollouts=8)  # the KL of these made-up curves is their accuracy
    fst = steps([[0.0, 0.3, 0.6, 0.9]] * 2, rollouts=8)
    fst.kl[:] = fst.accuracy / 10
    # matched at .5, rl's highest: rl is there with .5, fst first at .6 with .06
    lower = matched_kl(fst, rl)
    assert (lower.value, lower.low, lower.high) == pytest.approx((1 - 0.06 / 0.5,) * 3)
    assert matched_kl(rl, fst).value == pytest.approx(1 - 0.5 / 0.06)
    fst.kl[:] = 0
    assert np.isnan(matched_kl(rl, fst).value)


def test_only_the_seeds_of_both_are_paired() -> None:
    rl = steps([[0.0, 0.2], [0.0, 0.4], [0.0, 0.6]], rollouts=8)
    fst = Curve("fst", [2, 7, 0], rl.problems, rl.spent, rl.accuracy[::-1], rl.kl)
    ours, theirs = seed_rows(fst, rl)
    assert ours.seeds == theirs.seeds == [2, 0]
    assert ours.accuracy[:, 1].tolist() == [0.6, 0.2] and theirs.accuracy[:, 1].tolist() == [0.6, 0.2]
    assert ratios_to_peak(fst.rows([]), rl.rows([])) == [None] * 3
