"""One RL step from finished rollouts: advantages over each group, token weights and an update for each minibatch."""

import math
from functools import partial
from typing import Any

from fst_bench.core.types import Rollout
from fst_bench.method.lab import Lab
from fst_bench.method.settings import SlowSettings
from fst_bench.policy.interface import TokenLoss
from fst_bench.slow.advantages import group_advantages, token_weights
from fst_bench.slow.losses import cispo


def learn(
    lab: Lab,
    groups: list[list[Rollout]],
    settings: SlowSettings,
    *,
    advantages: list[list[float]] | None = None,
    penalties: list[list[list[float]]] | None = None,
    loss: TokenLoss | None = None,
) -> dict[str, Any]:
    """Update the policy from `groups[p][i]`, rollout i of problem p. Return the metrics of the step.

    The defaults are FST's own: one normalisation per problem, over the whole group, and CISPO. An ablation passes its
    own `advantages[p][i]`, its own loss, or `penalties[p][i][t]`, which are subtracted from the advantage of each
    sampled token. A minibatch in which every advantage is zero takes no optimizer step.
    """
    loss = loss or partial(cispo, ratio_clip_max=settings.ratio_clip_max)
    advantages = advantages or per_problem(groups, settings)
    signals = [
        [
            token_advantages(a, r, penalties[p][i] if penalties else None)
            for i, (r, a) in enumerate(zip(group, row, strict=True))
        ]
        for p, (group, row) in enumerate(zip(groups, advantages, strict=True))
    ]
    sampled = groups  # with the sampler's log-probabilities
    if settings.old_logprobs == "recomputed":
        groups = lab.recompute_logprobs(groups)
    metrics: dict[str, Any] = {
        "reward": sum(r.score.reward for g in groups for r in g) / sum(map(len, groups)),
        "groups_with_variance": sum(any(a) for a in advantages),
        "unfinished": sum(not r.sample.finished for g in groups for r in g),
    }
    n = settings.num_minibatches
    for minibatch in [range(k, len(groups), n) for k in range(min(n, len(groups)))]:
        lengths = [[learned_tokens(r, settings) for r in groups[p]] for p in minibatch]
        weights = token_weights(lengths, settings.loss_aggregation)
        rows = [
            (r, signal, [w * ratio for ratio in tis_weights(r, before, settings.tis_cap)])
            for p, group_weights in zip(minibatch, weights, strict=True)
            for r, before, signal, w in zip(groups[p], sampled[p], signals[p], group_weights, strict=True)
            if w and any(signal)  # a rollout without either has no gradient, and is not worth a forward pass
        ]
        if rows:
            metrics |= lab.update([r for r, _, _ in rows], [a for _, a, _ in rows], [w for _, _, w in rows], loss)
    return metrics


def per_problem(groups: list[list[Rollout]], settings: SlowSettings) -> list[list[float]]:
    """Return the advantage of every rollout: one normalisation per problem, over its whole group."""
    return [group_advantages([reward(r, settings) for r in group]) for group in groups]


def reward(rollout: Rollout, settings: SlowSettings) -> float:
    """Return the reward of a rollout in learning (see `SlowSettings.overlong`)."""
    return 0.0 if settings.overlong == "zero" and not rollout.sample.finished else rollout.score.reward


def learned_tokens(rollout: Rollout, settings: SlowSettings) -> int:
    """Return the tokens of a rollout that count in the loss: none where it is masked."""
    return 0 if settings.overlong == "mask" and not rollout.sample.finished else rollout.sample.sampled


def token_advantages(advantage: float, rollout: Rollout, penalties: list[float] | None) -> list[float]:
    """Return the advantage of each sampled token, less its penalty."""
    return [advantage - penalty for penalty in (penalties or [0.0] * rollout.sample.sampled)]


def tis_weights(learner: Rollout, sampler: Rollout, cap: float | None) -> list[float]:
    """Return min(pi_learner / pi_sampler, cap) of every token, before the first update; 1 without a cap."""
    pairs = zip(learner.sample.logprobs, sampler.sample.logprobs, strict=True)
    return [1.0 if cap is None else min(math.exp(ours - theirs), cap) for ours, theirs in pairs]
