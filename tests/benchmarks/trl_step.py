"""One job for the benchmark's TRL environment: seconds of GRPOTrainer's steps, as one line of JSON on stdout.

    .venv-trl/bin/python tests/benchmarks/trl_step.py '{"model": ..., "prompts": [...], "generations": 8, "tokens": 60, "steps": 4}'

It imports nothing of fst-bench: TRL lives in an environment of its own and is no dependency.
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
        seconds = time.perf_counter() - self.start
        steps.append({"seconds": seconds, "sample": generating[0], "update": seconds - generating[0]})


def reward(completions: Any, **kwargs: Any) -> list[float]:
    return [float(zlib.crc32(c[0]["content"].encode()) % 2) for c in completions]


rows = len(job["prompts"]) * job["generations"]
settings = GRPOConfig(
    output_dir="/tmp/fst-bench-trl", use_cpu=True, bf16=False, report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
    per_device_train_batch_size=rows, num_generations=job["generations"], max_completion_length=job["tokens"], max_steps=job["steps"],
    generation_kwargs={"min_new_tokens": job["tokens"]}, loss_type="cispo", beta=0.0, learning_rate=1e-5, gradient_checkpointing=False, seed=0,
)  # fmt: skip
trainer = Timed(
    model=job["model"], reward_funcs=reward, args=settings, train_dataset=Dataset.from_dict({"prompt": job["prompts"]}), callbacks=[Clock()]
)
trainer.train()
print(json.dumps(steps))
