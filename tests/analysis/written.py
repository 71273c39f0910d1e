"""Runs written by hand in the harness's own format, with known curves: sigmoids, and noise as of 64 problems."""

import json
import math
import random
from pathlib import Path
from typing import Any

SHAPES = {  # method -> (asymptote, problems at half the rise), rollouts a problem, KL at the asymptote
    "base": (0.05, 100.0, 0, 0.0),
    "gepa": (0.40, 100.0, 2, 0.0),
    "rl": (0.80, 400.0, 8, 0.15),
    "fst": (0.85, 150.0, 10, 0.05),
    "mine": (0.60, 300.0, 8, 0.10),
}
EVALUATION = {"interval": 40, "small": 64, "boundary": 192}


def write_run(
    out: Path,
    method: str,
    seed: int,
    *,
    tasks: tuple[str, ...] = ("math",),
    length: int = 960,
    every: int = 40,
    noise: float = 0.02,
    change: dict[str, Any] | None = None,
    probes: bool = False,
    fetch: int = 1,
    shape: str | None = None,
    name: str = "several",
    floor: float = 0.05,
) -> Path:
    """Write a finished run on a stream of `tasks`.

    `change` replaces settings, `shape` is the method whose curve it has, `fetch` how many problems it looks ahead,
    `floor` the accuracy before learning.
    """
    rng = random.Random(f"{method}{seed}")
    name = f"single-{tasks[0]}" if len(tasks) == 1 else name
    path = out / f"{name}@1" / method / f"tiny-s{seed}-000000"
    path.mkdir(parents=True)
    jitter = 0 if len(tasks) == 1 else 16 * (seed % 3)
    stages = [
        {"stage": i + 1, "tasks": [t], "start": i * (length + jitter), "end": (i + 1) * (length + jitter)}
        for i, t in enumerate(tasks)
    ]
    settings = {
        "method": method,
        "preset": "tiny",
        "seed": seed,
        "stream": name,
        "threads": 1,
        "batch": 8,
        "stage_problems": None,
        "seed_prompt": "Solve.",
        "init": None,
    }
    settings |= {"difficulty": {}, "evaluation": EVALUATION, "slow": {"ratio_clip_max": 5.0}} | (change or {})
    config = {
        "stream": name,
        "stream_version": 1,
        "method": method,
        "preset": "tiny",
        "seed": seed,
        "model": "m",
        "stages": stages,
    }
    top, half, rollouts, kl = SHAPES[shape or method]
    rows, total = [], stages[-1]["end"]
    for seen in sorted({*range(0, total + 1, every), *(s["end"] for s in stages)}):
        ended = [s for s in stages if s["end"] == seen]
        number = ended[0]["stage"] if ended else 0 if seen == 0 else next(s["stage"] for s in stages if seen < s["end"])
        for stage in stages:
            into = max(0, min(seen, stage["end"]) - stage["start"])
            level = floor + (top - floor) * (into**2 / (into**2 + half**2) if into else 0.0)
            for mode in ("system", "seed"):
                accuracy = min(
                    1.0, max(0.0, level * (1.0 if mode == "system" else 0.8) + (rng.gauss(0, noise) if noise else 0.0))
                )
                rows.append(
                    {
                        "step": seen // 8,
                        "stage": number,
                        "boundary": bool(ended) or seen == 0,
                        "task": stage["tasks"][0],
                        "prompt_mode": mode,
                        "problems": seen,
                        "fetched": min(total, math.ceil(seen / fetch) * fetch),
                        "rollouts": rollouts * seen,
                        "tokens": 30 * rollouts * seen,
                        "accuracy": accuracy,
                        "kl": kl * accuracy,
                        "kl_per_answer": 30 * kl * accuracy,
                        "tokens_per_answer": 30.0,
                        "n_problems": 192 if ended or not seen else 64,
                        "n_samples": 1,
                        "context": "Solve.",
                    }
                )
    cells = {(r["stage"], r["task"], r["prompt_mode"]): r for r in rows if r["boundary"]}
    ends = []
    for number, task in enumerate(tasks, 1):
        own = {mode: cells[number, task, mode] for mode in ("system", "seed")}
        ends.append(
            {
                "stage": number,
                "tasks": [task],
                "online": 0.5 * own["system"]["accuracy"],
                "end": {mode: row["accuracy"] for mode, row in own.items()},
                "kl": {"system": own["system"]["kl"]},
            }
        )
    final = {m: sum(cells[len(stages), t, m]["accuracy"] for t in tasks) / len(tasks) for m in ("system", "seed")}
    several = {"anytime": 0.5, "bwt": -0.1, "forgetting": 0.1, "fwt": 0.0}
    alone = {"anytime": 0.5, "bwt": None, "forgetting": None, "fwt": None}
    transfer = {"system": several if len(tasks) > 1 else alone}
    metrics = {"stages": ends, "final_average": final, "transfer": transfer}
    ledger = {
        "rollouts": {"train": rollouts * total},
        "sampled_tokens": 30 * rollouts * total,
        "seconds": {"sample": 2.0, "update": 1.0},
    }
    for file, value in (
        ("config", config | {"config": settings}),
        ("metrics", metrics),
        ("ledger", ledger),
        ("manifest", {}),
    ):
        (path / f"{file}.json").write_text(json.dumps(value))
    lines(path / "evals.jsonl", rows)
    if rollouts >= 8:
        step = {"kind": "step", "stage": 1, "seconds": 1.0}
        trained = [
            step | {"step": i, "problems": 8 * i, "reward": min(1.0, 0.1 + i / 100), "gradient_norm": 1 / i}
            for i in range(1, total // 8 + 1)
        ]
        lines(path / "events.jsonl", trained)
    if probes:
        write_probes(path, rng, len(stages), tasks, top)
    return path


def write_probes(path: Path, rng: random.Random, stages: int, tasks: tuple[str, ...], top: float) -> None:
    folder = path / "probes"
    folder.mkdir()
    level = {("base", "seed"): 0.05, ("base", "evolved"): 0.4, ("trained", "seed"): 0.2, ("trained", "evolved"): top}
    channels = [
        {"key": {"stage": i + 1, "task": t, "weights": w, "prompt": p, "n": 192}, "accuracy": a + rng.gauss(0, 0.02)}
        for i, t in enumerate(tasks)
        for (w, p), a in level.items()
    ]
    plasticity = [
        {
            "key": {"task": "hover", "stage": i, "problems": 400},
            "start": 0.05,
            "final": 0.7 - 0.4 * i * (1 - top),
            "area": 0.4,
        }
        for i in range(stages + 1)
    ]
    ood = [
        {
            "key": {"task": t, "difficulty": {}, "weights": w, "n": 192},
            "accuracy": 0.3 + (0.1 * top if w == "trained" else 0) + rng.gauss(0, 0.01),
        }
        for t in ("physics", "star-graph")
        for w in ("base", "trained")
    ]
    forgetting = [
        {
            "key": {"task": t, "weights": w, "n": None},
            "metric": "acc",
            "documents": 50,
            "scores": [(0.9 if w == "base" else top - 0.1) + rng.gauss(0, 0.05) for _ in range(50)],
        }
        for t in ("fst_copy", "fst_add")
        for w in ("base", "trained")
    ]
    rows = {"channels": channels, "plasticity": plasticity, "ood": ood, "forgetting": forgetting}
    for name, own in rows.items():
        lines(folder / f"{name}.jsonl", own)


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
