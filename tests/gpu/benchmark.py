"""How fast the vllm-deepspeed backend is on one GPU, and its memory: one JSON file, written again after each part.

    python tests/gpu/benchmark.py --out gpu.json                       # under six minutes on an H100
    python tests/gpu/benchmark.py --out gpu.json --device cpu --small  # the same code on a CPU; figures mean nothing

The model is randomly initialised in the shape of Qwen3-0.6B; the settings are the preset's but for shorter answers, all
of one length. A part that fails is recorded with its error, and the next one runs. FST_TRL_PYTHON names a python that
has TRL, where this one has not.
"""

import argparse
import gc
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen3Config

from fst_bench.core.types import Sample, SampleRequest
from fst_bench.harness.config import Config, hardware_of, resolve
from fst_bench.harness.planning.memory import GIB, QWEN3, memory_of, shape_of, with_cache
from fst_bench.policy import load_policy
from fst_bench.policy.conversation import tokenise
from fst_bench.policy.models import model_folder
from fst_bench.policy.template import Template
from fst_bench.slow.losses import cispo

sys.path.insert(0, str(Path(__file__).parent))
from run import alone

PRESET, MODEL = "qwen3-0.6b", "Qwen/Qwen3-0.6B"
FULL: Any = {
    "vocab_size": 151_936,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
} | QWEN3[MODEL]
SMALL: Any = FULL | {
    "vocab_size": 2_000,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
PEAK = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16 operations a second by the data sheets, by a part of the device's name; the first match counts."""
ROUNDS = 3
"""Times that something is measured once it is warm; its figure is the median."""
TRL_ANSWERS = 8
"""Answers in one of TRL's passes on a GPU, which holds the logits of all their tokens."""
TRL_LIMIT = 240
"""Seconds that TRL's steps may take."""
VERSIONED = ("torch", "vllm", "deepspeed", "transformers")
Figures = dict[str, Any]


@dataclass
class Bench:
    """The parts' common data: one batch of an RL step, whose answers all have `tokens` tokens."""

    config: Config
    shape: Figures
    problems: int
    policy: Any = None
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cuda = self.config.policy.device == "cuda"
        self.group_size, self.tokens = self.config.slow.group_size, self.config.policy.max_tokens
        self.sampled = self.problems * self.group_size * self.tokens
        text = "Start and apply in order: 3 +4 *2 -7, then say why. " * 8
        self.requests = [
            SampleRequest(({"role": "user", "content": f"Problem {i}. {text}"},), seed=i, n=self.group_size)
            for i in range(self.problems)
        ]

    def prompts(self) -> list[list[int]]:
        template = Template(AutoTokenizer.from_pretrained(self.config.model), self.config.policy)
        conversations = [request.messages for request in self.requests]
        return [prompt.tokens for prompt in tokenise(template, conversations, self.shape["max_position_embeddings"])]

    def sample(self) -> list[Sample]:
        self.samples = [sample for answers in self.policy.sample(self.requests) for sample in answers]
        assert sum(s.sampled for s in self.samples) == self.sampled, "an answer ended early"
        return self.samples

    def learn(self) -> Figures:
        samples = self.samples or self.sample()
        advantages = [[(-1.0) ** i] * self.tokens for i in range(len(samples))]
        weights = [[1 / self.sampled] * self.tokens] * len(samples)
        return self.policy.update(samples, advantages, weights, cispo)

    def sync(self) -> None:
        """Sync the weights, whichever the sampler holds."""
        self.policy.ranked.holds = ("nothing", 0)
        self.policy.ranked.sync("policy")


def seconds(call: Callable[[], Any]) -> float:
    """Return the seconds of a call, with all that it started on the GPU."""
    settle()
    start = time.perf_counter()
    call()
    settle()
    return time.perf_counter() - start


def median(call: Callable[[], Any]) -> float:
    return statistics.median(seconds(call) for _ in range(ROUNDS))


def settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def clear() -> None:
    """Give back the memory that the part before has left."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_use() -> float:
    """Return the GiB of the GPU that are in use, by any process."""
    settle()
    free, total = torch.cuda.mem_get_info()
    return (total - free) / GIB


# --- the parts, in their order


def make_model(bench: Bench) -> Figures:
    """Make a model folder with random weights.

    Its end token is one that the model has no output for, so that every answer has its full length.
    """
    folder, tiny, vocabulary = Path(bench.config.model), Path(model_folder("embedded:tiny")), bench.shape["vocab_size"]
    torch.manual_seed(0)

    def make() -> None:
        with torch.device(bench.config.policy.device):
            model = AutoModelForCausalLM.from_config(
                Qwen3Config(**bench.shape, pad_token_id=0, eos_token_id=None), dtype=torch.bfloat16
            )
        model.save_pretrained(folder)

    taken = seconds(make)
    tokenizer, settings = (
        json.loads((tiny / name).read_text()) for name in ("tokenizer.json", "tokenizer_config.json")
    )
    known: dict[str, int] = tokenizer["model"]["vocab"]
    # every sampled token has a text, as it has with a tokenizer of this size
    known |= {f"<{i}>": i for i in range(len(known), vocabulary)}
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][1] | {"id": vocabulary, "content": "<|never|>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<|never|>"}))
    shutil.copy(tiny / "chat_template.jinja", folder)
    return {
        "make_s": taken,
        "parameters": shape_of(str(folder)).parameters,
        "prompt_tokens": max(map(len, bench.prompts())),
    }


def generate(bench: Bench) -> Figures:
    """Measure transformers' own sampling of the same batch. It comes before the policy, which takes the memory."""
    model: Any = AutoModelForCausalLM.from_pretrained(bench.config.model, dtype=torch.bfloat16)
    model = model.to(bench.config.policy.device).eval()
    prompts = bench.prompts()
    longest = max(map(len, prompts))
    padded = partial(pad_sequence, batch_first=True, padding_side="left")
    ids = padded([torch.tensor(prompt) for prompt in prompts]).to(model.device)
    mask = padded([torch.ones(len(prompt), dtype=torch.long) for prompt in prompts]).to(model.device)

    def run(tokens: int) -> None:
        settings = GenerationConfig(
            do_sample=True, top_k=0, num_return_sequences=bench.group_size, max_new_tokens=tokens, pad_token_id=0
        )
        found = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        assert found.shape[1] == longest + tokens

    run(8)
    taken = seconds(lambda: run(bench.tokens))
    return {"sample_s": taken, "tokens_per_s": bench.sampled / taken}


def load(bench: Bench) -> Figures:
    """Load the policy, with a KV cache as large as the GPU has room for."""

    def call() -> None:
        bench.policy = load_policy(bench.config.model, with_cache(bench.config), bench.config.backend)

    taken = seconds(call)
    bench.policy.ranked.sampler.end = []  # vLLM refuses an end token that the model has no output for
    return {"load_s": taken, "kv_cache_gib": bench.policy.settings.distributed.cache_gb}


def sampling(bench: Bench) -> Figures:
    """Measure the policy's tokens a second, and the same engine's without seeds, log-probabilities and text."""
    from vllm import SamplingParams  # here: the policy's module sets vLLM's environment before it imports it

    least = SamplingParams(
        n=bench.group_size, temperature=1.0, max_tokens=bench.tokens, ignore_eos=True, detokenize=False
    )
    prompts: Any = [{"prompt_token_ids": prompt} for prompt in bench.prompts()]

    def bare() -> None:
        bench.policy.ranked.sampler.engine.generate(prompts, least, use_tqdm=False)

    for warm in (bench.sample, bare):
        warm()
    ours, theirs = median(bench.sample), median(bare)
    return {
        "sample_s": ours,
        "tokens_per_s": bench.sampled / ours,
        "bare_vllm_s": theirs,
        "bare_vllm_tokens_per_s": bench.sampled / theirs,
        "ratio_to_bare_vllm": theirs / ours,
        "gpu_in_use_gib": in_use() if bench.cuda else None,
    }


def update(bench: Bench) -> Figures:
    """Measure optimizer steps on one batch with the engine asleep, and their memory: also by `memory_of`'s estimate."""
    bench.learn()  # compiles flex_attention, and sends the engine to sleep
    shape = shape_of(bench.config.model)
    gpu = hardware_of(PRESET).model_copy(update={"gpus": 0})
    peak: float | None = None
    memory: Figures | None = None
    if bench.cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        # torch still counts memory that the sleeping engine has released, so only the increase is meaningful
        before, allocated, reserved = in_use(), torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
        total, name = torch.cuda.get_device_properties(0).total_memory / GIB, torch.cuda.get_device_name()
        gpu = hardware_of(PRESET).model_copy(update={"gpus": 1, "memory_gb": total})
        peak = next((flops for part, flops in PEAK.items() if part in name), gpu.teraflops * 1e12)
    metrics: Figures = {}
    taken = median(lambda: metrics.update(bench.learn()))
    if bench.cuda:
        memory = {
            "gpu_in_use_before_gib": before,
            "gpu_in_use_after_gib": in_use(),
            "allocated_at_peak_gib": before + (torch.cuda.max_memory_allocated() - allocated) / GIB,
            "reserved_at_peak_gib": before + (torch.cuda.max_memory_reserved() - reserved) / GIB,
        }
    tokens = bench.sampled + sum(map(len, bench.prompts()))
    estimate = memory_of(bench.config, shape, gpu)
    flops = (8 if bench.config.policy.gradient_checkpointing else 6) * shape.parameters * tokens / taken
    return {
        "update_s": taken,
        "tokens": tokens,
        "tokens_per_s": tokens / taken,
        "teraflops": flops / 1e12,
        "peak_teraflops": peak and peak / 1e12,
        "share_of_peak_flops": peak and flops / peak,
        "mean_logprob_gap_nats": metrics["mean_logprob_gap"],
        "memory": memory,
        "fit_peak_gib": estimate.peak / GIB,
        "fit_gib": {name: value / GIB for name, value in asdict(estimate).items()},
    }


def sync(bench: Bench) -> Figures:
    """Measure the steps that bring the sampler's weights up to date, and the memory that its sleep gives back."""
    ranked, sampler = bench.policy.ranked, bench.policy.ranked.sampler
    found: dict[str, list[float]] = {
        name: [] for name in ("sleep_s", "sleep_gives_back_gib", "wake_s", "receive_s", "compare_s", "canary_s")
    }

    def wake() -> None:  # as `receive` does, which then finds it awake
        sampler.engine.wake_up(["weights"])
        sampler.engine.wake_up(["kv_cache"])
        sampler.asleep = False

    first = seconds(bench.sync)
    for _ in range(ROUNDS):
        if bench.cuda:
            torch.cuda.empty_cache()  # as sleeping does: so what it gives back is the engine's alone
            before = in_use()
            found["sleep_s"].append(seconds(sampler.sleep))
            found["sleep_gives_back_gib"].append(before - in_use())
            found["wake_s"].append(seconds(wake))
        found["receive_s"].append(seconds(lambda: sampler.receive(ranked.learner.weights())))
        found["compare_s"].append(seconds(lambda: ranked.compare("policy")))
        found["canary_s"].append(seconds(lambda: ranked.canary("policy")))
    return {"first_sync_s": first, "canary_gap_nats": ranked.gap} | {
        k: statistics.median(v) if v else None for k, v in found.items()
    }


def step(bench: Bench) -> Figures:
    """Measure whole RL steps: a batch is sampled and learned from, and the sampler gets the new weights."""
    bench.sync()
    parts = {"sample_s": bench.sample, "update_s": bench.learn, "sync_s": lambda: bench.policy.ranked.sync("policy")}
    taken = [{name: seconds(call) for name, call in parts.items()} for _ in range(ROUNDS)]
    middle = sorted(taken, key=lambda spans: sum(spans.values()))[ROUNDS // 2]
    return {"step_s": sum(middle.values())} | middle


def trl(bench: Bench) -> Figures:
    """Measure TRL's GRPOTrainer on as many prompts, answers and tokens, in a process of its own."""
    python = os.environ.get("FST_TRL_PYTHON") or (sys.executable if find_spec("trl") else None)
    if python is None:
        return {"skipped": "TRL is not installed"}
    if bench.policy:
        bench.policy.ranked.sampler.sleep()
    job = {
        "model": bench.config.model,
        "prompts": [list(request.messages) for request in bench.requests],
        "generations": bench.group_size,
        "tokens": bench.tokens,
        "steps": ROUNDS + 1,
        "device": bench.config.policy.device,
        "max_model_len": bench.config.policy.distributed.max_model_len,
        "answers": TRL_ANSWERS,
    }
    environment = alone() | {"HF_HUB_OFFLINE": "1"}
    command = [python, str(Path(__file__).parents[1] / "benchmarks/trl_step.py"), json.dumps(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TRL_LIMIT, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    steps: list[Figures] = json.loads(done.stdout.strip().splitlines()[-1])[1:]
    middle = sorted(steps, key=lambda spans: spans["seconds"])[ROUNDS // 2]
    return {"step_s": middle["seconds"], "sample_and_sync_s": middle["sample"], "update_s": middle["update"]}


def goals(parts: dict[str, Figures]) -> list[Figures]:
    """Return the goals. `met` is None where a figure was not measured."""
    bare = parts.get("sampling", {}).get("ratio_to_bare_vllm")
    ours, theirs = (parts.get(part, {}).get("step_s") for part in ("step", "trl"))
    share = ours / theirs if ours and theirs else None
    return [
        {
            "figure": "tokens/s of policy.sample over bare vLLM's",
            "goal": ">= 0.9",
            "value": bare,
            "met": bare and bare >= 0.9,
        },
        {"figure": "seconds of an RL step over TRL's", "goal": "<= 0.5", "value": share, "met": share and share <= 0.5},
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the file for the figures")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="a small model, few problems and tokens")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu --small runs the same code")
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    parts: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as folder:
        asked = {
            "model": folder,
            "policy.device": arguments.device,
            "policy.max_tokens": 16 if arguments.small else 512,
        }
        config, _ = resolve("continual-4", "rl", PRESET, overrides=asked)
        bench = Bench(config, SMALL if arguments.small else FULL, 2 if arguments.small else config.batch)
        for part in (make_model, generate, load, sampling, update, sync, step, trl):
            start = time.perf_counter()
            try:
                clear()
                figures = part(bench)
            except Exception as error:
                traceback.print_exc()
                figures = {"error": f"{type(error).__name__}: {error}"[-3000:]}
            parts[part.__name__] = figures | {"part_s": time.perf_counter() - start}
            print(f"{part.__name__}: {json.dumps(parts[part.__name__])}", flush=True)
            report = {
                "command": shlex.join(["python", *sys.argv]),
                "device": device,
                "versions": {name: getattr(sys.modules.get(name), "__version__", None) for name in VERSIONED},
                "settings": {
                    "preset": PRESET,
                    "problems": bench.problems,
                    "group_size": bench.group_size,
                    "answer_tokens": bench.tokens,
                    "rounds": ROUNDS,
                    "model": bench.shape,
                    "policy": config.policy.model_dump(),
                },
                "parts": parts,
                "goals": goals(parts),
                "total_s": sum(p["part_s"] for p in parts.values()),
            }
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            fresh = arguments.out.with_suffix(".new")
            fresh.write_text(json.dumps(report, indent=1) + "\n")
            fresh.replace(arguments.out)  # at once, so that it is whole if this is killed
    return 1 if any("error" in figures for figures in parts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
