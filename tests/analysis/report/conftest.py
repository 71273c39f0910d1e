"""A run directory as the harness would write it, made up.

Curves saturate and are forgotten, and a prompt grows sentence by sentence.
"""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TASKS = ["math", "codeio", "hover", "star-graph"]
SEED_PROMPT = "Solve the problem. End with the final answer."
SENTENCES = [
    "Write every step on its own line before the answer.",
    "Put the final answer inside \\boxed{ } and write nothing after it.",
    'For code problems, answer with JSON: {"output": value}.',
    "Check each intermediate sum by doing it backwards.",
    "For claims, first list the evidence, then say SUPPORTED or NOT.",
    "For graphs, trace back from the goal to the source.",
    "Keep working short & exact.",
]
BATCH, EVERY, CYCLE = 16, 5, 5


def build_run(run_dir: Path, *, tasks: list[str] = TASKS, method: str = "fst", steps: int | None = None) -> Path:
    """Write a whole run of `method`, or its first `steps` steps.

    base neither learns nor prompts, rl has no prompts, gepa has no reward.
    """
    rng = random.Random(7)
    edges = [0]
    for stage in range(len(tasks)):
        edges.append(edges[-1] + BATCH * (20 + stage % 3))
    stages = [{"stage": i + 1, "tasks": [task], "start": edges[i], "end": edges[i + 1]} for i, task in enumerate(tasks)]
    config = {
        "stream": "continual-4",
        "stream_version": 1,
        "method": method,
        "preset": "tiny",
        "seed": 0,
        "model": "fst-tiny-qwen3-3M",
        "stages": stages,
        "seed_prompt": SEED_PROMPT,
        "config": {
            "slow": {"group_size": 8, "ratio_clip_max": 5.0},
            "fast": {"population_size": 4, "cycle": CYCLE, "max_metric_calls": 160},
            "evaluation": {"interval": EVERY * BATCH, "temperature": 1.0},
        },
    }
    env = {
        "python": "3.11.7",
        "torch": "2.13.0+cpu",
        "transformers": "5.19.0",
        "cpu": "Some CPU <rev 2>",
        "threads": "1",
        "git": "0" * 40,
    }
    write(run_dir / "config.json", config)
    write(run_dir / "env.json", env)
    total = edges[-1] // BATCH
    learns, prompts = method in ("fst", "rl"), method in ("fst", "gepa")
    best, evals, events, population = SEED_PROMPT, [], [], []
    skill = dict.fromkeys(tasks, 0.03)
    evals += point(rng, skill, 0, 0, True, stages, best, prompts)
    for step in range(1, min(steps if steps is not None else total, total) + 1):
        stage = next(s for s in stages if step * BATCH <= s["end"])
        if prompts and step % CYCLE == 1:
            best = grow(rng, best)
            members = [{"prompt": best, "score": 0.3 + 0.03 * (step % 9)}]
            members += [{"prompt": grow(rng, SEED_PROMPT), "score": 0.25 - 0.05 * k} for k in range(3)]
            where = {"step": step - 1, "problems": (step - 1) * BATCH, "stage": stage["stage"]}
            spent = {"candidates": 7, "rollouts": 165, "reflections": 12, "reflection_failures": 1}
            population.append({**where, "population": members, **spent})
        if method != "base":
            for task in tasks:
                skill[task] += (0.95 - skill[task]) * 0.16 if task in stage["tasks"] else (0.1 - skill[task]) * 0.01
        got = min(1.0, max(0.0, skill[stage["tasks"][0]] + rng.gauss(0, 0.06)))
        where = {"step": step, "stage": stage["stage"], "problems": step * BATCH}
        events.append({"kind": "step", **where, "reward": got if learns else None, "loss": -0.01, "seconds": 1.2})
        end = step * BATCH == stage["end"]
        if end or step % EVERY == 0:
            evals += point(rng, skill, step, stage["stage"], end, stages, best, prompts)
    lines(run_dir / "evals.jsonl", evals)
    lines(run_dir / "events.jsonl", events)
    if prompts:
        lines(run_dir / "prompts.jsonl", population)
    if steps is None:
        seconds = {"sample": 151.2034, "update": 64.0, "evaluate": 40.5}
        rollouts = {"train": total * 128, "valset": 1280, "feedback": 1520}
        tokens = {
            "prompt_tokens": 1234567,
            "sampled_tokens": 912345,
            "reflections": 204,
            "reflection_failures": 17,
            "optimizer_steps": total,
        }
        write(run_dir / "ledger.json", {"problems": edges[-1], "rollouts": rollouts, **tokens, "seconds": seconds})
        modes = ["system", "seed", "oracle"]
        accuracy = {mode: {str(i): dict.fromkeys(tasks, 0.5) for i in range(len(tasks) + 1)} for mode in modes}
        ends = [{**stage, "base": {"system": 0.03, "seed": 0.03}, "end": dict.fromkeys(modes, 0.7)} for stage in stages]
        average = {"system": 0.61234, "seed": 0.5, "oracle": None}
        write(
            run_dir / "metrics.json",
            {"matrix": accuracy, "stages": ends, "final_average": average, "problems_to_0.8": 672},
        )
        write(run_dir / "manifest.json", {})
    return run_dir


def point(
    rng: random.Random,
    skill: dict[str, float],
    step: int,
    stage: int,
    end: bool,
    stages: list[dict[str, Any]],
    best: str,
    prompts: bool,
) -> list[dict[str, Any]]:
    """The rows of one evaluation point: system and seed for every task, oracle where the task's stage has ended."""
    rows = []
    n = 192 if end else 64
    for task, level in skill.items():
        done = any(task in s["tasks"] and (s["stage"] < stage or (end and s["stage"] == stage)) for s in stages)
        for mode in ["system", "seed"] + (["oracle"] if done and prompts else []):
            share = {"system": 1.0, "seed": 0.7 if prompts else 1.0, "oracle": 1.1}[mode]
            right = sum(rng.random() < level * share for _ in range(n))
            kl = 0.0 if step == 0 else 0.05 * level + 0.0006 * step + rng.random() * 0.004
            rows.append(
                {
                    "step": step,
                    "stage": stage,
                    "boundary": end,
                    "task": task,
                    "prompt_mode": mode,
                    "problems": step * BATCH,
                    "fetched": step * BATCH,
                    "rollouts": step * 128,
                    "tokens": step * 128 * 40,
                    "accuracy": right / n,
                    "n_problems": n,
                    "n_samples": 1,
                    "kl": kl,
                    "kl_per_answer": kl * 40,
                    "tokens_per_answer": 40.0,
                    "context": SEED_PROMPT if mode == "seed" else best,
                }
            )
    return rows


def grow(rng: random.Random, prompt: str) -> str:
    """A prompt with one sentence added, and sometimes one taken away."""
    kept = [sentence for sentence in SENTENCES if sentence in prompt and rng.random() < 0.85]
    new = [sentence for sentence in SENTENCES if sentence not in prompt]
    return " ".join([SEED_PROMPT, *kept, *rng.sample(new, min(1 + math.floor(rng.random() * 2), len(new)))])


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), "utf-8")


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """`make_run(name, ...)` builds a run under this test's folder."""

    def make(name: str = "run", **options: Any) -> Path:
        return build_run(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whole fst run, for tests that only read it (or write its page)."""
    return build_run(tmp_path_factory.mktemp("finished") / "run")
