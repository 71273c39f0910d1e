"""Measures what a stream's tasks are to a preset's base model: python results/levels.py small-3 results/small-3

The base answers 384 held-out problems of each task, once: under the preset's seed prompt, under the prompt that the
preset has for rl-prompted, and under the task's own examples in the folder's examples.yaml. Writes levels.csv there.
"""

import csv
import sys
from pathlib import Path

import yaml

from fst_bench.core.seeds import seed_for
from fst_bench.core.types import SampleRequest
from fst_bench.harness.config import resolve
from fst_bench.method.lab import conversation
from fst_bench.metrics.intervals import wilson
from fst_bench.policy import load_policy
from fst_bench.tasks import load_task

N, SEED, PRESET = 384, 0, "smollm2-135m"
stream, folder = sys.argv[1], Path(sys.argv[2])
config, spec = resolve(stream, "base", PRESET, overrides={"threads": 1})
prompted, _ = resolve(stream, "rl-prompted", PRESET)
examples = yaml.safe_load((folder / "examples.yaml").read_text())
policy = load_policy(config.model, config.policy)
with (folder / "levels.csv").open("w", newline="") as out:
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["task", "context", "n", "distinct", "accuracy", "low", "high", "unparseable"])
    for stage in spec.stages:
        name = stage.task
        assert name is not None, "a stage of one task"
        task = load_task(name, **config.difficulty.get(name, {}) | stage.difficulty)
        problems = task.problems("test", SEED, N)
        contexts = {"seed prompt": config.seed_prompt, "own examples": examples[name]}
        if "seed_prompt" not in spec.settings:  # the preset's prompts are of the stream's tasks
            contexts["rl-prompted"] = prompted.settings["prompt"]
        for context, text in contexts.items():
            requests = [
                SampleRequest(conversation(text, p.prompt), seed_for("levels", SEED, p.id, context)) for p in problems
            ]
            groups = policy.sample(requests, temperature=config.evaluation.temperature)
            scores = [task.verify(p, sample.text) for p, (sample,) in zip(problems, groups, strict=True)]
            accuracy = sum(score.reward for score in scores) / N
            low, high = wilson(accuracy, N)
            silent = sum(score.status == "unparseable" for score in scores) / N
            row = [name, context, N, len({p.id for p in problems})]
            table.writerow([*row, *(f"{x:.3f}" for x in (accuracy, low, high, silent))])
            out.flush()
