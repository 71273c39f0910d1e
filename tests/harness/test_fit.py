import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from fst_bench.cli import main
from fst_bench.harness.config import Config, Hardware, hardware_of, load_preset, preset_files, resolve
from fst_bench.harness.planning.cost import estimate
from fst_bench.harness.planning.fit import alternatives, fits, seconds
from fst_bench.harness.planning.memory import (
    Shape,
    cache_left,
    checkpoint_bytes,
    memory_of,
    room,
    shape_of,
    with_cache,
)
from fst_bench.policy import PolicySettings
from fst_bench.policy.torch.backend import load_policy, ready_to_learn

PAPER = "qwen3-8b-paper"
CPU = Hardware(gpus=0, memory_gb=4, teraflops=1, bandwidth=1)
FOUR = Hardware(gpus=4, memory_gb=24, teraflops=1, bandwidth=1)


def config(preset: str, **settings: Any) -> Config:
    return resolve("continual-4", "fst", preset, 0, settings)[0]


@pytest.mark.parametrize(
    ("name", "parameters"),  # as their cards on the hub count them
    [
        ("Qwen/Qwen3-0.6B", 596_049_920),
        ("Qwen/Qwen3-1.7B", 1_720_574_976),
        ("Qwen/Qwen3-4B", 4_022_468_096),
        ("Qwen/Qwen3-8B", 8_190_735_360),
    ],
)
def test_the_listed_shapes_are_the_models(name: str, parameters: int) -> None:
    assert shape_of(name).parameters == parameters


def test_a_folder_is_counted() -> None:
    model = load_policy("embedded:tiny", PolicySettings()).model
    shape = shape_of("embedded:tiny")
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert (shape.layers, shape.hidden, shape.vocabulary) == (
        model.config.num_hidden_layers,
        model.config.hidden_size,
        model.config.vocab_size,
    )


def kept_by_autograd(model: torch.nn.Module, rows: int, length: int) -> int:
    """Return the bytes that a forward pass through the layers leaves for the backward pass, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.base_model(input_ids=torch.ones(rows, length, dtype=torch.long), use_cache=False)
    return sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in weights)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize(("heads", "keys", "size", "feedforward"), [(4, 4, 16, 192), (4, 2, 32, 512), (16, 8, 16, 384)])
def test_activations_are_what_autograd_keeps(
    tmp_path: Path, dtype: str, gradient_checkpointing: bool, heads: int, keys: int, size: int, feedforward: int
) -> None:
    rows, length = 4, 64
    policy = {
        "dtype": dtype,
        "gradient_checkpointing": gradient_checkpointing,
        "micro_batch_tokens": rows * length,
        "max_tokens": length,
    }
    kept, guess = [], []
    for layers in (4, 8):  # the difference: what stands outside of the layers is not in the guess
        made = Qwen3Config(
            hidden_size=128,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=keys,
            head_dim=size,
            intermediate_size=feedforward,
            vocab_size=300,
            tie_word_embeddings=True,
            max_position_embeddings=length,
        )
        made.save_pretrained(tmp_path)
        settings = config("tiny", model=str(tmp_path), policy=policy)
        model = AutoModelForCausalLM.from_config(made, dtype=getattr(torch, dtype))
        kept.append(kept_by_autograd(ready_to_learn(model, settings.policy), rows, length))
        guess.append(memory_of(settings, shape_of(str(tmp_path)), CPU).activations)
    assert kept[1] - kept[0] == pytest.approx(guess[1] - guess[0], rel=0.1)


MEASURED = """
import re, sys, torch
from pathlib import Path
from fst_bench.policy.scoring import ChosenLogprobs, Head
torch.set_num_threads(2)
def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
tokens, vocabulary, hidden = int(sys.argv[1]), 151_936, int(sys.argv[2])
states, weight = torch.randn(tokens, hidden, requires_grad=True), torch.randn(vocabulary, hidden, requires_grad=True)
targets = torch.randint(vocabulary, (tokens,))
before = peak()
ChosenLogprobs.apply(states, weight, None, targets, None, Head(weight, None, None, False)).sum().backward()
print(peak() - before)
"""
"""Bytes. getrusage would not do: before its first import a process that pytest starts has pytest's own peak there."""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("tokens", "hidden"), [(1500, 32), (300, 32)])
def test_logits_are_what_a_process_takes_for_them(tokens: int, hidden: int) -> None:
    command = [sys.executable, "-c", MEASURED, str(tokens), str(hidden)]
    measured = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    made = config("tiny", **{"policy.micro_batch_tokens": tokens, "policy.max_tokens": tokens})
    shape = Shape(1, 1, hidden, hidden, hidden, hidden, 151_936, 4096)
    assert memory_of(made, shape, CPU).logits == pytest.approx(measured, rel=0.15)


