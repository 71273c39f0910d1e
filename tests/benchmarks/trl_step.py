"""One job for the benchmark's TRL environment: seconds of GRPOTrainer's steps, as one line of JSON on stdout.

    .venv-trl/bin/python tests/benchmarks/trl_step.py \
        '{"model": ..., "prompts": [...], "generations": 8, "tokens": 60, "steps": 4}'

With "device": "cuda", and then "max_model_len" (the longest prompt with its answer) and "answers" (in one pass), it
samples by vLLM in its own process. It imports nothing of fst-bench: TRL is installed in its own environment and is not
a dependency.
"""

import json
import sys
import time
import zlib
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

job = json.loads(sys.argv[1])
cuda = job.get("device") == "cuda"
if not cuda:
    torch.set_num_threads(1)
generating, steps = [0.0], list[dict[str, float]]()


class Timed(GRPOTrainer):
    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return super()._generate(*args, **kwargs)
        finally:
            generating[0] += time.perf_counter() - start


class Clock(TrainerCallback):
    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        generating[0], self.start = 0.0, time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self.start
        steps.append({"seconds": seconds, "sample": generating[0], "update": seconds - generating[0]})


def reward(completions: Any, **kwargs: Any) -> list[float]:
    return [float(zlib.crc32(c[0]["content"].encode()) % 2) for c in completions]


batch = len(job["prompts"]) * job["generations"]
answers = job["answers"] if cuda else batch
own: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "generation_kwargs": {"min_new_tokens": job["tokens"]},
    "gradient_checkpointing": False,
}
if cuda:
    own = {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_max_model_length": job["max_model_len"],
        "generation_kwargs": {"ignore_eos": True},
        "bf16": True,
        "gradient_checkpointing": True,
        "gradient_accumulation_steps": batch // answers,
    }
settings = GRPOConfig(
    output_dir="/tmp/fst-bench-trl",
    report_to="none",
    save_strategy="no",
    logging_strategy="no",
    disable_tqdm=True,
    per_device_train_batch_size=answers,
    num_generations=job["generations"],
    max_completion_length=job["tokens"],
    max_steps=job["steps"],
    loss_type="cispo",
    beta=0.0,
    learning_rate=1e-5,
    seed=0,
    **own,
)
trainer = Timed(
    model=job["model"],
    reward_funcs=reward,
    args=settings,
    train_dataset=Dataset.from_dict({"prompt": job["prompts"]}),
    callbacks=[Clock()],
)
trainer.train()
print(json.dumps(steps))
