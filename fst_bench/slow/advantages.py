"""Advantages and token weights of a batch of groups."""

from collections.abc import Sequence


def group_advantages(rewards: Sequence[float], eps: float = 1e-6) -> list[float]:
    """Return A_i = (r_i - mean) / (std + eps) over one group, whatever context each rollout had.

    `std` is the population standard deviation. A group without variance gets zeros.
    """
    if min(rewards) == max(rewards):  # rounding in the mean must not look like variance
        return [0.0] * len(rewards)
    mean = sum(rewards) / len(rewards)
    std = (sum((r - mean) ** 2 for r in rewards) / len(rewards)) ** 0.5
    return [(r - mean) / (std + eps) for r in rewards]


def token_weights(lengths: Sequence[Sequence[int]], loss_aggregation: str = "problem") -> list[list[float]]:
    """Return the weight of every token of a rollout.

    `lengths[p][i]` is |y_pi|, the number of sampled tokens of rollout i of problem p, or 0 where it is masked.

    - problem: 1 / (P * sum_i |y_pi|), each problem counts alike (CISPO, arXiv 2506.13585 eq. 4, mean over problems).
    - token: 1 / sum_pi |y_pi|, each token counts alike.
    - sequence: 1 / (N * |y_pi|), each rollout counts alike.

    P is the number of problems, those without variance included; N is the number of rollouts. A masked rollout has
    weight 0 and counts in no sum, and neither does a problem whose rollouts are all masked: the weights of the other
    tokens sum to 1. So it is in verl, and in TRL's means over tokens (dapo, cispo; since pull request 6439, July 2026);
    TRL's mean over sequences (grpo) still counts masked ones. Raises ValueError for an unknown aggregation.
    """
    problems = sum(map(any, lengths))
    tokens = sum(map(sum, lengths))
    rollouts = sum(length > 0 for group in lengths for length in group)

    def weight(group: Sequence[int], length: int) -> float:
        match loss_aggregation:
            case "problem":
                return 1 / (problems * sum(group))
            case "token":
                return 1 / tokens
            case "sequence":
                return 1 / (rollouts * length)
        raise ValueError(f"unknown loss_aggregation {loss_aggregation!r}: there are problem, sequence, token")

    return [[weight(group, length) if length else 0.0 for length in group] for group in lengths]
