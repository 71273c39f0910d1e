"""The `torch` backend: one process, CPU or one GPU; sampler and learner share the weights."""

import copy
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from fst_bench.model import model_folder

from .base import Ask, Message, Sample, TokenLoss
from .conversation import retold, samples_of, starts
from .optimizer import MasterAdamW
from .sampler import decode
from .scoring import Scorer, Update, check_finite, exact_kl, per_sample
from .settings import NO_GPU, PolicySettings

transformers_logging.disable_progress_bar()
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries would drown the one line that says what is wrong


def load_config(name: str, local: bool = False) -> Any:
    """What transformers knows of a model before its weights; `local` asks no hub. OSError or ValueError where there is nothing."""
    return AutoConfig.from_pretrained(model_folder(name), local_files_only=local)


def load_tokenizer(name: str) -> Any:
    """ValueError in one line where there is none, or none that can write a conversation."""
    folder = model_folder(name)
    if Path(folder).is_dir() and not (Path(folder) / "config.json").exists():
        raise ValueError(f"cannot load the model {name!r}: the folder has no config.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise unloadable(name, error) from None
    if not tokenizer.chat_template:
        raise ValueError(f"the model {name!r} has no chat template")
    return tokenizer


def check_device(settings: PolicySettings) -> None:
    """ValueError where `device: cuda` is asked for and torch sees no GPU."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(NO_GPU)


def unloadable(name: str, error: Exception) -> ValueError:
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return ValueError(f"cannot load the model {name!r}: {reason[:200]}")


def ends_of(model: PreTrainedModel, tokenizer: Any) -> set[int]:
    """The tokens that end an answer."""
    stops = model.generation_config.eos_token_id if model.generation_config else None
    return set(stops if isinstance(stops, list) else [stops]) - {None} | {tokenizer.eos_token_id}


def pad_of(tokenizer: Any) -> int:
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id


def ready_to_learn(model: PreTrainedModel, settings: PolicySettings) -> PreTrainedModel:
    """The model as its learner runs it: without dropout, with checkpointing where it is asked for. ValueError where a model can't have both."""
    if not settings.checkpointing:
        return model.eval()
    dropped = [name for name, value in model.config.to_dict().items() if name.endswith(("dropout", "_pdrop")) and value]
    if dropped:  # transformers keeps checkpoints in training mode only, where these would sample other weights than are trained
        raise ValueError(f"policy.checkpointing does not go with a model that has dropout: its config sets {', '.join(dropped)}")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def load_policy(name: str, settings: PolicySettings) -> "TorchPolicy":
    """The policy for a model path, hub id or `embedded:NAME`. ValueError in one line where it is no model, or the device is not here."""
    check_device(settings)
    tokenizer = load_tokenizer(name)
    try:
        model = AutoModelForCausalLM.from_pretrained(model_folder(name), dtype=getattr(torch, settings.dtype))
    except (OSError, ValueError, KeyError) as error:
        raise unloadable(name, error) from None
    torch.nn.Module.to(model, settings.device)
    return TorchPolicy(model, tokenizer, settings)


class TorchPolicy:
    """A transformers causal LM that samples, scores and learns in this process. See `Policy` for the contract."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any, settings: PolicySettings):
        self.model, self.tokenizer, self.settings = ready_to_learn(model, settings), tokenizer, settings
        self.end, self.pad = ends_of(model, tokenizer), pad_of(tokenizer)
        self.scorer = Scorer(self.model, settings, self.pad)
        self.scorer.prepare()
        self.base_scorer = copy.deepcopy(self.scorer).eval().requires_grad_(False)
        self.base = self.base_scorer.model
        self.optimizer = MasterAdamW(self.model, settings)
        self.version = 0

    def sample(self, asks: Sequence[Ask], *, temperature: float = 1.0, base: bool = False) -> list[list[Sample]]:
        if not asks:
            return []
        begun = starts(self.tokenizer, asks, self.end, self.model.config.max_position_embeddings, self.settings.max_tokens, self.settings.thinking)
        going = [(ask, start) for ask, start in zip(asks, begun, strict=True) if start.room > 0]
        decoded = decode(
            self.base if base else self.model, [start.tokens for _, start in going], [ask.n for ask, _ in going], [ask.seed for ask, _ in going],
            temperature=temperature, rooms=[start.room for _, start in going], end=self.end, pad=self.pad, rows=self.settings.sample_rows,
        )  # fmt: skip
        return samples_of(self.tokenizer, asks, begun, [[(a.tokens, a.logprobs, a.finished) for a in group] for group in decoded])

    def retold(self, samples: Sequence[Sample], conversations: Sequence[tuple[Message, ...]]) -> list[Sample]:
        room = self.model.config.max_position_embeddings - self.settings.max_tokens
        return retold(self, self.tokenizer, samples, conversations, room, self.settings.thinking)

    def logprobs(self, samples: Sequence[Sample], *, base: bool = False) -> list[list[float]]:
        out: list[list[float]] = [[] for _ in samples]
        scorer = self.base_scorer if base else self.scorer
        with torch.no_grad():
            for packed in scorer.passes(samples):
                logprobs = scorer(packed)
                check_finite(f"a log-probability of the {'base' if base else 'policy'}", logprobs)
                for i, part in per_sample(packed, logprobs, samples):
                    out[i] = part.tolist()
        return out

    def kl_to_base(self, samples: Sequence[Sample], *, reverse: bool = False) -> list[float]:
        out = [0.0] * len(samples)
        if self.version == 0:  # the weights are still the base's
            return out
        p, q = (self.base_scorer, self.scorer) if reverse else (self.scorer, self.base_scorer)
        with torch.no_grad():
            for packed in self.scorer.passes(samples):
                kl = exact_kl(p.head, p(packed, "hidden"), q.head, q(packed, "hidden"))
                check_finite("a KL divergence to the base", kl)
                for i, part in per_sample(packed, kl, samples):
                    out[i] = float(part.sum())
        return out

    def update(
        self, samples: Sequence[Sample], advantages: Sequence[Sequence[float]], weights: Sequence[Sequence[float]], loss: TokenLoss
    ) -> dict[str, float]:  # fmt: skip
        step = Update(samples, advantages, weights, loss)
        self.optimizer.zero_grad()
        for packed in self.scorer.passes(samples):
            step.add(packed, self.scorer(packed)).backward()
        norm = self.optimizer.clip(self.settings.clip)
        check_finite("the gradient's norm", norm)
        self.optimizer.step()
        self.version += 1
        return step.facts(float(norm))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: p.detach().clone() for name, p in self.model.named_parameters()}, folder / "weights.safetensors")
        save_file(self.optimizer.state(), folder / "optimizer.safetensors")
        (folder / "policy.json").write_text(json.dumps({"version": self.version}))

    def load(self, folder: Path) -> None:
        self.start_from(folder)
        self.optimizer.load(load_file(folder / "optimizer.safetensors"))

    def export(self, folder: Path, *, base: bool = False) -> None:
        (self.base if base else self.model).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def start_from(self, folder: Path) -> None:
        self.optimizer.start_from(load_file(folder / "weights.safetensors"))
        self.version = json.loads((folder / "policy.json").read_text())["version"]