def test_logits_do_not_grow_with_a_pass() -> None:
    shape = shape_of("Qwen/Qwen3-0.6B")
    few, many = (
        memory_of(config("qwen3-0.6b", **{"policy.micro_batch_tokens": tokens}), shape, FOUR)
        for tokens in (3072, 12_288)
    )
    assert many.logits == few.logits and many.activations == 4 * few.activations


def test_memory_by_hand() -> None:
    # 1,000 parameters in bfloat16 on 4 ranks, 250 to each; the largest has 16 x 8 = 128, more than 10 x 8 of the head
    shape = Shape(1000, 2, 8, 8, 8, 16, 10, 100)
    two = memory_of(config("qwen3-0.6b"), shape, FOUR)
    # ZeRO-2 shards gradients (4 bytes) and optimizer (4 weights, 4 + 4 moments)
    assert (two.weights, two.reference, two.gradients, two.optimizer, two.sampler) == (2000, 2000, 1000, 3000, 2000)
    # a bucket of all gradients, flattened once more, the largest twice in bfloat16, once in float32; its float64 copy
    assert (two.bucket, two.reduction, two.step, two.gathered) == (2000, 2000 + 2 * 2 * 128 + 4 * 128, 8 * 128, 0)
    # a layer's tensors for 4,096 tokens: 4 hidden, 2 of queries and keys each, 3 feed-forward; 128 rows of 10 logits,
    # 2 + 4 x 4 bytes each
    assert two.forward == 4096 * 2 * (4 * 8 + 2 * 16 + 3 * 16) + 128 * 10 * 18
    # all tokens at a time, 2 x 4 + 2 x 2 bytes a logit; the head's gradient in float32 and bfloat16
    assert two.logits == 12 * 3072 * 10 + 6 * 80
    # two layers' inputs and one layer, its feed-forward part's gradients, and the last norm: a token
    assert two.activations == 3072 * (2 * 2 * 8 + (16 * 8 + 10 * 16 + 8 * 16) + 2 * (2 * 8 + 3 * 16) + (8 + 5 * 2) * 8)
    assert two.context == (0.75 + 0.75 + 0.7) * 2**30 and two.standing == 0
    assert two.learning == two.resident + 1000 + two.activations + 2000 + two.logits
    # 0.95 x 24 GiB less 2.2 of context and next to nothing else are 20.6, of which whole quarters are taken
    assert two.cache == 20.5 * 2**30 and two.peak == two.sampling
    assert two.sampling == two.resident + two.sampler + two.forward + two.cache

    spread = {"policy.distributed.zero": 3, "policy.distributed.tensor_parallel": 2}
    three = memory_of(config("qwen3-0.6b", **spread), shape, FOUR)
    # ZeRO-3 shards both models too, and holds whole what it needs: here all of the policy, and the reference's head
    assert (three.weights, three.reference, three.gradients, three.optimizer, three.sampler) == (
        500,
        500,
        1000,
        3000,
        1000,
    )
    assert three.gathered == 2 * (1000 + 80) and three.standing == 1000 + 2000
    assert three.context == pytest.approx(two.context + 0.7 * 2**30)  # NCCL's buffers for the ranks of an engine
    # of a reduced bucket a rank keeps a quarter in float32; the step flattens its share of gradients in float32
    assert (three.reduction, three.step) == (2000 + 2 * 2 * 128 + 4 * 250, 4 * 250)
    assert three.sampling == three.resident + 3000 + three.sampler + three.forward + three.cache
    in_float32: dict[str, Any] = {"policy.dtype": "float32", "policy.float32_head": False}
    assert memory_of(config("qwen3-0.6b", **in_float32), shape, FOUR).optimizer == 3000
    in_float32 |= {"policy.distributed.zero": 3}
    assert memory_of(config("qwen3-0.6b", **in_float32), shape, FOUR).optimizer == 2000

    # in float32 on one process: weights, reference, gradients, two moments; a cache of 2 x 2 layers x 8 x 4 bytes each
    one = memory_of(config("tiny", **{"policy.max_tokens": 50, "policy.max_num_seqs": 7}), shape, CPU)
    assert (one.weights, one.reference, one.gradients, one.optimizer, one.sampler) == (4000, 4000, 4000, 8000, 0)
    assert one.cache == 7 * 100 * 128 and one.standing == 4000 and one.step == 8 * 128
    # in bfloat16 gradients are in float32, and so are masters beside the moments
    low = memory_of(config("tiny", **{"policy.dtype": "bfloat16"}), shape, CPU)
    assert (low.weights, low.reference, low.gradients, low.optimizer) == (2000, 2000, 4000, 12_000)


