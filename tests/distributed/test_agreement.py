"""One process or several, ZeRO-2 or ZeRO-3: the learner does what the torch backend does, on the same rollouts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("ranks", "zero", "activations"),
    [(1, 2, "kept"), (1, 3, "kept"), (2, 2, "kept"), (2, 3, "kept"), (1, 2, "recomputed"), (2, 3, "recomputed")],
)
def test_the_learners_agree(tmp_path: Path, ranks: int, zero: int, activations: str) -> None:
    script, out = Path(__file__).with_name("agree.py"), tmp_path / "found.json"
    launch = [sys.executable, "-m", "torch.distributed.run"]
    launch += ["--nproc_per_node", str(ranks), "--master_port", str(29600 + 2 * ranks + zero)]
    done = subprocess.run(
        [*launch, str(script), str(zero), activations, str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    print(json.dumps(found))
    assert (found["ranks"], found["zero"]) == (ranks, zero)
    assert found["loss"] < 1e-5 and found["gradient"] < 1e-4 and found["gradient_norm"] < 1e-4
    assert found["logprobs"] < 5e-5 and found["kl"] < 1e-3 and found["effective_sample_size"] < 1e-6
    # Adam's first step is the sign of the gradient: a rounding may turn one that is nearly zero
    assert found["weights"] < 2e-4
    assert found["resumed_bit_for_bit"] and found["started_from"] < 5e-5
    stopped_by = [line.split(" is not finite")[0] for line in found["stopped"]]
    assert found["untouched"] and stopped_by == ["the loss", "the gradient's norm"]
