"""Seconds of an update of the distributed learner, in one CPU process, against the torch backend's; one thread.

OMP_NUM_THREADS=1 .venv-backend/bin/python tests/benchmarks/learner_speed.py results/benchmarks/learner.json
"""

import json
import statistics
import sys
import timeit
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fst_bench.policy import PolicySettings, load_policy
from fst_bench.policy.distributed.learner import Learner, join
from fst_bench.policy.models import model_folder
from fst_bench.slow.losses import cispo

sys.path.insert(0, str(Path(__file__).parent))
from test_learning_speed import rollouts

ROUNDS = 5


def main(out: Path) -> None:
    torch.set_num_threads(1)
    join("cpu")
    samples = rollouts(16, 8, 100, (30, 60))
    advantages = [[(-1.0) ** i] * s.sampled for i, s in enumerate(samples)]
    weights = [[0.001] * s.sampled for s in samples]
    reference = load_policy("embedded:tiny", PolicySettings())
    learners: dict[str, Any] = {"torch": reference}
    for zero in (2, 3):
        settings = PolicySettings(distributed={"zero": zero})
        learners[f"zero{zero}"] = Learner(model_folder("embedded:tiny"), settings, reference.pad)
    found: dict[str, float] = {}
    for name, learner in learners.items():
        update = partial(learner.update, samples, advantages, weights, cispo)
        found[name] = statistics.median(timeit.repeat(update, number=1, repeat=1 + ROUNDS)[1:])
    found |= {f"{name}_to_torch": found[name] / found["torch"] for name in ("zero2", "zero3")}
    text = "16 problems x 8 answers of 30-60 tokens after 100"
    result = {"seconds_an_update": found, "rollouts": text, "threads": 1}
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
