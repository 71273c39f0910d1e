"""One RL step from finished rollouts: advantages over the whole group, one weighting over the whole batch, update."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .advantages import group_advantages, token_weights
from .losses import cispo

if TYPE_CHECKING:
    from fst_bench.lab import Lab, Rollout


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


def learn(lab: "Lab", groups: "list[list[Rollout]]", settings: SlowSettings) -> dict[str, Any]:
    """Update the policy from `groups[p][i]`, the rollouts of problem p. Returns the facts of the step.

    A share of the batch in which every group has zero variance takes no optimizer step.
    """
    advantages = [group_advantages([r.verdict.reward for r in group]) for group in groups]
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
            (r, a, w)
            for p, group_weights in zip(share, weights, strict=True)
            for r, a, w in zip(groups[p], advantages[p], group_weights, strict=True)
            if a  # a zero advantage gives zero gradient: not worth a forward pass
        ]
        if rows:
            facts |= lab.update([r for r, _, _ in rows], [a for _, a, _ in rows], [w for _, _, w in rows], partial(cispo, cap=settings.cap))
    return facts
