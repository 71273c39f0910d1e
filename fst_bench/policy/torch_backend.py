"""The `torch` backend: one process, CPU or one GPU; sampler and learner share the weights."""

import copy
import json
import logging
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from fst_bench.metrics import token_kl

from .base import Ask, Sample, TokenLoss
from .qwen3 import is_plain_qwen3, score
from .sampler import decode

EMBEDDED = "embedded:"
transformers_logging.disable_progress_bar()
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries would drown the one line that says what is wrong


class PolicySettings(BaseModel):
    """How the policy samples and how its optimizer steps."""

    model_config = ConfigDict(extra="forbid")

    max_tokens: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest gradient norm."""
    sample_rows: Annotated[int, Field(ge=1)] = 192
    """Sequences sampled at a time; more are slower on a CPU, whose cache they overflow."""
    micro_batch_tokens: Annotated[int, Field(ge=1)] = 8192
    """Padded tokens in one forward-backward pass; changes nothing but memory."""
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"


def model_folder(name: str) -> str:
    """`embedded:tiny` as a path inside the package; any other path or hub id unchanged."""
    if not name.startswith(EMBEDDED):
        return name
    root = resources.files("fst_bench.model")
    path = Path(str(root.joinpath(name.removeprefix(EMBEDDED))))
    if not (path / "config.json").exists():
        there = sorted(p.name for p in Path(str(root)).iterdir() if (p / "config.json").exists())
        raise ValueError(f"no embedded model {name!r}: there are {', '.join(EMBEDDED + n for n in there) or 'none'}")
    return str(path)


def load_policy(name: str, settings: PolicySettings) -> "TorchPolicy":
    """The policy for a model path, hub id or `embedded:NAME`. ValueError in one line where it is no model."""
    folder = model_folder(name)
    if Path(folder).is_dir() and not (Path(folder) / "config.json").exists():
        raise ValueError(f"cannot load the model {name!r}: the folder has no config.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, settings.dtype))
    except (OSError, ValueError, KeyError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"cannot load the model {name!r}: {reason[:200]}") from None
    if not tokenizer.chat_template:
        raise ValueError(f"the model {name!r} has no chat template")
    torch.nn.Module.to(model, settings.device)
    return TorchPolicy(model, tokenizer, settings)


class TorchPolicy:
    """A transformers causal LM that samples, scores and learns in this process. See `Policy` for the contract."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any, settings: PolicySettings):
        self.model, self.tokenizer, self.settings = model.eval(), tokenizer, settings
        self.base = copy.deepcopy(model).requires_grad_(False)
        self.version = 0
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay)
        stops = model.generation_config.eos_token_id if model.generation_config else None
        self.end = set(stops if isinstance(stops, list) else [stops]) - {None} | {tokenizer.eos_token_id}
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def sample(self, asks: Sequence[Ask], *, temperature: float = 1.0, base: bool = False) -> list[list[Sample]]:
        if not asks:
            return []
        chats = [list(ask.messages) for ask in asks]
        texts = self.tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        prompts: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        room = self.model.config.max_position_embeddings - self.settings.max_tokens
        longest = max(map(len, prompts))
        if longest > room:
            raise ValueError(f"a prompt of {longest} tokens leaves no room: the model has {room} positions before max_tokens")
        decoded = decode(
            self.base if base else self.model, prompts, [ask.n for ask in asks], [ask.seed for ask in asks],
            temperature=temperature, max_tokens=self.settings.max_tokens, end=self.end, pad=self.pad, rows=self.settings.sample_rows,
        )  # fmt: skip
        out = []
        for prompt, answers in zip(prompts, decoded, strict=True):
            bodies = [a.tokens[:-1] if a.finished else a.tokens for a in answers]
            written = self.tokenizer.batch_decode(bodies, skip_special_tokens=False)
            out.append([
                Sample(prompt + a.tokens, [False] * len(prompt) + [True] * len(a.tokens), a.logprobs, text, a.finished)
                for a, text in zip(answers, written, strict=True)
            ])  # fmt: skip
        return out

    def logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        out: list[list[float]] = [[] for _ in samples]
        with torch.no_grad():
            for indices in self._micro_batches(samples):
                logits, targets = self._sampled_logits(self.model, [samples[i] for i in indices])
                flat = torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]
                for i, part in zip(indices, flat.split([samples[i].sampled for i in indices]), strict=True):
                    out[i] = part.tolist()
        return out

    def kl_to_base(self, samples: Sequence[Sample], *, reverse: bool = False) -> list[float]:
        out = [0.0] * len(samples)
        if self.version == 0:  # the weights are still the base's
            return out
        with torch.no_grad():
            for indices in self._micro_batches(samples):
                rows = [samples[i] for i in indices]
                first, second = (self.base, self.model) if reverse else (self.model, self.base)
                logits = self._sampled_logits(first, rows)[0], self._sampled_logits(second, rows)[0]
                for i, kl in zip(indices, token_kl(*logits, [row.sampled for row in rows]).answers, strict=True):
                    out[i] = kl
        return out

    def update(self, samples: Sequence[Sample], advantages: Sequence[float], weights: Sequence[float], loss: TokenLoss) -> dict[str, float]:
        total, gap, tokens = 0.0, 0.0, 0
        self.optimizer.zero_grad(set_to_none=True)
        for indices in self._micro_batches(samples):
            rows = [samples[i] for i in indices]
            logits, targets = self._sampled_logits(self.model, rows)
            logprobs = torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]
            counts = torch.tensor([row.sampled for row in rows], device=logprobs.device)

            def per_token(values: list[float], counts: Tensor = counts) -> Tensor:
                return torch.tensor(values, dtype=torch.float32, device=counts.device).repeat_interleave(counts)

            sampled = torch.tensor([lp for row in rows for lp in row.logprobs], device=logprobs.device)
            terms = loss(logprobs, sampled, per_token([advantages[i] for i in indices]))
            part = (per_token([weights[i] for i in indices]) * terms).sum()
            part.backward()
            total += float(part.detach())
            gap = max(gap, float((logprobs.detach() - sampled).abs().max()))
            tokens += len(sampled)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.version += 1
        return {"loss": total, "gradient_norm": float(norm), "max_logprob_gap": gap, "tokens": float(tokens)}

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

    def _micro_batches(self, samples: Sequence[Sample]) -> Iterator[list[int]]:
        """Indices of similar lengths, answers to one prompt side by side, each batch within the padded-token budget."""

        def key(i: int) -> tuple[int, list[int]]:
            prompt = samples[i].tokens[: samples[i].mask.index(True)]
            return len(prompt), prompt

        batch: list[int] = []
        for i in sorted(range(len(samples)), key=key):
            if batch and (len(batch) + 1) * max(len(samples[j].tokens) for j in (*batch, i)) > self.settings.micro_batch_tokens:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _sampled_logits(self, model: PreTrainedModel, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """(float32 logits, targets) of every sampled token, row after row."""
        targets = torch.tensor([t for s in samples for t, sampled in zip(s.tokens, s.mask, strict=True) if sampled], device=model.device)
        if is_plain_qwen3(model):
            return score(model, samples), targets
        length = max(len(s.tokens) for s in samples)
        ids = torch.full((len(samples), length), self.pad, device=model.device)
        chosen = torch.zeros((len(samples), length), dtype=torch.bool, device=model.device)
        for i, s in enumerate(samples):  # right-padded, so causality hides the padding
            ids[i, : len(s.tokens)] = torch.tensor(s.tokens)
            chosen[i, : len(s.tokens)] = torch.tensor(s.mask)
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        return model.get_output_embeddings()(hidden[chosen[:, 1:]]).float(), targets
