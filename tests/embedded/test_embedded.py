"""The shipped models are what their cards say they are."""

import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

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
