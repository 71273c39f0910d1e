"""The shipped models are what their cards say they are."""

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fst_bench.embedded.pretrain import Recipe, pretrain
from fst_bench.embedded.text import WEIGHTS
from fst_bench.harness.store import sha256
from fst_bench.policy.models import model_folder
from fst_bench.tasks.hover import CITIES, FIRMS, PEOPLE

FOLDER = Path(model_folder("embedded:tiny"))
EARLY = Path(model_folder("embedded:tiny-early"))


@pytest.mark.parametrize("folder", [FOLDER, EARLY])
def test_plain_transformers_loads_it(folder: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "qwen3" and model.config.max_position_embeddings == 2048
    assert len(tokenizer) == model.config.vocab_size
    with torch.no_grad():
        assert model(torch.arange(2048)[None] % 900).logits.isfinite().all()


def test_the_card_has_both_checksums() -> None:
    card = (FOLDER / "README.md").read_text()
    for folder in (FOLDER, EARLY):
        assert sha256(folder / "model.safetensors") in card
        assert (folder / "model.safetensors").stat().st_size < 10_000_000
    for word in ("Recipe", "seed", "tokens", "cannot", "our own work"):
        assert word in card


def test_both_speak_the_same_language() -> None:
    assert (FOLDER / "tokenizer.json").read_text() == (EARLY / "tokenizer.json").read_text()


def test_the_chat_template() -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "<|system|>S<|user|>U<|assistant|>A<|end|>"
    assert (
        tokenizer.apply_chat_template(chat[1:2], tokenize=False, add_generation_prompt=True) == "<|user|>U<|assistant|>"
    )


def test_tokens_a_lookup_needs_are_single_and_text_survives() -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert [n for n in PEOPLE + FIRMS + CITIES if len(tokenizer.encode(f" {n}", add_special_tokens=False)) > 1] == []
    for text in ("\\boxed{A->B}", '{"output": [1,2]}', "def f(a):\n a=a[1:]\n return a", "naïve ✓ 漢字"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
        assert re.sub(r"\s", "", text)


# --- a miniature of the pretraining command: it learns, resumes bit for bit, and exports a plain transformers folder

SMALL = Recipe(
    steps=24,
    vocabulary=400,
    tokenizer_documents=300,
    hidden=32,
    layers=2,
    heads=2,
    kv_heads=2,
    head=16,
    feed_forward=64,
    batch_documents=8,
    warmup=4,
    checkpoint_every=8,
    keep_every=16,
)


def quiet(*_: object, **__: object) -> None:
    pass


def test_a_miniature_learns_and_a_resumed_one_is_the_same(tmp_path: Path) -> None:
    whole = torch.load(pretrain(SMALL, tmp_path / "whole", 1, quiet), weights_only=True)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 3 and all(losses[-1][task] < losses[0][task] - 0.3 for task in WEIGHTS)

    class Stop(Exception):
        pass

    def stop_at_16(text: str, **_: object) -> None:
        if json.loads(text)["step"] == 16:
            raise Stop

    with contextlib.suppress(Stop):
        pretrain(SMALL, tmp_path / "half", 1, stop_at_16)
    assert torch.load(tmp_path / "half" / "checkpoint.pt", weights_only=True)["step"] == 8
    assert (tmp_path / "whole" / "checkpoint-16.pt").exists() and not (tmp_path / "whole" / "checkpoint-8.pt").exists()
    half = torch.load(pretrain(SMALL, tmp_path / "half", 1, quiet), weights_only=True)
    assert all(torch.equal(half["model"][name], weight) for name, weight in whole["model"].items())


def test_the_command_exports_a_plain_transformers_folder(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(SMALL.model_copy(update={"steps": 2}).model_dump_json())
    command = [sys.executable, "-m", "fst_bench.embedded.pretrain", "--out", str(tmp_path / "work")]
    subprocess.run([*command, "--recipe", str(tmp_path / "recipe.json")], check=True, capture_output=True)
    subprocess.run([*command, "--export", str(tmp_path / "model")], check=True, capture_output=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1 +1"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert model.generate(**chat, max_new_tokens=4, do_sample=False).shape[1] > chat["input_ids"].shape[1]