def test_checkpoints_by_hand() -> None:
    shape = Shape(1000, 2, 8, 8, 8, 16, 10, 100)
    assert checkpoint_bytes(config("tiny"), shape) == 4000 + 8000
    assert checkpoint_bytes(config("tiny", **{"policy.dtype": "bfloat16"}), shape) == 2000 + 12_000
    assert checkpoint_bytes(config("qwen3-0.6b"), shape) == 2000 + 12_000


def test_the_cache_is_what_is_left() -> None:
    made, hardware = config("qwen3-0.6b"), hardware_of("qwen3-0.6b")
    shape = shape_of(made.model)
    left = cache_left(made, shape, hardware)
    assert left % 0.25 == 0 and memory_of(made, shape, hardware).cache == left * 2**30
    assert cache_left(made, shape, hardware.model_copy(update={"memory_gb": 23.99})) == left  # some MB less
    assert memory_of(made, shape, hardware).sampling <= room(hardware)
    more = config("qwen3-0.6b", **{"policy.distributed.cache_gb": left + 0.5})
    assert memory_of(more, shape, hardware).cache == (left + 0.5) * 2**30
    assert "GB a GPU" in str(fits(more, shape, hardware))
    # on a GPU that is too small, one sequence: 3,072 tokens of 2 x 28 layers x 1,024 x 2 bytes are 0.33 GiB
    assert cache_left(made, shape, hardware.model_copy(update={"memory_gb": 8})) == 0.5
    assert cache_left(made, shape, CPU) == 1.0


def test_a_run_gets_the_cache_of_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    made = config("qwen3-0.6b")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert with_cache(made) is made.policy  # refused where the policy is loaded
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    gpus = [SimpleNamespace(total_memory=gb * 2**30) for gb in (16, 24)]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpus[index])
    monkeypatch.setenv("WORLD_SIZE", "4")
    for rank, gigabytes in ((0, 16), (1, 24)):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        here = Hardware(gpus=4, memory_gb=gigabytes, teraflops=1, bandwidth=1)
        assert with_cache(made).distributed.cache_gb == cache_left(made, shape_of(made.model), here)
    assert made.policy.distributed.cache_gb == "fit"  # the run's config is as it was
    assert with_cache(config("qwen3-0.6b", **{"policy.distributed.cache_gb": 3.0})).distributed.cache_gb == 3.0
    on_cpu = config("tiny", backend="vllm-deepspeed", **{"policy.distributed.cache_gb": "fit"})
    assert with_cache(on_cpu).distributed.cache_gb == 1.0


@pytest.mark.parametrize("preset", preset_files())
def test_every_preset_fits_what_it_is_made_for(preset: str) -> None:
    shape, hardware = shape_of(config(preset).model), hardware_of(preset)
    assert fits(config(preset), shape, hardware) is None
    if hardware.gpus:  # a GPU of "24 GB" has 23.5 GiB, one of "80 GB" 79.1
        smaller = hardware.model_copy(update={"memory_gb": 0.979 * hardware.memory_gb})
        assert fits(config(preset), shape, smaller) is None


