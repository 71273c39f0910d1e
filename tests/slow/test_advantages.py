import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fst_bench.slow.advantages import group_advantages, token_weights


def test_two_of_four() -> None:
    assert group_advantages([1, 0, 0, 1], eps=0) == [1, -1, -1, 1]  # mean 1/2, std 1/2


def test_one_of_four() -> None:
    # mean 1/4, variance (9 + 1 + 1 + 1) / 64 = 3/16: A = (3/4) / (sqrt(3)/4) = sqrt(3), and -1/sqrt(3)
    expected = [math.sqrt(3)] + 3 * [-1 / math.sqrt(3)]
    assert group_advantages([1, 0, 0, 0], eps=0) == pytest.approx(expected, rel=1e-12)


def test_eps_is_added_to_the_standard_deviation() -> None:
    assert group_advantages([1, 0], eps=0.5) == [0.5, -0.5]  # 0.5 / (0.5 + 0.5)


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1])
def test_no_variance_no_advantage(reward: float) -> None:
    assert group_advantages([reward] * 3) == [0.0] * 3


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=16))
def test_advantages_sum_to_zero(rewards: list[float]) -> None:
    assert sum(group_advantages(rewards)) == pytest.approx(0, abs=1e-9)


def test_weights_by_hand() -> None:
    lengths = [[2, 3], [5, 5]]
    assert token_weights(lengths, "problem") == [[0.1, 0.1], [0.05, 0.05]]  # 1 / (2 * 5), 1 / (2 * 10)
    assert token_weights(lengths, "token") == [[1 / 15] * 2] * 2
    assert token_weights(lengths, "sequence") == [[1 / 8, 1 / 12], [1 / 20, 1 / 20]]
    with pytest.raises(ValueError, match="problem, sequence, token"):
        token_weights(lengths, "batch")


@pytest.mark.parametrize("loss_aggregation", ["problem", "token", "sequence"])
def test_a_masked_rollout_counts_nowhere(loss_aggregation: str) -> None:
    """One rollout of 20 tokens beside one of 200 that is masked: 1/20, not 1/220."""
    assert token_weights([[20, 0]], loss_aggregation) == [[1 / 20, 0.0]]
    assert token_weights([[20], [0]], loss_aggregation) == [[1 / 20], [0.0]]
    assert token_weights([[0, 0], [0]], loss_aggregation) == [[0.0, 0.0], [0.0]]


def test_weights_beside_masked_rollouts_by_hand() -> None:
    lengths = [[2, 0, 3], [0, 0, 0], [5, 10, 0]]
    assert token_weights(lengths, "problem") == [[0.1, 0, 0.1], [0, 0, 0], [1 / 30, 1 / 30, 0]]
    assert token_weights(lengths, "token") == [[0.05, 0, 0.05], [0, 0, 0], [0.05, 0.05, 0]]
    assert token_weights(lengths, "sequence") == [[1 / 8, 0, 1 / 12], [0, 0, 0], [1 / 20, 1 / 40, 0]]


@given(
    st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=5), min_size=1, max_size=5),
    st.sampled_from(["problem", "token", "sequence"]),
)
def test_weights_of_all_tokens_sum_to_one(lengths: list[list[int]], loss_aggregation: str) -> None:
    assume(any(map(any, lengths)))  # where all are masked, nothing is learned
    weights = token_weights(lengths, loss_aggregation)
    assert sum(
        w * n for ws, ns in zip(weights, lengths, strict=True) for w, n in zip(ws, ns, strict=True)
    ) == pytest.approx(1)
