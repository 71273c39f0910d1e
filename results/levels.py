"""Measures what the tasks of small-3 and small-gym are to the base of their preset: python results/levels.py

The base answers 384 held-out problems of each task, once: under the seed prompt, under the prompt that the preset has
for rl-prompted where that is of the stream's tasks, and under the task's own examples in levels.yaml. The rows go to
levels.csv; those that it has stay.
"""

import csv
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
HEAD = ["stream", "task", "context", "n", "distinct", "accuracy", "low", "high", "unparseable"]
FILE = Path(__file__).with_suffix(".csv")

examples = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
if not FILE.exists():
    FILE.write_text(",".join(HEAD) + "\n")
measured = {tuple(row[:3]) for row in csv.reader(FILE.read_text().splitlines())}
for stream, own in examples.items():
    config, spec = resolve(stream, "base", PRESET, overrides={"threads": 1})
    policy = load_policy(config.model, config.policy)
    for stage in spec.stages:
        name = stage.task
        assert name is not None, "a stage of one task"
        task = load_task(name, **config.difficulty.get(name, {}) | stage.difficulty)
        problems = task.problems("test", SEED, N)
        contexts = {"seed prompt": config.seed_prompt, "own examples": own[name]}
        if "seed_prompt" not in spec.settings:  # the preset's prompts are of the stream's tasks
            contexts["rl-prompted"] = resolve(stream, "rl-prompted", PRESET)[0].settings["prompt"]
        for context, text in contexts.items():
            if (stream, name, context) in measured:
                continue
            requests = [
                SampleRequest(conversation(text, p.prompt), seed_for("levels", SEED, p.id, context)) for p in problems
            ]
            groups = policy.sample(requests, temperature=config.evaluation.temperature)
            scores = [task.verify(p, sample.text) for p, (sample,) in zip(problems, groups, strict=True)]
            accuracy = sum(score.reward for score in scores) / N
            low, high = wilson(accuracy, N)
            silent = sum(score.status == "unparseable" for score in scores) / N
            distinct = len({problem.id for problem in problems})
            with FILE.open("a", newline="") as out:
                numbers = [f"{x:.3f}" for x in (accuracy, low, high, silent)]
                csv.writer(out, lineterminator="\n").writerow([stream, name, context, N, distinct, *numbers])
