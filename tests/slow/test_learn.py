"""One learning step on the embedded model, against the formula of DESIGN section 6 written out."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from fst_bench.bench import Bench
from fst_bench.lab import Attempt, Rollout
from fst_bench.slow import SlowSettings, learn
from fst_bench.tasks import Verdict


def groups_with_rewards(bench: Bench, rewards: list[list[float]]) -> list[list[Rollout]]:
    """Real rollouts, with the rewards a test wants to see."""
    batch = bench.lab.begin(0)
    sampled = bench.lab.sample([Attempt(p, "", len(row)) for p, row in zip(batch, rewards, strict=False)], "train")
    return [
        [replace(r, verdict=Verdict(reward, "", "ok")) for r, reward in zip(group, row, strict=True)]
        for group, row in zip(sampled, rewards, strict=True)
    ]


def test_the_loss_is_the_formula(bench: Callable[..., Bench]) -> None:
    b = bench()
    groups = groups_with_rewards(b, [[1, 0, 0], [1, 1, 1], [0, 1, 1]])
    facts = learn(b.lab, groups, SlowSettings(updates=1))
    expected = 0.0
    for group in groups:  # sampled by the very weights that learn, so every ratio is 1
        rewards = torch.tensor([float(r.verdict.reward) for r in group])
        advantages = (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-6)
        tokens = sum(r.sample.sampled for r in group)
        expected -= sum(float(a) * sum(r.sample.logprobs) for a, r in zip(advantages, group, strict=True)) / tokens / len(groups)
    assert facts["loss"] == pytest.approx(expected, rel=1e-4)
    assert facts["max_logprob_gap"] < 1e-5
    assert facts["reward"] == pytest.approx(6 / 9)
    assert b.policy.version == b.ledger.optimizer_steps == 1


def test_no_step_without_variance(bench: Callable[..., Bench]) -> None:
    b = bench()
    before = [p.clone() for p in b.policy.model.parameters()]
    facts = learn(b.lab, groups_with_rewards(b, [[0, 0, 0], [1, 1, 1]]), SlowSettings())
    assert facts["groups_with_variance"] == 0 and "loss" not in facts
    assert b.policy.version == b.ledger.optimizer_steps == 0
    assert all(torch.equal(x, y) for x, y in zip(before, b.policy.model.parameters(), strict=True))


@pytest.mark.parametrize("normaliser", ["problem", "token", "sequence"])
def test_micro_batches_change_nothing(bench: Callable[..., Bench], normaliser: str) -> None:
    gradients = []
    for tokens in (100_000, 150):
        b = bench(policy={"micro_batch_tokens": tokens})
        learn(b.lab, groups_with_rewards(b, [[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1]]), SlowSettings(updates=1, normaliser=normaliser))
        gradients.append(torch.cat([p.grad.flatten() for p in b.policy.model.parameters()]))
    assert torch.linalg.vector_norm(gradients[0] - gradients[1]) < 1e-5 * torch.linalg.vector_norm(gradients[0])


def test_recomputed_anchor_is_the_samplers_at_the_first_update(bench: Callable[..., Bench]) -> None:
    losses = []
    for anchor in ("sampler", "recomputed"):
        b = bench()
        losses.append(learn(b.lab, groups_with_rewards(b, [[1, 0], [0, 1]]), SlowSettings(updates=1, anchor=anchor))["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_updates_share_the_problems(bench: Callable[..., Bench]) -> None:
    b = bench()
    learn(b.lab, groups_with_rewards(b, [[1, 0], [0, 1], [1, 1]]), SlowSettings(updates=2))
    assert b.ledger.optimizer_steps == 2  # problems 0 and 2, then problem 1
