"""Speed on one thread: the sampler against transformers' `generate`, a whole RL step against TRL's GRPOTrainer.

    make benchmark

Both sides answer the same 16 problems with 8 rollouts of exactly 60 tokens (no end token counts), from the same
weights. The last measurement is in results/benchmarks/.
"""

import json
import os
import statistics
import subprocess
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from fst_bench.core.types import ProblemHandle, Rollout, Sample, SampleRequest, Score
from fst_bench.embedded.card import FORMAT, STRATEGY
from fst_bench.harness.config import load_preset
from fst_bench.method.lab import conversation
from fst_bench.method.settings import SlowSettings
from fst_bench.policy import PolicySettings, load_policy
from fst_bench.policy.models import model_folder
from fst_bench.policy.torch.backend import TorchPolicy
from fst_bench.slow import learn
from fst_bench.tasks import load_task
from fst_bench.tasks.sandbox import Sandbox, sandbox_kind

PROBLEMS, GENERATIONS, TOKENS = 16, 8, 60
TRL = Path(__file__).parents[2] / ".venv-trl/bin/python"


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def policy() -> TorchPolicy:
    policy = load_policy("embedded:tiny", PolicySettings(max_tokens=TOKENS))
    policy.end = set()
    return policy


def conversations(n: int) -> list[Any]:
    task = load_task("codeio", **load_preset("tiny")["difficulty"]["codeio"])
    context = f"You are a helpful assistant. Solve the problem. {FORMAT['codeio']} {STRATEGY['codeio']}"
    return [conversation(context, p.prompt) for p in task.problems("train", 0, n)]


def sample(policy: TorchPolicy, prompts: int, each: int) -> list[list[Sample]]:
    return policy.sample([SampleRequest(c, i, each) for i, c in enumerate(conversations(prompts))])


@pytest.mark.parametrize(("prompts", "each"), [(PROBLEMS, GENERATIONS), (PROBLEMS * GENERATIONS, 1)])
def test_sampling_against_generate(benchmark: Any, policy: TorchPolicy, prompts: int, each: int) -> None:
    texts = policy.tokenizer.apply_chat_template(
        [list(c) for c in conversations(prompts)], tokenize=False, add_generation_prompt=True
    )
    policy.tokenizer.padding_side = "left"
    encoded = policy.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    settings = GenerationConfig(
        do_sample=True, top_k=0, num_return_sequences=each, max_new_tokens=TOKENS, min_new_tokens=TOKENS, pad_token_id=0
    )

    def generate() -> float:
        start = time.perf_counter()
        with torch.no_grad():
            policy.model.generate(**encoded, generation_config=settings)
        return time.perf_counter() - start

    theirs = sorted(generate() for _ in range(3))[1]
    groups = benchmark.pedantic(sample, args=(policy, prompts, each), rounds=3, warmup_rounds=1)
    total = sum(s.sampled for group in groups for s in group)
    ours = benchmark.stats.stats.median
    benchmark.extra_info |= {
        "tokens_per_second": total / ours,
        "generate_tokens_per_second": total / theirs,
        "ratio": theirs / ours,
    }


def step(policy: TorchPolicy) -> dict[str, float]:
    """Take one RL step without a run around it, and return its seconds; the reward is a hash, as on TRL's side."""
    start = time.perf_counter()
    handles = [ProblemHandle(i, c[-1]["content"]) for i, c in enumerate(conversations(PROBLEMS))]
    groups = [
        [Rollout(h, "", (), s, Score(zlib.crc32(s.text.encode()) % 2, "", "ok"), policy.version) for s in group]
        for h, group in zip(handles, sample(policy, PROBLEMS, GENERATIONS), strict=True)
    ]
    sampled = time.perf_counter() - start
    learn(Direct(policy), groups, SlowSettings(group_size=GENERATIONS, num_minibatches=1))
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "sample": sampled, "update": seconds - sampled}


class Direct:
    """The part of the lab that `learn` uses, without a ledger."""

    def __init__(self, policy: TorchPolicy):
        self.policy = policy

    def update(
        self, rollouts: list[Rollout], advantages: list[list[float]], weights: list[list[float]], loss: Any
    ) -> dict[str, float]:
        return self.policy.update([r.sample for r in rollouts], advantages, weights, loss)


@pytest.mark.skipif(not TRL.exists(), reason="make benchmark builds .venv-trl")
def test_a_whole_rl_step_against_trl(benchmark: Any, policy: TorchPolicy) -> None:
    job = {
        "model": model_folder("embedded:tiny"),
        "prompts": [list(c) for c in conversations(PROBLEMS)],
        "generations": GENERATIONS,
        "tokens": TOKENS,
    }
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [str(TRL), str(Path(__file__).with_name("trl_step.py")), json.dumps(job | {"steps": 5})]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    theirs = sorted(json.loads(done.stdout.strip().splitlines()[-1])[1:], key=lambda s: s["seconds"])[2]
    parts: list[dict[str, float]] = []
    benchmark.pedantic(lambda: parts.append(step(policy)), rounds=5, warmup_rounds=1)
    ours = sorted(parts[1:], key=lambda s: s["seconds"])[2]
    benchmark.extra_info |= {"ours": ours, "trl": theirs, "ratio": {part: theirs[part] / ours[part] for part in ours}}


# --- answers of reference code verified per second: a fresh process for each, in the way this machine holds them

ANSWERS = 200
CODE = """
import re, math
from collections import Counter

def main_solution(words, limit):
    counts = Counter(w.lower() for w in words if re.fullmatch(r"[A-Za-z]+", w))
    return {"top": sorted(counts.items(), key=lambda c: (-c[1], c[0]))[:limit], "root": math.sqrt(sum(counts.values()))}
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_answers_per_second(benchmark: Any, workers: int) -> None:
    box = Sandbox(workers=workers)
    calls = [
        (CODE, "main_solution", {"words": ["the", "The", "cat", "x1", str(i)] * 20, "limit": 2}) for i in range(ANSWERS)
    ]
    outcomes = benchmark.pedantic(box.map, args=(calls,), rounds=5, warmup_rounds=1)
    assert {o.status for o in outcomes} == {"ok"}
    benchmark.extra_info |= {
        "answers_per_second": ANSWERS / statistics.median(benchmark.stats.stats.data),
        "sandbox": sandbox_kind(),
    }
