"""Log-probabilities and KL some tokens at a time, and updates whose numbers are not finite."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fst_bench.cli import main
from fst_bench.core.errors import NotFinite
from fst_bench.core.types import Sample, SampleRequest
from fst_bench.policy import scoring
from fst_bench.policy.scoring import ChosenLogprobs, Head, exact_kl
from fst_bench.policy.torch.backend import TorchPolicy
from fst_bench.slow.losses import cispo

N, HIDDEN, VOCABULARY = 23, 8, 40


def parts(bias: bool = False, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden, weight, own = (
        torch.randn(shape, generator=generator, dtype=torch.float32)
        for shape in ((N, HIDDEN), (VOCABULARY, HIDDEN), (VOCABULARY,))
    )
    targets = torch.randint(VOCABULARY, (N,), generator=generator)
    made = [t.to(dtype).requires_grad_() for t in (hidden, weight, own)]
    return made[0], made[1], made[2] if bias else None, targets


def written_out(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    softcap: float | None,
    temperatures: Tensor | None = None,
) -> Tensor:
    logits = hidden.float() @ weight.float().t() + (0 if bias is None else bias.float())
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    logits = logits if temperatures is None else logits / temperatures[:, None]
    return logits.log_softmax(-1)[torch.arange(len(targets)), targets]


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("at_a_time", [1, 5, N])
@pytest.mark.parametrize("temperatures", [None, torch.linspace(0.5, 2, N)])
def test_some_tokens_at_a_time_is_all_at_once(
    monkeypatch: pytest.MonkeyPatch, softcap: float | None, bias: bool, at_a_time: int, temperatures: Tensor | None
) -> None:
    monkeypatch.setattr(scoring, "LOGITS", at_a_time * VOCABULARY)
    hidden, weight, own, targets = parts(bias)
    head = Head(weight, own, softcap, False)
    inputs = [t for t in (hidden, weight, own) if t is not None]
    factors = torch.linspace(-1, 2, N)
    found = ChosenLogprobs.apply(hidden, weight, own, targets, temperatures, head)
    expected = written_out(hidden, weight, own, targets, softcap, temperatures)
    assert torch.allclose(found, expected, atol=1e-5)
    ours, theirs = (torch.autograd.grad((values * factors).sum(), inputs) for values in (found, expected))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))
    frozen = Head(weight.detach(), None if own is None else own.detach(), softcap, False)
    with torch.no_grad():
        assert torch.equal(ChosenLogprobs.apply(hidden, weight, own, targets, temperatures, frozen), found)


@pytest.mark.parametrize("float32", [True, False])
def test_a_head_in_bfloat16(float32: bool) -> None:
    hidden, weight, _, targets = parts(dtype=torch.bfloat16)
    found = ChosenLogprobs.apply(hidden, weight, None, targets, None, Head(weight, None, None, float32))
    gap = (found - written_out(hidden, weight, None, targets, None)).abs().max()
    assert found.dtype == torch.float32 and (gap < 1e-5 if float32 else 1e-4 < gap < 0.1)
    for gradient in torch.autograd.grad(found.sum(), [hidden, weight]):
        assert gradient.dtype == torch.bfloat16 and gradient.isfinite().all()


def test_kl_some_tokens_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "LOGITS", 3 * VOCABULARY)
    hidden, weight, *_ = parts()
    heads, other = [Head(w, None, None, False) for w in (weight, 0.7 * weight)], hidden.flip(0)
    p, q = ((h @ head.weight.t()).log_softmax(-1) for h, head in zip((hidden, other), heads, strict=True))
    assert torch.allclose(exact_kl(heads[0], hidden, heads[1], other), (p.exp() * (p - q)).sum(-1), atol=1e-5)
    warmth = torch.linspace(0.5, 2, len(hidden))
    logits = [h @ head.weight.t() / warmth[:, None] for h, head in zip((hidden, other), heads, strict=True)]
    p, q = (x.log_softmax(-1) for x in logits)
    found = exact_kl(heads[0], hidden, heads[1], other, warmth)
    assert torch.allclose(found, (p.exp() * (p - q)).sum(-1), atol=1e-5)


def peak_gb(tokens: int, how: str) -> float:
    command = [sys.executable, str(Path(__file__).with_name("logprob_memory.py")), str(tokens), how]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_the_logits_of_all_tokens_never_exist_together() -> None:
    whole = 1500 * 151_936 * 4 / 2**30
    chunked = peak_gb(1500, "chunked")
    assert chunked < 0.8 * whole, f"{chunked:.2f} GB, where the logits would be {whole:.2f} and take three times that"


@pytest.fixture
def sampled(policy: TorchPolicy) -> list[Sample]:
    request = SampleRequest(({"role": "user", "content": "Start and apply in order: 3 +4 *2"},), seed=1, n=4)
    return policy.sample([request])[0]


def untouched(policy: TorchPolicy, samples: list[Sample], value: float, match: str) -> None:
    """Assert that an update with such an advantage stops, and leaves weights, moments and version as they were."""
    before = [p.clone() for p in policy.model.parameters()]
    with pytest.raises(NotFinite, match=match):
        policy.update(samples, [[value] * s.sampled for s in samples], [[0.01] * s.sampled for s in samples], cispo)
    assert all(torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))
    assert policy.version == 0 and not policy.optimizer.state()


@pytest.mark.parametrize(
    ("value", "part"), [(math.nan, "the loss"), (math.inf, "the loss"), (1e37, "the gradient's norm")]
)
def test_an_update_that_is_not_finite_changes_nothing(
    policy: TorchPolicy, sampled: list[Sample], value: float, part: str
) -> None:
    untouched(policy, sampled, value, part)


def test_weights_that_are_not_finite_stop_whatever_uses_them(policy: TorchPolicy, sampled: list[Sample]) -> None:
    with torch.no_grad():
        policy.model.model.layers[1].mlp.up_proj.weight[3, 4] = math.nan
    policy.version = 1
    advantages, weights = ([[value] * s.sampled for s in sampled] for value in (1.0, 0.1))
    for call in (
        lambda: policy.sample([SampleRequest(({"role": "user", "content": "1"},), seed=1)]),
        lambda: policy.logprobs(sampled),
        lambda: policy.kl_to_reference(sampled),
        lambda: policy.update(sampled, advantages, weights, cispo),
    ):
        with pytest.raises(NotFinite, match="is not finite"):
            call()


NAN_METHOD = """
import math
from fst_bench.core.types import RolloutRequest
from fst_bench.method.method import Method
from fst_bench.slow import learn

class Broken(Method):
    name = "broken"
    trains = True

    def step(self, batch):
        context, n = self.config.seed_prompt, self.config.slow.group_size
        groups = self.lab.sample([RolloutRequest(p, context, n) for p in batch], "train")
        learned = self.lab.ledger.optimizer_steps > 0
        advantages = [[math.nan if learned else (-1.0) ** i for i in range(len(group))] for group in groups]
        return learn(self.lab, groups, self.config.slow, advantages=advantages)
"""


def test_a_run_stops_with_one_line_before_it_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.py").write_text(NAN_METHOD)
    command = f"run --stream single-math --method {tmp_path / 'broken.py'} --preset smoke --out {tmp_path / 'runs'}"
    assert main([*command.split(), "--set", "slow.num_minibatches=1", "--set", "checkpoint.every=1"]) == 3
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fst-bench:")]
    assert lines == ["fst-bench: stopped: step 2: the loss is not finite (nan): nothing was learned from it"]
    assert sorted(p.parent.name for p in tmp_path.rglob("COMPLETE.json"))[-1] == "step-000001"
    assert not list(tmp_path.rglob("manifest.json"))