@pytest.mark.parametrize(
    ("preset", "settings", "reason"),
    [
        ("qwen3-0.6b", {"model": "Qwen/Qwen3-4B"}, "GB a GPU"),
        ("qwen3-0.6b", {"policy.micro_batch_tokens": 65_536}, "GB a GPU"),
        ("qwen3-0.6b", {"policy.micro_batch_tokens": 6144, "policy.gradient_checkpointing": False}, "GB a GPU"),
        ("qwen3-1.7b", {"model": "Qwen/Qwen3-8B"}, "GB a GPU"),
        (PAPER, {"policy.distributed.zero": 2, "policy.distributed.cache_gb": 40.0}, "GB a GPU"),
        (PAPER, {"policy.distributed.cache_gb": 1.0}, "holds no sequence of 10,240 tokens, which takes 1.4"),
        (PAPER, {"policy.distributed.tensor_parallel": 3}, "does not divide 8"),
        (PAPER, {"backend": "torch"}, "runs on one GPU"),
        ("tiny", {"policy.device": "cuda"}, "device is cuda"),
    ],
)
def test_what_does_not_fit_is_refused(preset: str, settings: dict[str, Any], reason: str) -> None:
    made, hardware = config(preset, **settings), hardware_of(preset)
    shape = shape_of(made.model)
    assert reason in str(fits(made, shape, hardware))
    for text in alternatives(made, shape, hardware):  # what is said to fit does
        where, _, changes = text.partition(" with ")
        there = hardware
        if found := re.match(r"(\d+) x (\d+) GB", where):
            there = hardware.model_copy(update={"gpus": int(found[1]), "memory_gb": float(found[2])})
        else:
            changes = where
        asked = dict(change.split("=") for change in changes.split())
        values = {key: {"true": True}.get(value) or int(value) for key, value in asked.items()}
        again = config(preset, **settings | values)
        assert fits(again, shape, there) is None, text


def test_an_alternative_exists_where_one_can() -> None:
    made = config("qwen3-0.6b", model="Qwen/Qwen3-8B")
    larger, *_ = alternatives(made, shape_of(made.model), hardware_of("qwen3-0.6b"))
    assert larger.startswith("16 x 24 GB with") and "zero=3" in larger
    made = config("qwen3-0.6b", **{"policy.micro_batch_tokens": 65_536})
    assert "policy.micro_batch_tokens=32768" in alternatives(made, shape_of(made.model), hardware_of("qwen3-0.6b"))


def test_longer_answers_more_parameters_and_fewer_gpus_take_longer() -> None:
    made, hardware = config(PAPER), hardware_of(PAPER)
    shape = shape_of(made.model)

    def total(settings: Config, there: Hardware) -> float:
        return sum(seconds(settings, shape, there, 100, 400, 1000, 1000, 100).values())

    usual = total(made, hardware)
    shorter = config(PAPER, **{"policy.max_tokens": 4096})
    fewer = hardware.model_copy(update={"gpus": 4})
    assert total(shorter, hardware) < usual < total(made, fewer)
    one, two = (seconds(made, shape, hardware, 100, 400, rollouts, 0, 0)["sampling"] for rollouts in (1000, 2000))
    assert two == 2 * one
    # 8 operations a parameter and token with gradient_checkpointing, at 0.35 of 8 x 312e12 a second
    a_token = 8 * 8_190_735_360 / (0.35 * 8 * 312e12)
    assert seconds(made, shape, hardware, 8, 800, 0, 10, 0)["training"] == pytest.approx(10 * 9000 * a_token)
    # of answers of 2,048 tokens four go into a pass of 10,240 with their prompt, which stands there once
    shorter = config(PAPER, **{"policy.max_tokens": 2048})
    assert seconds(shorter, shape, hardware, 8, 800, 0, 10, 0)["training"] == pytest.approx(10 * (202 + 2048) * a_token)


def test_a_large_model_on_a_cpu_has_a_context_once_a_pass() -> None:
    """In 2,048 tokens: 300 of the context once, and for each answer 36 and its problem's 30, or an eighth of those."""
    made, hardware = config("smollm2-135m"), hardware_of("smollm2-135m")
    shape = shape_of(made.model)
    found = seconds(made, shape, hardware, 300, 30, 0, 10, 10)
    a_token = shape.parameters / (0.35 * hardware.teraflops * 1e12)
    assert found["training"] == pytest.approx(10 * 6 * a_token * (36 + 30 / 8 + 300 / 43))
    assert found["scoring"] == pytest.approx(10 * 4 * a_token * (36 + 30 + 300 / 26))


def test_the_papers_preset_states_what_the_paper_gives() -> None:
    made = config(PAPER)
    assert (made.model, made.policy.thinking, made.batch, made.slow.group_size) == ("Qwen/Qwen3-8B", True, 32, 8)
    assert (made.fast.cycle, made.fast.reflector, made.evaluation.samples) == (6, "openai/gpt-5.2", 4)
    assert made.fast.population_size in (4, 8) and made.stage_problems == 200 * made.batch


