"""The `torch` backend: one process, CPU or one GPU; sampler and learner share the weights."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from fst_bench.core.types import Message, Sample, SampleRequest
from fst_bench.policy.conversation import prefixes, samples_from, with_prompt
from fst_bench.policy.interface import Progress, TokenLoss
from fst_bench.policy.loading import (
    check_device,
    end_tokens,
    load_tokenizer,
    pad_token,
    ready_to_learn,
    saving,
    unloadable,
)
from fst_bench.policy.models import model_folder
from fst_bench.policy.scoring import Scorer, Update, check_finite, exact_kl, per_sample
from fst_bench.policy.settings import PolicySettings
from fst_bench.policy.template import Template
from fst_bench.policy.torch.optimizer import MasterAdamW
from fst_bench.policy.torch.sampler import decode


class TorchModel:
    """A transformers causal LM that samples and scores in this process."""

    def __init__(self, scorer: Scorer, template: Template, settings: PolicySettings, name: str):
        self.scorer, self.model = scorer, scorer.model
        self.template, self.tokenizer, self.settings, self.name = template, template.tokenizer, settings, name
        self.end, self.pad = end_tokens(self.model, self.tokenizer), pad_token(self.tokenizer)

    def sample(
        self, requests: Sequence[SampleRequest], *, temperature: float = 1.0, progress: Progress | None = None
    ) -> list[list[Sample]]:
        if not requests:
            return []
        begun = prefixes(self.template, requests, self.end, self.model.config.max_position_embeddings)
        live = [(r, prefix) for r, prefix in zip(requests, begun, strict=True) if prefix.max_new_tokens > 0]
        completions = decode(
            self.model,
            [prefix.tokens for _, prefix in live],
            [request.n for request, _ in live],
            [request.seed for request, _ in live],
            temperature=temperature,
            max_new_tokens=[prefix.max_new_tokens for _, prefix in live],
            end=self.end,
            stops=[prefix.stops for _, prefix in live],
            stopped=self.template.stopped,
            pad=self.pad,
            max_num_seqs=self.settings.max_num_seqs,
            progress=progress,
        )
        return samples_from(self.template, requests, begun, completions, temperature)

    def logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        found: list[list[float]] = [[] for _ in samples]
        with torch.no_grad():
            for packed in self.scorer.passes(samples):
                logprobs = self.scorer(packed)
                check_finite(f"a log-probability of the {self.name}", logprobs)
                for i, part in per_sample(packed, logprobs, samples):
                    found[i] = part.tolist()
        return found

    def export(self, folder: Path) -> None:
        with saving(folder):
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


class TorchPolicy(TorchModel):
    """The model that learns, with a frozen copy of it as reference policy. See `Policy` for the contract."""

    def __init__(self, model: PreTrainedModel, template: Template, settings: PolicySettings):
        scorer = Scorer(ready_to_learn(model, settings), settings, pad_token(template.tokenizer))
        scorer.prepare()
        super().__init__(scorer, template, settings, "policy")
        frozen = copy.deepcopy(scorer).eval().requires_grad_(False)
        self.reference = TorchModel(frozen, template, settings, "reference policy")
        self.optimizer = MasterAdamW(self.model, settings)
        self.version = 0

    @property
    def max_prompt_tokens(self) -> int:
        positions: int = self.model.config.max_position_embeddings
        return positions - self.settings.max_tokens

    def with_prompt(self, samples: Sequence[Sample], conversations: Sequence[tuple[Message, ...]]) -> list[Sample]:
        return with_prompt(self, self.template, samples, conversations, self.max_prompt_tokens)

    def kl_to_reference(self, samples: Sequence[Sample], *, reverse: bool = False) -> list[float]:
        found = [0.0] * len(samples)
        if self.version == 0:  # the weights are still the reference policy's
            return found
        p, q = (self.reference.scorer, self.scorer) if reverse else (self.scorer, self.reference.scorer)
        with torch.no_grad():
            for packed in self.scorer.passes(samples):
                kl = exact_kl(p.head, p(packed, "hidden"), q.head, q(packed, "hidden"), packed.temperatures)
                check_finite("a KL divergence to the reference policy", kl)
                for i, part in per_sample(packed, kl, samples):
                    found[i] = float(part.sum())
        return found

    def update(
        self,
        samples: Sequence[Sample],
        advantages: Sequence[Sequence[float]],
        weights: Sequence[Sequence[float]],
        loss: TokenLoss,
    ) -> dict[str, float]:
        step = Update(samples, advantages, weights, loss)
        self.optimizer.zero_grad()
        for packed in self.scorer.passes(samples):
            step.add(packed, self.scorer(packed)).backward()
        norm = self.optimizer.clip(self.settings.max_grad_norm)
        check_finite("the gradient's norm", norm)
        self.optimizer.step()
        self.version += 1
        return step.metrics(float(norm))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        with saving(folder):
            save_file(weights, folder / "weights.safetensors")
            save_file(self.optimizer.state(), folder / "optimizer.safetensors")
        (folder / "policy.json").write_text(json.dumps({"version": self.version}))

    def load(self, folder: Path) -> None:
        self.start_from(folder)
        self.optimizer.load(load_file(folder / "optimizer.safetensors"))

    def start_from(self, folder: Path) -> None:
        self.optimizer.start_from(load_file(folder / "weights.safetensors"))
        self.version = json.loads((folder / "policy.json").read_text())["version"]


def load_policy(name: str, settings: PolicySettings) -> TorchPolicy:
    """Load the policy of a model path, hub id or `embedded:NAME`.

    Raises ValueError, in one line, where that is not a model, its chat template cannot be used, or this machine does
    not have the device.
    """
    check_device(settings)
    template = Template(load_tokenizer(name), settings, name)
    try:
        model = AutoModelForCausalLM.from_pretrained(model_folder(name), dtype=getattr(torch, settings.dtype))
    except (OSError, ValueError, KeyError) as error:
        raise unloadable(name, error) from None
    torch.nn.Module.to(model, settings.device)
    return TorchPolicy(model, template, settings)
