"""The `torch` backend: one process, CPU or one GPU; sampler and learner share the weights."""

import copy
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from fst_bench.metrics import token_kl
from fst_bench.model import model_folder

from .base import Ask, Message, Sample, TokenLoss
from .conversation import retold, samples_of, starts
from .qwen3 import is_plain_qwen3, score
from .sampler import decode
from .scoring import Mismatch, chosen_logprobs, logits_at, micro_batches, padded, policy_loss, sampler_logprobs, targets_of
from .settings import PolicySettings

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
        raise ValueError("policy.device is cuda, and torch sees no GPU here: fst-bench doctor says which presets this machine can run")


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
        self.base = copy.deepcopy(model).eval().requires_grad_(False)
        self.model, self.tokenizer, self.settings = ready_to_learn(model, settings), tokenizer, settings
        self.version = 0
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay)
        self.end, self.pad = ends_of(model, tokenizer), pad_of(tokenizer)

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
        with torch.no_grad():
            for indices in self._batches(samples):
                rows = [samples[i] for i in indices]
                flat = chosen_logprobs(self._sampled_logits(self.base if base else self.model, rows), targets_of(rows, self.model.device))
                for i, part in zip(indices, flat.split([row.sampled for row in rows]), strict=True):
                    out[i] = part.tolist()
        return out

    def kl_to_base(self, samples: Sequence[Sample], *, reverse: bool = False) -> list[float]:
        out = [0.0] * len(samples)
        if self.version == 0:  # the weights are still the base's
            return out
        with torch.no_grad():
            for indices in self._batches(samples):
                rows = [samples[i] for i in indices]
                models = (self.base, self.model) if reverse else (self.model, self.base)
                first, second = (self._sampled_logits(model, rows) for model in models)
                for i, kl in zip(indices, token_kl(first, second, [row.sampled for row in rows]).answers, strict=True):
                    out[i] = kl
        return out

    def update(
        self, samples: Sequence[Sample], advantages: Sequence[Sequence[float]], weights: Sequence[Sequence[float]], loss: TokenLoss
    ) -> dict[str, float]:  # fmt: skip
        total, mismatch = 0.0, Mismatch()
        self.optimizer.zero_grad(set_to_none=True)
        for indices in self._batches(samples):
            rows = [samples[i] for i in indices]
            logprobs = chosen_logprobs(self._sampled_logits(self.model, rows), targets_of(rows, self.model.device))
            part = policy_loss(logprobs, rows, [advantages[i] for i in indices], [weights[i] for i in indices], loss)
            part.backward()
            total += float(part.detach())
            mismatch.add(logprobs, sampler_logprobs(rows, logprobs.device))
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.version += 1
        return {"loss": total, "gradient_norm": float(norm)} | mismatch.facts()

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        names = {id(p): name for name, p in self.model.named_parameters()}
        moments = {
            f"{names[id(p)]}/{key}": value
            for p, state in self.optimizer.state.items() for key, value in state.items()
        }  # fmt: skip
        save_file({name: p.detach().clone() for name, p in self.model.named_parameters()}, folder / "weights.safetensors")
        save_file(moments, folder / "optimizer.safetensors")
        (folder / "policy.json").write_text(json.dumps({"version": self.version}))

    def load(self, folder: Path) -> None:
        self.start_from(folder)
        moments = load_file(folder / "optimizer.safetensors")
        for name, p in self.model.named_parameters():
            state = {key.rsplit("/", 1)[1]: value for key, value in moments.items() if key.rsplit("/", 1)[0] == name}
            if state:
                self.optimizer.state[p] = {k: v if k == "step" else v.to(p.device) for k, v in state.items()}

    def export(self, folder: Path, *, base: bool = False) -> None:
        (self.base if base else self.model).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def start_from(self, folder: Path) -> None:
        weights = load_file(folder / "weights.safetensors")
        self.optimizer.state.clear()
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                p.copy_(weights[name])
        self.version = json.loads((folder / "policy.json").read_text())["version"]

    def _batches(self, samples: Sequence[Sample]) -> Iterator[list[int]]:
        return micro_batches(samples, self.settings.micro_batch_tokens)

    def _sampled_logits(self, model: PreTrainedModel, samples: Sequence[Sample]) -> Tensor:
        """float32 logits of every sampled token, row after row."""
        if is_plain_qwen3(model) and not self.settings.checkpointing:
            return score(model, samples)
        return logits_at(model, *padded(samples, self.pad, model.device), self.settings.float32_head)
