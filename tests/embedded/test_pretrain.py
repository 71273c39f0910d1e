"""A miniature of the pretraining command: it learns, resumes bit for bit, and exports a plain transformers folder."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fst_bench.embedded.pretrain import Recipe, pretrain
from fst_bench.embedded.text import WEIGHTS

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
