"""One RL step from finished rollouts: advantages over the whole group, one weighting over the whole batch, update."""

import math
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .advantages import group_advantages, token_weights
from .losses import cispo

if TYPE_CHECKING:
    from fst_bench.lab import Lab, Rollout
    from fst_bench.policy.base import TokenLoss


class SlowSettings(BaseModel):
    """How the slow loop learns from a batch of groups."""

    model_config = ConfigDict(extra="forbid")

    group: Annotated[int, Field(ge=2)] = 8
    """Rollouts of one problem (G)."""
    cap: Annotated[float, Field(gt=0)] = 5.0
    """CISPO's absolute cap on the importance ratio."""
    anchor: Literal["sampler", "recomputed"] = "sampler"
    """Whose log-probabilities the ratio is against: the sampler's, or the learner's before the first update of the batch."""
    normaliser: Literal["problem", "token", "sequence"] = "problem"
    updates: Annotated[int, Field(ge=1)] = 2
    """Optimizer steps a batch, each on its own share of the problems."""
    truncate: Annotated[float, Field(gt=0)] | None = None
    """Cap on pi_learner / pi_sampler, which then weights every token: truncated importance sampling, for the `recomputed` anchor."""
    overlong: Literal["verify", "zero", "mask"] = "verify"
    """What an answer cut off at `max_tokens` earns in learning: what the verifier says, nothing, or no gradient (its reward still counts for its
    group). They are counted as `unfinished` in any case."""

    @model_validator(mode="after")
    def one_ratio(self) -> Self:
        if self.truncate is not None and self.anchor == "sampler":
            raise ValueError("truncate wants anchor: recomputed; with the sampler's anchor the loss's own ratio is against the sampler already")
        return self


def learn(
    lab: "Lab", groups: "list[list[Rollout]]", settings: SlowSettings, *,
    advantages: list[list[float]] | None = None, penalties: list[list[list[float]]] | None = None, loss: "TokenLoss | None" = None,
) -> dict[str, Any]:  # fmt: skip
    """Update the policy from `groups[p][i]`, the rollouts of problem p. Returns the facts of the step.

    FST's own is the default: one normalisation per problem, over the whole group, and CISPO. An ablation gives its own `advantages[p][i]`,
    `penalties[p][i][t]` that are taken from the advantage of each sampled token, or loss. A share of the batch in which every
    advantage is zero takes no optimizer step.
    """
    loss = loss or partial(cispo, cap=settings.cap)
    advantages = advantages or per_problem(groups, settings)
    signals = [
        [[a - taken for taken in (penalties[p][i] if penalties else [0.0] * r.sample.sampled)] for i, (r, a) in enumerate(zip(g, row, strict=True))]
        for p, (g, row) in enumerate(zip(groups, advantages, strict=True))
    ]
    sampled = groups
    if settings.anchor == "recomputed":
        groups = lab.reanchor(groups)
    facts: dict[str, Any] = {
        "reward": sum(r.verdict.reward for g in groups for r in g) / sum(map(len, groups)),
        "groups_with_variance": sum(any(a) for a in advantages),
        "unfinished": sum(not r.sample.finished for g in groups for r in g),
    }
    shares = [range(k, len(groups), settings.updates) for k in range(min(settings.updates, len(groups)))]
    for share in shares:
        weights = token_weights([[r.sample.sampled for r in groups[p]] for p in share], settings.normaliser)
        rows = [
            (r, signal, [w * ratio for ratio in truncated(r.sample.logprobs, before.sample.logprobs, settings.truncate)])
            for p, group_weights in zip(share, weights, strict=True)
            for r, before, signal, w in zip(groups[p], sampled[p], signals[p], group_weights, strict=True)
            if any(signal)
            and not (settings.overlong == "mask" and not r.sample.finished)  # without an advantage no gradient: not worth a forward pass
        ]
        if rows:
            facts |= lab.update([r for r, _, _ in rows], [a for _, a, _ in rows], [w for _, _, w in rows], loss)
    return facts


def per_problem(groups: "list[list[Rollout]]", settings: SlowSettings) -> list[list[float]]:
    """The advantage of every rollout: one normalisation per problem over its whole group, whatever context each rollout had."""
    return [group_advantages([reward(r, settings) for r in group]) for group in groups]


def reward(rollout: "Rollout", settings: SlowSettings) -> float:
    return 0.0 if settings.overlong == "zero" and not rollout.sample.finished else rollout.verdict.reward


def truncated(learner: list[float], sampler: list[float], cap: float | None) -> list[float]:
    """min(pi_learner / pi_sampler, cap) of every token, before the first update; 1 without a cap."""
    return [1.0 if cap is None else min(math.exp(ours - theirs), cap) for ours, theirs in zip(learner, sampler, strict=True)]
