"""One learning step on the embedded model, against the formula written out."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from fst_bench.core.types import Rollout, RolloutRequest
from fst_bench.harness.loop import Bench
from fst_bench.method.settings import SlowSettings
from fst_bench.slow import learn
from fst_bench.slow.advantages import group_advantages, token_weights
from fst_bench.slow.losses import cispo
from fst_bench.tasks import Score


def groups_with_rewards(bench: Bench, rewards: list[list[float]]) -> list[list[Rollout]]:
    """Real rollouts, with the rewards a test wants to see."""
    batch = bench.lab.begin(0)
    sampled = bench.lab.sample(
        [RolloutRequest(p, "", len(row)) for p, row in zip(batch, rewards, strict=False)], "train"
    )
    return [
        [replace(r, score=Score(reward, "", "ok")) for r, reward in zip(group, row, strict=True)]
        for group, row in zip(sampled, rewards, strict=True)
    ]


def test_the_loss_is_the_formula(bench: Callable[..., Bench]) -> None:
    b = bench()
    groups = groups_with_rewards(b, [[1, 0, 0], [1, 1, 1], [0, 1, 1]])
    metrics = learn(b.lab, groups, SlowSettings(num_minibatches=1))
    expected = 0.0
    for group in groups:  # sampled by the very weights that learn, so every ratio is 1
        rewards = torch.tensor([float(r.score.reward) for r in group])
        advantages = (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-6)
        tokens = sum(r.sample.sampled for r in group)
        expected -= (
            sum(float(a) * sum(r.sample.logprobs) for a, r in zip(advantages, group, strict=True))
            / tokens
            / len(groups)
        )
    assert metrics["loss"] == pytest.approx(
        expected, rel=1e-4, abs=1e-6
    )  # terms of either sign: what is left of them is small
    assert metrics["max_logprob_gap"] < 1e-5
    assert metrics["reward"] == pytest.approx(6 / 9)
    assert b.policy.version == b.ledger.optimizer_steps == 1


def test_no_step_without_variance(bench: Callable[..., Bench]) -> None:
    b = bench()
    before = [p.clone() for p in b.policy.model.parameters()]
    metrics = learn(b.lab, groups_with_rewards(b, [[0, 0, 0], [1, 1, 1]]), SlowSettings())
    assert metrics["groups_with_variance"] == 0 and "loss" not in metrics
    assert b.policy.version == b.ledger.optimizer_steps == 0
    assert all(torch.equal(x, y) for x, y in zip(before, b.policy.model.parameters(), strict=True))


@pytest.mark.parametrize("loss_aggregation", ["problem", "token", "sequence"])
def test_micro_batches_change_nothing(bench: Callable[..., Bench], loss_aggregation: str) -> None:
    gradients = []
    for tokens in (100_000, 150):
        b = bench(policy={"micro_batch_tokens": tokens})
        learn(
            b.lab,
            groups_with_rewards(b, [[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1]]),
            SlowSettings(num_minibatches=1, loss_aggregation=loss_aggregation),
        )
        gradients.append(torch.cat([p.grad.flatten() for p in b.policy.model.parameters()]))
    assert torch.linalg.vector_norm(gradients[0] - gradients[1]) < 1e-5 * torch.linalg.vector_norm(gradients[0])


def test_recomputed_logprobs_are_the_samplers_at_the_first_update(bench: Callable[..., Bench]) -> None:
    losses = []
    for old_logprobs in ("sampler", "recomputed"):
        b = bench()
        losses.append(
            learn(
                b.lab,
                groups_with_rewards(b, [[1, 0], [0, 1]]),
                SlowSettings(num_minibatches=1, old_logprobs=old_logprobs),
            )["loss"]
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_updates_share_the_problems(bench: Callable[..., Bench]) -> None:
    b = bench()
    learn(b.lab, groups_with_rewards(b, [[1, 0], [0, 1], [1, 1]]), SlowSettings(num_minibatches=2))
    assert b.ledger.optimizer_steps == 2  # problems 0 and 2, then problem 1


def shifted(groups: list[list[Rollout]], by: list[float]) -> list[list[Rollout]]:
    """As if the sampler's log-probabilities were off by `by`, token after token in turn."""
    moved = [
        [
            replace(
                r, sample=replace(r.sample, logprobs=[lp + by[t % len(by)] for t, lp in enumerate(r.sample.logprobs)])
            )
            for r in g
        ]
        for g in groups
    ]
    return moved


def test_truncated_importance_sampling_by_hand(bench: Callable[..., Bench]) -> None:
    """The sampler's probabilities are half and three times the learner's in turn: ratios 2 and 1/3, capped at 1.5."""
    b = bench()
    groups = groups_with_rewards(b, [[1, 0]])
    wrong = shifted(groups, [-math.log(2), math.log(3)])
    metrics = learn(b.lab, wrong, SlowSettings(num_minibatches=1, group_size=2, old_logprobs="recomputed", tis_cap=1.5))
    tokens = sum(r.sample.sampled for r in groups[0])
    right, left = ([(1.5, 1 / 3)[t % 2] * lp for t, lp in enumerate(r.sample.logprobs)] for r in groups[0])
    assert metrics["loss"] == pytest.approx(-(sum(right) - sum(left)) / tokens, rel=1e-4)
    assert metrics["max_logprob_gap"] < 1e-5  # the loss's own ratio is against the learner
    with pytest.raises(ValueError, match="tis_cap requires old_logprobs: recomputed"):
        SlowSettings(tis_cap=2.0)


