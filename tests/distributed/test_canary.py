"""With the weight sync broken on purpose, the run stops. Each break is one that raises no error of its own.

Tensors are compared bit for bit; what they don't show, the canary's log-probabilities do.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

from fst_bench.cli import main
from fst_bench.core.types import Sample, SampleRequest
from fst_bench.policy import PolicySettings
from fst_bench.policy.distributed.learner import Learner, Role
from fst_bench.policy.distributed.policy import DistributedPolicy, SyncError, load_policy
from fst_bench.policy.distributed.sampler import Sampler
from fst_bench.policy.distributed.weights import InMemory
from fst_bench.slow.losses import cispo


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[DistributedPolicy, Path]:
    policy = load_policy("embedded:tiny", PolicySettings(max_tokens=16))
    folder = tmp_path_factory.mktemp("start")
    policy.save(folder)
    return policy, folder


@pytest.fixture
def policy(loaded: tuple[DistributedPolicy, Path]) -> DistributedPolicy:
    """The policy as it was before learning, its sampler up to date."""
    loaded[0].start_from(loaded[1])
    loaded[0].sample(REQUESTS)
    return loaded[0]


REQUESTS = [SampleRequest(({"role": "user", "content": "Start and apply in order: 3 +4 *2"},), seed=1, n=4)]


def learn(policy: DistributedPolicy) -> None:
    samples: list[Sample] = policy.sample(REQUESTS)[0]
    advantages = [[(-1.0) ** i] * s.sampled for i, s in enumerate(samples)]
    policy.update(samples, advantages, [[0.01] * s.sampled for s in samples], cispo)


def test_it_is_quiet_after_a_good_sync(policy: DistributedPolicy) -> None:
    for _ in range(3):
        learn(policy)
        policy.sample(REQUESTS)
        print(f"canary {policy.ranked.gap:.1e}")
        assert policy.ranked.gap < 1e-4


def test_it_reads_several_cache_blocks(policy: DistributedPolicy) -> None:
    block = policy.ranked.sampler.engine.llm_engine.vllm_config.cache_config.block_size
    assert len(policy.ranked.canary_prompt) > 2 * block


def test_every_tensor_is_compared(policy: DistributedPolicy) -> None:
    learn(policy)
    policy.sample(REQUESTS)
    names = [name for name, _ in policy.ranked.learner.weights()]
    found = policy.ranked.compared
    assert set(found.same) == {*names, "lm_head of model.embed_tokens.weight"}
    assert not found.different and not found.unknown


@pytest.mark.parametrize(
    "name", ["self_attn.k_proj.weight", "mlp.gate_proj.weight", "self_attn.o_proj.weight", "self_attn.q_norm.weight"]
)
def test_one_number_of_one_tensor(policy: DistributedPolicy, name: str) -> None:
    """In each kind of tensor, parts of fused ones among them: the engine's against one with another last bit."""
    learn(policy)
    policy.sample(REQUESTS)
    weights = {key: tensor.clone() for key, tensor in policy.ranked.learner.weights()}
    key = f"model.layers.1.{name}"
    last = weights[key].view(-1)[-1:]
    last.copy_(torch.nextafter(last, torch.tensor([math.inf])))
    found = policy.ranked.sampler.compare(iter(weights.items()))
    assert found.different == [key]
    missing = "model.layers.9.mlp.up_proj.weight"
    assert policy.ranked.sampler.compare([(missing, last)]).unknown == [missing]


def test_a_tensor_that_was_not_sent(policy: DistributedPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Sampler.receive
    lost = "model.layers.2.mlp.down_proj.weight"

    def partly(self: Sampler, weights: Iterable[tuple[str, Tensor]]) -> None:
        whole(self, ((name, tensor) for name, tensor in weights if name != lost))

    monkeypatch.setattr(Sampler, "receive", partly)
    stopped(policy, rf"1 of 47 tensors differ, the first is {lost}")


def test_a_skipped_tensor(policy: DistributedPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the comparison does not see either."""
    whole = Learner.weights

    def some(self: Learner, role: Role = "policy") -> Iterator[tuple[str, Tensor]]:
        return ((name, tensor) for name, tensor in whole(self, role) if name != "model.layers.2.mlp.down_proj.weight")

    monkeypatch.setattr(Learner, "weights", some)
    stopped(policy, CANARY)


def test_a_stale_tied_head(policy: DistributedPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        InMemory, "finish_weight_update", lambda self: finalize_layerwise_reload(self.model, self.model_config)
    )
    stopped(policy, r"1 of 47 tensors differ, the first is lm_head of model\.embed_tokens\.weight")


def test_no_prefix_cache_reset(policy: DistributedPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy.ranked.sampler.engine, "reset_prefix_cache", lambda: True)
    stopped(policy, CANARY)


CANARY = r"log-probabilities are off by .* does not hold the learner's weights"


def stopped(policy: DistributedPolicy, match: str) -> None:
    learn(policy)
    with pytest.raises(SyncError, match=match) as caught:
        policy.sample(REQUESTS)
    print(caught.value)


def test_a_stale_sync_that_no_tolerance_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 at the learning rate of the GPU presets: one step is lost, and the canary does not notice."""
    policy = load_policy("embedded:tiny", PolicySettings(max_tokens=16, dtype="bfloat16", learning_rate=1e-6))
    learn(policy)
    receive = Sampler.receive
    monkeypatch.setattr(Sampler, "receive", lambda self, weights: [None for _ in weights])
    policy.ranked.canary("policy")
    assert policy.ranked.gap < 0.2
    with pytest.raises(SyncError, match=r"\d+ of 47 tensors differ"):
        policy.sample(REQUESTS)
    monkeypatch.setattr(Sampler, "receive", receive)
    policy.sample(REQUESTS)


def test_the_run_stops_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A whole run on a sampler that drops its new weights: it stops at the first sampling after an update.

    What it recorded until then is kept.
    """
    monkeypatch.setattr(Sampler, "receive", lambda self, weights: [None for _ in weights])
    command = f"run --stream single-math --method rl --preset smoke --backend vllm-deepspeed --out {tmp_path}".split()
    prompt = "Always handle a single operation before the next one. Deliver the answer in \\boxed{}."
    assert main([*command, "--set", f"seed_prompt={prompt}"]) == 3
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("fst-bench:")]
    assert len(lines) == 1 and "fst-bench: stopped: after a weight sync" in lines[0] and "Traceback" not in err
    assert list(tmp_path.rglob("evals.jsonl")) and not list(tmp_path.rglob("manifest.json"))
