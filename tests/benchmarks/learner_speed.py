"""An update of the distributed learner, alone on one CPU process, against the torch backend's on the same rollouts; one thread.

OMP_NUM_THREADS=1 .venv-backend/bin/python tests/benchmarks/learner_speed.py results/benchmarks/learner.json
"""

import json
import statistics
import sys
import timeit
from pathlib import Path
from typing import Any

import torch

from fst_bench.policy.models import model_folder
from fst_bench.policy import PolicySettings, load_policy
from fst_bench.policy.distributed.learner import Learner, join
from fst_bench.slow.losses import cispo

sys.path.insert(0, str(Path(__file__).parent))
from test_learning_speed import rollouts

ROUNDS = 5


def main(out: Path) -> None:
    torch.set_num_threads(1)
    join("cpu")
    samples = rollouts(16, 8, 100, (30, 60))
    rows = (
        samples,
        [[(-1.0) ** i] * s.sampled for i, s in enumerate(samples)],
        [[0.001] * s.sampled for s in samples],
        cispo,
    )
    reference = load_policy("embedded:tiny", PolicySettings())
    learners: dict[str, Any] = {"torch": reference}
    for zero in (2, 3):
        learners[f"zero{zero}"] = Learner(
            model_folder("embedded:tiny"), PolicySettings(distributed={"zero": zero}), reference.pad
        )
    seconds = {
        name: timeit.repeat(lambda: learner.update(*rows), number=1, repeat=1 + ROUNDS)[1:]
        for name, learner in learners.items()
    }  # noqa: B023
    found: dict[str, Any] = {name: statistics.median(times) for name, times in seconds.items()}
    found |= {f"{name}_to_torch": found[name] / found["torch"] for name in ("zero2", "zero3")}
    out.write_text(
        json.dumps(
            {"seconds_an_update": found, "rollouts": "16 problems x 8 answers of 30-60 tokens after 100", "threads": 1},
            indent=1,
        )
        + "\n"
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