def test_the_mismatch_by_hand(bench: Callable[..., Bench]) -> None:
    b = bench()
    groups = groups_with_rewards(b, [[1, 0]])
    metrics = learn(b.lab, shifted(groups, [-math.log(2)]), SlowSettings(num_minibatches=1, group_size=2))
    assert metrics["max_logprob_gap"] == pytest.approx(math.log(2), rel=1e-4) and metrics[
        "mean_logprob_gap"
    ] == pytest.approx(math.log(2), rel=1e-4)
    assert metrics["effective_sample_size"] == pytest.approx(1.0)  # every weight is 2
    b = bench()
    groups = [[replace(r, sample=r.sample) for r in g] for g in groups_with_rewards(b, [[1, 0]])]
    lengths = [r.sample.sampled for r in groups[0]]
    off = [shifted([[groups[0][0]]], [math.log(3)])[0][0], groups[0][1]]
    metrics = learn(b.lab, [off], SlowSettings(num_minibatches=1, group_size=2))
    w, squares = lengths[0] / 3 + lengths[1], lengths[0] / 9 + lengths[1]
    assert metrics["effective_sample_size"] == pytest.approx(w * w / (sum(lengths) * squares), rel=1e-4)


def test_overlong_answers(bench: Callable[..., Bench]) -> None:
    """Two right answers of four, one of them cut off: verified, worth nothing, or without a gradient of its own."""

    def cut(groups: list[list[Rollout]]) -> list[list[Rollout]]:
        return [[replace(r, sample=replace(r.sample, finished=i != 0)) for i, r in enumerate(g)] for g in groups]

    losses = {}
    for mode in ("verify", "zero", "mask"):
        b = bench()
        groups = groups_with_rewards(b, [[1, 1, 0, 0]])
        metrics = learn(b.lab, cut(groups), SlowSettings(num_minibatches=1, group_size=4, overlong=mode))
        assert metrics["unfinished"] == 1 and metrics["reward"] == 0.5
        losses[mode] = metrics["loss"]
    lengths = [r.sample.sampled for r in groups[0]]
    sums = [sum(r.sample.logprobs) for r in groups[0]]

    def expected(advantages: list[float], tokens: int = sum(lengths)) -> float:
        return -sum(a * s for a, s in zip(advantages, sums, strict=True)) / tokens

    assert losses["verify"] == pytest.approx(expected([1, 1, -1, -1]), rel=1e-4)
    root = 3**0.5  # rewards 0 1 0 0: mean 1/4, deviation sqrt(3)/4
    assert losses["zero"] == pytest.approx(expected([-1 / root, root, -1 / root, -1 / root]), rel=1e-4)
    assert losses["mask"] == pytest.approx(expected([0, 1, -1, -1], sum(lengths[1:])), rel=1e-4)


@pytest.mark.parametrize("loss_aggregation", ["problem", "token", "sequence"])
def test_masked_answers_leave_the_update_as_it_is_without_them(
    bench: Callable[..., Bench], loss_aggregation: str
) -> None:
    """A masked answer in a group, and a group that is masked whole, change neither the loss nor the gradient."""
    settings = SlowSettings(num_minibatches=1, group_size=2, overlong="mask", loss_aggregation=loss_aggregation)
    found = []
    for masked in (True, False):
        b = bench()
        whole, half = groups_with_rewards(b, [[1, 0], [1, 0, 1]])
        finished = [[replace(r, sample=replace(r.sample, finished=True)) for r in half[:2]]]
        cut = [[replace(r, sample=replace(r.sample, finished=False)) for r in group] for group in (half[2:], whole)]
        groups = [finished[0] + cut[0], cut[1]] if masked else finished
        advantages = [[1.0, -1.0, 1.0], [1.0, -1.0]] if masked else [[1.0, -1.0]]
        metrics = learn(b.lab, groups, settings, advantages=advantages)
        found.append((metrics["loss"], metrics["gradient_norm"], metrics["tokens"]))
    assert found[0] == found[1]


def test_a_batch_that_is_masked_whole_takes_no_step(bench: Callable[..., Bench]) -> None:
    b = bench()
    groups = groups_with_rewards(b, [[1, 0]])
    cut = [[replace(r, sample=replace(r.sample, finished=False)) for r in group] for group in groups]
    metrics = learn(b.lab, cut, SlowSettings(num_minibatches=1, group_size=2, overlong="mask"))
    assert "loss" not in metrics and metrics["unfinished"] == 2 and b.ledger.optimizer_steps == 0


# --- test_advantages


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


# --- cISPO on a policy of three tokens, against values worked out with `math` alone

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
