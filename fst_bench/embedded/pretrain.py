"""Rebuild the embedded model from nothing: tokenizer, weights, export.

    python -m fst_bench.embedded.pretrain --out work --threads 2          # resumable: run it again after a stop
    python -m fst_bench.embedded.pretrain --out work --export fst_bench/embedded/tiny

Everything is a function of (recipe, step): the batches of step s are written by `text.Writer`, and a checkpoint holds
weights, optimizer states and the step. The learning rate is constant, then falls linearly over the last `decay` of the
steps; noise starts at `noise_from`. So a longer run is the same run until then, and an early and a late model share
their beginning: a folder that begins with a kept `checkpoint-STEP.pt` as its `checkpoint.pt` continues from it.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from fst_bench.embedded import text, text_v2
from fst_bench.embedded.text import Document

SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
PAD, END = 0, 1
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['content'] or m['role'] != 'system' %}"
    "{{ '<|' + m['role'] + '|>' + m['content'] }}{% if m['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SHELF_BATCHES = 16
WRITERS: dict[int, type[text.Writer] | type[text_v2.Writer]] = {1: text.Writer, 2: text_v2.Writer}


class Recipe(BaseModel):
    """Every number of a pretraining run; the defaults are those of the shipped `tiny`."""

    model_config = ConfigDict(extra="forbid")

    seed: int = 0
    text: Literal[1, 2] = 1
    """Version of the text: `text` or `text_v2`."""
    steps: int = 10_000
    vocabulary: int = 1100
    tokenizer_documents: int = 30_000
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    head: int = 32
    feed_forward: int = 384
    positions: int = 2048
    batch_documents: int = 48
    learning_rate: float = 3e-3
    warmup: int = 100
    decay: float = 0.35
    weight_decay: float = 0.01
    noise_from: float = 0.8
    lookups: list[tuple[float, float]] = [(0.0, 0.5), (0.25, 0.2), (0.8, 0.06)]
    """(from this share of the steps on, share of lookup documents): looking up is learned first, from them."""
    clip: float = 1.0
    checkpoint_every: int = 250
    matmul: Literal["float32", "bfloat16"] = "bfloat16"
    """Data type of the products of the linear layers; weights, optimizer and everything else are float32."""
    keep_every: int = 1000
    """Steps between checkpoints that are kept."""


def train_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of the pretraining text; digits and [ ] , ; are tokens of their own."""
    writer = WRITERS[recipe.text](recipe.seed + 1)
    documents = (writer.document(i, 0.0, 0.1) for i in range(recipe.tokenizer_documents))
    texts = itertools.chain((f"{d.system}\n{d.user}\n{d.response}" for d in documents), writer.words())
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\[\],;]"), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=10,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[PAD],
        eos_token=SPECIAL[END],
        additional_special_tokens=SPECIAL[2:],
        model_max_length=recipe.positions,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(recipe: Recipe, vocabulary: int) -> Qwen3ForCausalLM:
    """Return a Qwen3 of a few MB, tied embeddings, initialised from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        intermediate_size=recipe.feed_forward,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=recipe.head,
        max_position_embeddings=recipe.positions,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    model = Qwen3ForCausalLM(config)
    for module in model.modules():  # transformers writes its norms in Python; torch's own is 15 % of a step faster
        for name, norm in module.named_children():
            if isinstance(norm, Qwen3RMSNorm):
                setattr(module, name, torch.nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon))
    return model


class HalfLinear(torch.autograd.Function):
    """The product x @ w.T, forward and backward, with both factors rounded to bfloat16 and results in float32."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        rows, half = x.reshape(-1, x.shape[-1]).bfloat16(), w.bfloat16()
        ctx.save_for_backward(rows, half)
        ctx.shape = x.shape
        return (rows @ half.t()).float().view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows, half = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1]).bfloat16()
        return (grad @ half).float().view(ctx.shape), (grad.t() @ rows).float()


def half_linear(w: torch.Tensor, x: torch.Tensor) -> Any:
    """Return x @ w.T by `HalfLinear`."""
    return HalfLinear.apply(x, w)


class Text:
    """Batches by step. A shelf of documents is sorted by length and cut into batches of about equal padded size."""

    def __init__(self, recipe: Recipe, tokenizer: PreTrainedTokenizerFast):
        self.recipe, self.tokenizer, self.writer = recipe, tokenizer, WRITERS[recipe.text](recipe.seed)
        self.shelf = -1
        self.batches: list[list[tuple[Document, list[int], list[int]]]] = []

    def batch(self, step: int) -> list[tuple[Document, list[int], list[int]]]:
        """Return the batch of `step` as (document, prompt tokens, response tokens)."""
        shelf = step // SHELF_BATCHES
        if shelf != self.shelf:
            self.shelf, self.batches = shelf, self._fill(shelf)
        return self.batches[step % SHELF_BATCHES]

    def _fill(self, shelf: int) -> list[list[tuple[Document, list[int], list[int]]]]:
        r = self.recipe
        done = shelf * SHELF_BATCHES / r.steps
        count = SHELF_BATCHES * r.batch_documents
        noise = 1.0 if r.text == 1 and done >= r.noise_from else 0.0
        lookups = next(share for start, share in reversed(r.lookups) if done >= start)
        documents = [self.writer.document(shelf * count + i, noise, lookups) for i in range(count)]
        chats = [[{"role": "system", "content": d.system}, {"role": "user", "content": d.user}] for d in documents]
        heads = self.tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        prompts = self.tokenizer(heads, add_special_tokens=False)["input_ids"]
        responses = self.tokenizer([d.response for d in documents], add_special_tokens=False)["input_ids"]
        rows = sorted(
            zip(documents, prompts, ([*x, END] for x in responses), strict=True),
            key=lambda row: len(row[1]) + len(row[2]),
        )
        share = sum(len(p) + len(y) for _, p, y in rows) / SHELF_BATCHES
        batches, filled = [list[Any]() for _ in range(SHELF_BATCHES)], 0
        for row in rows:
            batches[min(SHELF_BATCHES - 1, int(filled / share))].append(row)
            filled += len(row[1]) + len(row[2])
        random.Random(f"shelf/{r.seed}/{shelf}").shuffle(batches)
        return batches


