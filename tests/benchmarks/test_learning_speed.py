"""Speed and memory on one thread: answers that share their prompt, log-probabilities without all logits.

And sampling from a Llama by our decoder, against transformers' cache.

make benchmark
"""

import subprocess
import sys
import timeit
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from fst_bench.core.types import Sample, SampleRequest
from fst_bench.policy import PolicySettings, load_policy, packaged
from fst_bench.policy.torch import sampler
from fst_bench.policy.torch.backend import TorchPolicy
from fst_bench.policy.torch.decoders import TransformersDecoder
from fst_bench.slow.losses import cispo

MEMORY = Path(__file__).parents[1] / "policy" / "logprob_memory.py"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rollouts(problems: int, group: int, prompt: int, answers: tuple[int, int]) -> list[Sample]:
    """Return samples of random tokens; `answers` are the lengths of the shortest and the longest, evenly spread."""
    generator = torch.Generator().manual_seed(0)

    def tokens(n: int) -> list[int]:
        return torch.randint(20, 1000, (n,), generator=generator).tolist()

    shortest, longest = answers
    found = []
    for _ in range(problems):
        shared = tokens(prompt)
        for k in range(group):
            n = shortest + k * (longest - shortest) // (group - 1)
            found.append(Sample(shared + tokens(n), [False] * prompt + [True] * n, [-5.0] * n, "", True))
    return found


def model_of(name: str, folder: Path) -> TorchPolicy:
    if name == "embedded:tiny":
        return load_policy(name, PolicySettings())
    load_policy("embedded:tiny", PolicySettings()).tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    # random weights change no operation
    shape = AutoConfig.for_model(**packaged.find("smollm2-135m").config)
    AutoModelForCausalLM.from_config(shape).save_pretrained(folder)
    return load_policy(str(folder), PolicySettings(learning_rate=1e-6))


@pytest.mark.parametrize(
    ("name", "work"),
    [("embedded:tiny", (16, 8, 100, (30, 60))), ("llama 135M", (2, 8, 115, (12, 24)))],
)
def test_an_update_whose_answers_share_their_prompt(
    benchmark: Any, tmp_path: Path, name: str, work: tuple[int, int, int, tuple[int, int]]
) -> None:
    policy, samples = model_of(name, tmp_path), rollouts(*work)
    advantages = [[(-1.0) ** i] * s.sampled for i, s in enumerate(samples)]
    update = partial(policy.update, samples, advantages, [[0.001] * s.sampled for s in samples], cispo)
    policy.scorer.shared = False
    separate = min(timeit.repeat(update, number=1, repeat=2))
    policy.scorer.shared = True
    benchmark.pedantic(update, rounds=3, warmup_rounds=1)
    benchmark.extra_info |= {"separate_seconds": separate, "ratio": separate / benchmark.stats.stats.min}


def test_sampling_from_a_llama(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = model_of("llama 135M", tmp_path)
    policy.end = set()
    shared = "Worked example: the sum of 17 and 25 is 42. " * 10
    requests = [
        SampleRequest(({"role": "user", "content": f"{shared}Problem {i}"},), i, 8, max_tokens=24) for i in range(8)
    ]
    groups = benchmark.pedantic(policy.sample, args=(requests,), rounds=3, warmup_rounds=1)
    monkeypatch.setattr(sampler, "new_decoder", lambda model, capacity: TransformersDecoder(model))
    theirs = min(timeit.repeat(lambda: policy.sample(requests), number=1, repeat=2))
    tokens = sum(s.sampled for group in groups for s in group)
    ours = benchmark.stats.stats.min
    benchmark.extra_info |= {
        "prompt_tokens": groups[0][0].mask.index(True),
        "tokens_per_second": tokens / ours,
        "transformers_tokens_per_second": tokens / theirs,
        "ratio": theirs / ours,
    }


@pytest.mark.parametrize("how", ["chunked", "whole"])
def test_memory_of_log_probabilities(benchmark: Any, how: str) -> None:
    def peak() -> float:
        command = [sys.executable, str(MEMORY), "8192", how]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    gb = benchmark.pedantic(peak, rounds=1)
    benchmark.extra_info |= {"peak_gb": gb, "tokens": 8192, "vocabulary": 151_936}
