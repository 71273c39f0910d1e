"""What the backend does on GPUs, as far as a CPU can show it."""

import subprocess
import sys

import pytest
import torch

from fst_bench.core.types import Sample, SampleRequest
from fst_bench.policy import PolicySettings
from fst_bench.policy import load_policy as load_any
from fst_bench.policy.distributed.learner import Learner, join
from fst_bench.policy.distributed.policy import TOLERANCE, load_policy
from fst_bench.policy.distributed.sampler import Sampler
from fst_bench.policy.models import model_folder
from fst_bench.slow.losses import cispo

# --- Behaviour of the backend on a GPU that a CPU can show


IMPORTED = """
import os, sys
from importlib.abc import MetaPathFinder

class Watch(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "vllm":
            print("imported with", os.environ.get("TRITON_F32_DEFAULT"))

sys.meta_path.insert(0, Watch())
from fst_bench.policy import PolicySettings, load_policy
try:
    load_policy("embedded:tiny", PolicySettings(device="cuda", dtype=sys.argv[1]), "vllm-deepspeed")
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize(("dtype", "value"), [("float32", "ieee"), ("bfloat16", "None")])
def test_float32_attention_is_not_tf32(dtype: str, value: str) -> None:
    """vLLM attends in float32 by Triton kernels, which round to TF32 unless a variable is set before their import."""
    command = [sys.executable, "-c", IMPORTED, dtype]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    imports = [line for line in output.splitlines() if line.startswith("imported with")]
    assert imports[0] == f"imported with {value}" and "torch sees no GPU here" in output


def test_a_second_engine_that_sleeps_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sampler, "sleeper", True)
    with pytest.raises(ValueError, match="one engine a process to sleep: use another process"):
        Sampler("nowhere", PolicySettings(device="cuda"), {1}, 1)


# --- bfloat16, as in the GPU presets: the canary stays quiet, and sampler and learner differ less than its tolerance


TEXTS = ["Start and apply in order: 3 +4 *2", "Source:A Goal:B", "def f(a):\n a.append(3)\n return a\nf([1])"]


@pytest.mark.parametrize("float32_head", [False, True])
def test_it_samples_learns_and_syncs(float32_head: bool) -> None:
    policy = load_policy(
        "embedded:tiny",
        PolicySettings(max_tokens=32, dtype="bfloat16", float32_head=float32_head, gradient_checkpointing=True),
    )
    requests = [SampleRequest(({"role": "user", "content": text},), seed=i, n=8) for i, text in enumerate(TEXTS)]
    samples = [s for group in policy.sample(requests) for s in group]
    for step in range(3):
        advantages = [[(-1.0) ** i] * s.sampled for i, s in enumerate(samples)]
        metrics = policy.update(samples, advantages, [[0.01] * s.sampled for s in samples], cispo)
        samples = [s for group in policy.sample(requests) for s in group]
        mean, largest = metrics["mean_logprob_gap"], metrics["max_logprob_gap"]
        print(f"head {float32_head} step {step}: canary {policy.ranked.gap:.3f}, max {largest:.3f}, mean {mean:.4f}")
        assert policy.ranked.gap < TOLERANCE["bfloat16"]
        assert mean < 0.02 and metrics["effective_sample_size"] > 0.99
    assert sum(policy.kl_to_reference(samples)) > 0


def test_the_gap_to_float32_does_not_grow_with_position() -> None:
    """ZeRO-3 builds the model under a context that also casts rotary frequencies: far into a row, wrong positions."""
    join("cpu")
    reference = load_any("embedded:tiny", PolicySettings())
    ids = reference.tokenizer(" ".join(TEXTS * 40), add_special_tokens=False)["input_ids"][:1800]
    row = Sample(ids, [False] * 8 + [True] * (len(ids) - 8), [0.0] * (len(ids) - 8), "", True)
    exact = torch.tensor(reference.logprobs([row])[0])
    found = {}
    for zero in (2, 3):
        settings = PolicySettings(dtype="bfloat16", distributed={"zero": zero})
        learner = Learner(model_folder("embedded:tiny"), settings, reference.pad)
        found[zero] = [torch.tensor(learner.logprobs([row], role)[0]) for role in ("policy", "reference")]
        gaps = [float(part.abs().mean()) for part in (found[zero][0] - exact).chunk(3)]
        print(f"ZeRO-{zero}: mean gap by position {', '.join(f'{gap:.4f}' for gap in gaps)}")
        assert len(ids) == 1800 and gaps[2] < 1.25 * gaps[0]
    assert all(torch.equal(a, b) for a, b in zip(found[2], found[3], strict=True))


@pytest.mark.parametrize("zero", [2, 3])
def test_many_tiny_updates_move_bfloat16_weights_as_float32_ones(zero: int) -> None:
    join("cpu")
    reference = load_any("embedded:tiny", PolicySettings(max_tokens=16))
    samples = reference.sample([SampleRequest(({"role": "user", "content": TEXTS[0]},), seed=1)])[0]
    moved = []
    for dtype in ("float32", "bfloat16"):
        settings = PolicySettings(dtype=dtype, learning_rate=1e-5, distributed={"zero": zero})
        learner = Learner(model_folder("embedded:tiny"), settings, reference.pad)
        assert learner.engine.optimizer.gradient_accumulation_dtype == torch.float32
        before = torch.cat([p.double().flatten() for _, p in learner.weights()])
        for _ in range(100):
            learner.update(samples, [[1.0] * s.sampled for s in samples], [[0.1] * s.sampled for s in samples], cispo)
        moved.append(torch.cat([p.double().flatten() for _, p in learner.weights()]) - before)
    expected, found = moved
    assert float((found * expected).sum() / (expected * expected).sum()) == pytest.approx(1, abs=0.1)