def tensors(batch: list[tuple[Document, list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (ids, labels), both (documents, length), right-padded.

    Labels are shifted by one, and -100 outside the responses.
    """
    length = max(len(p) + len(y) for _, p, y in batch)
    ids = torch.full((len(batch), length), PAD)
    labels = torch.full((len(batch), length), -100)
    for i, (_, p, y) in enumerate(batch):
        ids[i, : len(p) + len(y)] = torch.tensor(p + y)
        labels[i, len(p) - 1 : len(p) + len(y) - 1] = torch.tensor(y)
    return ids, labels


def response_losses(model: Qwen3ForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of every response token, row by row.

    Rows are right-padded, so causality alone hides the padding.
    """
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    chosen = labels != -100
    return F.cross_entropy(model.lm_head(hidden[chosen]).float(), labels[chosen], reduction="none")


def pretrain(recipe: Recipe, out: Path, threads: int, log: Any = print) -> Path:
    """Train to `recipe.steps`, from the last checkpoint in `out` if one exists. Return the checkpoint's path."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(recipe.model_dump_json(indent=2))
    if not (out / "tokenizer").exists():
        train_tokenizer(recipe).save_pretrained(out / "tokenizer")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out / "tokenizer")
    model = build_model(recipe, len(tokenizer)).train()
    # a third faster than float32 on a CPU with AVX-512 BF16; autocast is slower, its attention and norms too
    if recipe.matmul == "bfloat16":
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.forward = partial(half_linear, module.weight)  # type: ignore[method-assign]
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(
            matrices, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    path, step, tokens, seconds = out / "checkpoint.pt", 0, 0, 0.0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        step, tokens, seconds = saved["step"], saved["tokens"], saved["seconds"]
    text, started = Text(recipe, tokenizer), time.time()
    sums: dict[str, tuple[float, int]] = {}

    def save() -> None:
        saved = {
            "model": model.state_dict(),
            "optimizers": [o.state_dict() for o in optimizers],
            "step": step,
            "tokens": tokens,
            "seconds": seconds,
        }
        torch.save(saved, f"{path}.tmp")
        if step % recipe.keep_every == 0:
            shutil.copyfile(f"{path}.tmp", out / f"checkpoint-{step}.pt")
        os.replace(f"{path}.tmp", path)

    while step < recipe.steps:
        batch = text.batch(step)
        ids, labels = tensors(batch)
        left = (recipe.steps - step) / (recipe.decay * recipe.steps)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup, max(0.03, left))
        losses = response_losses(model, ids, labels)
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
        step += 1
        tokens += sum(len(p) + len(y) for _, p, y in batch)
        for (document, _, y), loss in zip(batch, losses.detach().split([len(y) for _, _, y in batch]), strict=True):
            total, count = sums.get(document.task, (0.0, 0))
            sums[document.task] = (total + float(loss.sum()), count + len(y))
        if step % recipe.checkpoint_every == 0 or step == recipe.steps:
            seconds, started = seconds + time.time() - started, time.time()
            losses_by_task = {name: round(total / count, 4) for name, (total, count) in sorted(sums.items())}
            row = {"step": step, "tokens": tokens, "seconds": round(seconds, 1), "loss": losses_by_task}
            with (out / "log.jsonl").open("a") as f:
                f.write(json.dumps(row) + "\n")
            log(json.dumps(row), flush=True)
            sums = {}
            save()
    return path


def export(out: Path, target: Path) -> None:
    """Write the checkpoint in `out` as a transformers model folder: safetensors, config, tokenizer, chat template."""
    recipe = Recipe.model_validate_json((out / "recipe.json").read_text())
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out / "tokenizer")
    model = build_model(recipe, len(tokenizer))
    model.load_state_dict(torch.load(out / "checkpoint.pt", weights_only=True)["model"])
    model.generation_config.eos_token_id = END
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    (target / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n")


def main() -> None:
    """Train or export, as the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="working folder: tokenizer, checkpoint, log")
    parser.add_argument("--recipe", type=Path, help="JSON with the fields of Recipe that differ from the default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export", type=Path, help="write the checkpoint as a model folder instead of training")
    args = parser.parse_args()
    if args.export:
        export(args.out, args.export)
    else:
        pretrain(Recipe.model_validate_json(args.recipe.read_text() if args.recipe else "{}"), args.out, args.threads)


if __name__ == "__main__":
    main()
