"""Compare the DeepSpeed learner with the torch backend, on the same rollouts; run by every rank of a launcher.

    torchrun --nproc_per_node 2 tests/distributed/agree.py 3 kept out.json     # ZeRO-3 on two ranks, activations kept

Writes the differences of one update, and of the log-probabilities and KL after it, as JSON.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from deepspeed.utils import safe_get_full_grad

from fst_bench.core.errors import NotFinite
from fst_bench.core.types import Sample, SampleRequest
from fst_bench.policy import PolicySettings, load_policy
from fst_bench.policy.distributed.learner import Learner, join
from fst_bench.policy.models import model_folder
from fst_bench.slow.losses import cispo

TEXTS = ["Start and apply in order: 3 +4 *2", "Source:A Goal:B", "def f(a):\n a.append(3)\n return a\nf([1])"]


def largest(ours: list[list[float]], theirs: list[list[float]]) -> float:
    return max(abs(a - b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True))


def flat(tensors: Any) -> torch.Tensor:
    return torch.cat([t.detach().double().cpu().flatten() for t in tensors])


def agree(zero: int, activations: str, folder: Path, device: str = "cpu") -> dict[str, Any]:
    """Return the differences between a learner on `device` and the torch backend on the CPU.

    `activations` are "kept" or "recomputed". Checkpoints are written below `folder`.
    """
    settings = PolicySettings(max_tokens=32, micro_batch_tokens=150, distributed={"zero": zero})
    join(device)
    torch.manual_seed(0)
    reference = load_policy("embedded:tiny", settings)
    groups = reference.sample(
        [SampleRequest(({"role": "user", "content": text},), seed=i, n=3) for i, text in enumerate(TEXTS)]
    )
    samples: list[Sample] = [s for group in groups for s in group]
    advantages = [[a] * s.sampled for a, s in zip([1.0, -1.0, 0.5] * 3, samples, strict=True)]
    weights = [[0.01 * (i + 1)] * s.sampled for i, s in enumerate(samples)]
    own = settings.model_copy(update={"gradient_checkpointing": activations == "recomputed", "device": device})
    learner = Learner(model_folder("embedded:tiny"), own, reference.pad)

    gradients: dict[str, torch.Tensor] = {}
    step = learner.engine.step

    def recorded_step() -> None:
        for name, parameter in learner.module.model.named_parameters():
            gradients[name] = safe_get_full_grad(parameter).clone()
        step()

    found: dict[str, Any] = {
        "ranks": learner.world,
        "zero": zero,
        "logprobs": largest(learner.logprobs(samples), reference.logprobs(samples)),
    }
    learner.engine.step = recorded_step
    ours = learner.update(samples, advantages, weights, cispo)
    theirs = reference.update(samples, advantages, weights, cispo)
    names = [name for name, _ in reference.model.named_parameters()]
    # torch clips the gradients in place, DeepSpeed inside its step
    clip = min(1.0, settings.max_grad_norm / (theirs["gradient_norm"] + 1e-6))
    expected = flat(p.grad for p in reference.model.parameters()) / clip
    found["loss"] = abs(ours["loss"] - theirs["loss"])
    found["gradient"] = float((flat(gradients[name] for name in names) - expected).norm() / expected.norm())
    found["gradient_norm"] = abs(ours["gradient_norm"] / theirs["gradient_norm"] - 1)
    found["effective_sample_size"] = abs(ours["effective_sample_size"] - theirs["effective_sample_size"])
    moved = flat(p.clone() for _, p in learner.weights())
    found["weights"] = float((moved - flat(reference.model.parameters())).abs().max())
    found["kl"] = largest([learner.kl_to_reference(samples, False)], [reference.kl_to_reference(samples)])

    folder /= f"saved-{learner.world}-{zero}-{activations}"
    learner.save(folder)
    continued = learner.update(samples, advantages, weights, cispo), learner.logprobs(samples)
    learner.load(folder)
    resumed = learner.update(samples, advantages, weights, cispo), learner.logprobs(samples)
    found["resumed_bit_for_bit"] = resumed == continued
    learner.start_from(folder)
    reference.start_from(folder)  # one format of weights for both backends
    found["started_from"] = largest(learner.logprobs(samples), reference.logprobs(samples))

    before = [p.clone() for _, p in learner.weights()]
    found["stopped"] = []
    worst = min(range(samples[0].sampled), key=lambda t: samples[0].logprobs[t])
    almost = 3e38 / -samples[0].logprobs[worst]  # the loss is just finite, and its gradient is not
    for value in (math.nan, almost):  # one token's advantage, so with two ranks on one of them only: both have to stop
        broken = [[value if (i, t) == (0, worst) else 0.0 for t in range(s.sampled)] for i, s in enumerate(samples)]
        try:
            learner.update(samples, broken, [[1.0] * s.sampled for s in samples], cispo)
        except NotFinite as error:
            found["stopped"].append(str(error))
    same = all(torch.equal(a, b) for a, (_, b) in zip(before, learner.weights(), strict=True))
    found["untouched"] = same and learner.version == 1
    return found | {"rank": learner.rank}


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[3])
    found = agree(int(sys.argv[1]), sys.argv[2], out.parent)
    if found["rank"] == 0:
        out.write_text(json.dumps(found))
