"""A whole run on two processes of one launcher: the harness runs once, on rank 0.

ZeRO-2, and a launcher for each process, are in test_recipe.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

RUN = "fst_bench run --stream single-math --method fst --preset smoke --backend vllm-deepspeed".split()
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
DEEPSPEED = [str(Path(sys.executable).with_name("deepspeed")), "--num_accelerators", "2", "--no_local_rank"]


def launched(launcher: list[str], arguments: list[str]) -> subprocess.CompletedProcess[str]:
    bin_first = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        [*launcher, *arguments],
        env=os.environ | bin_first | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def the_run(out: Path) -> tuple[pd.DataFrame, dict]:
    (run,) = {path.parent for path in out.rglob("manifest.json")}
    assert len(list(out.rglob("config.json"))) == 1
    return pd.read_json(run / "evals.jsonl", lines=True), json.loads((run / "ledger.json").read_text())


def test_a_run_on_two_processes(tmp_path: Path) -> None:
    done = launched(DEEPSPEED, ["--module", *RUN, "--set", "policy.distributed.zero=3", "--out", str(tmp_path)])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("report: ") == 1
    evals, ledger = the_run(tmp_path)
    assert set(evals["task"]) == {"math"} and ledger["optimizer_steps"] > 0
    first, last = evals.iloc[0], evals.iloc[-1]
    assert first["kl"] == 0 and last["kl"] > 0


def test_two_processes_hold_one_engine_together(tmp_path: Path) -> None:
    done = launched(TORCHRUN, ["-m", *RUN, "--set", "policy.distributed.tensor_parallel=2", "--out", str(tmp_path)])
    assert done.returncode == 0, done.stderr[-3000:]  # so the canary was quiet after each sync of the split weights
    evals, ledger = the_run(tmp_path)
    assert ledger["optimizer_steps"] > 0 and evals.iloc[-1]["kl"] > 0


def test_a_users_mistake_ends_all_ranks_with_one_line(tmp_path: Path) -> None:
    done = launched(TORCHRUN, ["-m", *RUN, "--set", "policy.distributed.tensor_parallel=3", "--out", str(tmp_path)])
    assert done.returncode != 0 and "tensor_parallel 3 does not divide 2 ranks" in done.stderr
    assert not list(tmp_path.rglob("config.json"))


# --- one process or several, ZeRO-2 or ZeRO-3: the learner does what the torch backend does, on the same rollouts


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