def test_every_line_of_the_papers_preset_says_whose_it_is() -> None:
    sections: list[str] = []
    for line in preset_files()[PAPER].read_text().splitlines():
        key, colon, rest = line.partition(":")
        if line.startswith("#") or key == "hardware" or not colon:
            continue
        sections = [*sections[: (len(key) - len(key.lstrip())) // 2], rest]
        if rest.partition("#")[0].strip():
            assert any("[paper]" in text or "[ours]" in text for text in sections), line


@pytest.mark.parametrize("stream", ["continual-4", "paper-3", "single-math"])
def test_an_evaluation_at_8b_costs_less_than_five_rl_steps(stream: str) -> None:
    made, spec = resolve(stream, "rl", PAPER)
    e, tasks = made.evaluation, len({stage.task for stage in spec.stages})
    most = max(e.small * len(e.small_modes), e.boundary * len(e.boundary_modes)) * tasks * e.samples
    assert most < 5 * made.batch * made.slow.group_size
    # and all of them together less than learning
    cost = estimate(made, spec)
    assert cost["evaluation_rollouts"] < 0.1 * cost["training_rollouts"]


def test_a_dry_run_says_where_it_fits(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the preset is made for and what this machine has are two lines; exit code 1 where it fits neither."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    command = ["run", "--stream", "continual-4", "--method", "fst", "--preset", "qwen3-0.6b", "--dry-run"]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "596,049,920 parameters, on 1 x 24 GB: GB of memory weights 1.11, reference 1.11, optimizer 6.66" in output
    assert "context 2.2, gradients 2.22" in output
    assert "cache 10\n" in output and "standing" not in output and "hours" in output
    assert "# preset qwen3-0.6b is made for 1 x 24 GB, where it fits\n" in output
    assert "# this machine has no GPU, where it does not fit: torch sees no GPU\n" in output
    assert main([*command, "--model", "Qwen/Qwen3-8B"]) == 1
    output = capsys.readouterr()
    assert "made for 1 x 24 GB, where it does not fit: it takes" in output.out and output.err == ""
    assert "Would fit: 16 x 24 GB" in output.out


@pytest.mark.parametrize(("gb", "code"), [(48, 0), (16, 1)])
def test_a_model_too_large_for_the_preset_may_fit_this_machine(
    gb: int, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny preset is made for 4 GB, which says nothing about a larger model on a larger machine."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=gb * 2**30, available=2**30))
    command = ["run", "--stream", "continual-4", "--method", "rl", "--dry-run", "--model", "Qwen/Qwen3-0.6B", "--json"]
    assert main(command) == code
    *lines, result = capsys.readouterr().out.splitlines()
    assert "# preset tiny is made for a CPU with 4 GB, where it does not fit: it takes" in lines[-2]
    assert f"# this machine has a CPU with {gb} GB, where it {'does not fit' if code else 'fits'}" in lines[-1]
    need = json.loads(result)["needs"]
    assert need["refused"] and bool(need["refused_here"]) == bool(code) and need["here"] == f"a CPU with {gb} GB"


def test_a_preset_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mine := tmp_path / "box.yaml").write_text(
        "extends: qwen3-0.6b\nhardware: {gpus: 2}\npolicy: {distributed: {zero: 3}}\n"
    )
    made = config(str(mine))
    assert (made.preset, made.policy.distributed.zero, made.policy.max_tokens) == ("box", 3, 2048)
    assert hardware_of(str(mine)) == hardware_of("qwen3-0.6b").model_copy(update={"gpus": 2})
    assert "hardware" not in load_preset(str(mine)) and main(["show", "preset", str(mine)]) == 0
    mine.write_text("extends: tiny\nhardware: {gpu: 2}\n")
    with pytest.raises(ValueError, match="did you mean gpus"):
        hardware_of(str(mine))
    (clash := tmp_path / "tiny.yaml").write_text("extends: smoke\n")
    with pytest.raises(ValueError, match="give the file another name"):
        config(str(clash))


def test_a_model_that_is_nowhere_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # or it would try five times
    with pytest.raises(ValueError, match="neither local nor on the hub"):
        shape_of("nobody/no-such-model")
    with pytest.raises(ValueError, match=r"no config\.json"):
        shape_of(str(tmp_path))
