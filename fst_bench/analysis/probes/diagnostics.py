"""What may tell a policy that has stopped learning from one that can go on, at the base and at every checkpoint.

The measures of studies of lost plasticity (Lyle et al. 2023, Dohare et al. 2024), on answers to held-out problems.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fst_bench.analysis.probes.opened import Opened, Work
from fst_bench.core.types import Sample
from fst_bench.policy.scoring import Scorer
from fst_bench.policy.torch.backend import TorchPolicy

DORMANT = 0.025
"""Share of its layer's mean activation up to which a unit is dormant (Sokar et al. 2023)."""


def diagnostics(run: Opened, n: int = 64) -> list[Work]:
    """Return the work: the base (step 0) and every checkpoint, on `n` held-out problems of each task.

    The answers are the policy's own, under the method's own contexts then. Raises ValueError where the weights are not
    in this process.
    """
    if not isinstance(run.policy, TorchPolicy):
        raise ValueError(f"diagnostics needs the weights in this process: backend torch, not {run.config.backend}")
    return [({"step": step, "n": n}, partial(measure, run, run.policy, step, n)) for step in (0, *run.steps)]


def measure(run: Opened, policy: TorchPolicy, step: int, n: int) -> dict[str, Any]:
    """Return the numbers of one checkpoint.

    - `weight_norm`: L2 norm of all weights; `distance`: that of their difference to the base's.
    - `entropy`: mean over sampled tokens of the entropy of the next token's distribution, nats.
    - `effective_rank`: of the last hidden states at those tokens, see `effective_rank`.
    - `dormant`: share of the units of all MLPs that are dormant at those tokens (Sokar et al. 2023); None for a model
      without gated MLPs as Llama's.
    """
    if step:
        run.load(step)
    model = policy if step else policy.reference
    samples: list[Sample] = []
    for name, task in run.stream.held_out().items():
        context_for = run.contexts(step, name) if step else lambda prompt: run.config.seed_prompt
        samples += run.sample(task, context_for, n, model)[0]
    ours, base = (dict(m.scorer.model.named_parameters()) for m in (model, policy.reference))
    return {
        "weight_norm": norm(ours.values()),
        "distance": norm(weight - base[name] for name, weight in ours.items()),
        **of_the_answers(model.scorer, samples),
    }


@torch.no_grad()
def norm(tensors: Any) -> float:
    """Return the L2 norm of some tensors together."""
    return float(sum(t.double().square().sum() for t in tensors)) ** 0.5


@torch.no_grad()
def of_the_answers(scorer: Scorer, samples: list[Sample]) -> dict[str, Any]:
    """Return entropy, effective rank and dormant units at the sampled tokens."""
    hidden: list[Tensor] = []
    with activations(scorer) as units:
        for packed in scorer.passes(samples):
            hidden.append(scorer(packed, "hidden"))
            for layer in units.values():
                layer.append(layer.pop()[packed.sources].abs().float().sum(0))
    states, head = torch.cat(hidden), scorer.head
    logps = (head.logits(states[part]).log_softmax(-1) for part in head.chunks(len(states)))
    entropy = sum(float(-(logp.exp() * logp).sum()) for logp in logps) / len(states)
    means = [torch.stack(layer).sum(0) / len(states) for layer in units.values()]
    scores = [layer / layer.mean() for layer in means]
    return {
        "entropy": entropy,
        "effective_rank": effective_rank(states),
        "dormant": float((torch.cat(scores) <= DORMANT).double().mean()) if scores else None,
    }


def effective_rank(states: Tensor) -> float:
    """Return exp of the entropy of the normalised singular values of (n, hidden) (Roy and Vetterli 2007)."""
    values = torch.linalg.svdvals(states.double())
    shares = values / values.sum()
    return float(torch.exp(-(shares * shares.clamp(min=1e-300).log()).sum()))


@contextmanager
def activations(scorer: Scorer) -> Iterator[dict[str, list[Tensor]]]:
    """Yield name -> what the last layer of each MLP read, (tokens, units), in each forward pass appended to it."""
    found: dict[str, list[Tensor]] = {}

    def keep(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.setdefault(name, []).append(inputs[0].flatten(0, -2))

    hooks = [
        module.register_forward_pre_hook(partial(keep, name))
        for name, module in scorer.model.named_modules()
        if name.endswith("mlp.down_proj")
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
