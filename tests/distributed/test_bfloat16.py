"""bfloat16, as the GPU presets have it: the canary stays quiet, and sampler and learner differ as little as its tolerance says."""

import pytest

from fst_bench.policy import Ask, PolicySettings
from fst_bench.policy.distributed.policy import TOLERANCE, load_policy
from fst_bench.slow.losses import cispo

TEXTS = ["Start and apply in order: 3 +4 *2", "Source:A Goal:B", "def f(a):\n a.append(3)\n return a\nf([1])"]


@pytest.mark.parametrize("float32_head", [False, True])
def test_it_samples_learns_and_syncs(float32_head: bool) -> None:
    policy = load_policy("embedded:tiny", PolicySettings(max_tokens=32, dtype="bfloat16", float32_head=float32_head, checkpointing=True))
    asks = [Ask(({"role": "user", "content": text},), seed=i, n=8) for i, text in enumerate(TEXTS)]
    samples = [s for group in policy.sample(asks) for s in group]
    for step in range(3):
        facts = policy.update(samples, [[(-1.0) ** i] * s.sampled for i, s in enumerate(samples)], [[0.01] * s.sampled for s in samples], cispo)
        samples = [s for group in policy.sample(asks) for s in group]
        print(
            f"head {float32_head} step {step}: canary {policy.ranked.gap:.3f}, max {facts['max_logprob_gap']:.3f}, mean {facts['mean_logprob_gap']:.4f}"
        )
        assert policy.ranked.gap < TOLERANCE["bfloat16"] and facts["mean_logprob_gap"] < 0.02 and facts["effective_sample_size"] > 0.99
    assert sum(policy.kl_to_base(samples)) > 0
