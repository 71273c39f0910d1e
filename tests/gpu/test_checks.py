"""The GPU suite. On a GPU each check proves something; on a CPU the same code runs: no mistake waits for a GPU."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checks import CHECKS
from run import ORDER, alone, run


def test_every_check_is_in_the_order() -> None:
    assert sorted(ORDER) == sorted(CHECKS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("name", ORDER)
def test_on_a_gpu(name: str) -> None:
    result = run(name, "cuda")
    print(name, json.dumps(result.figures))
    assert result.passed, result.error


ELSEWHERE = {"agreement-zero2", "agreement-zero3", "run-torch", "sync-float32"}
"""Checks whose code tests/distributed or another check runs on a CPU."""


@pytest.mark.parametrize("name", [name for name in ORDER if name not in ELSEWHERE])
def test_its_code_on_a_cpu(name: str) -> None:
    result = run(name, "cpu")
    print(name, json.dumps(result.figures))
    assert result.passed, result.error


def test_the_docs_list_every_check() -> None:
    page = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text()
    assert [name for name in ORDER if f"`{name}`" not in page] == []


# --- `make benchmark-gpu`, from end to end on a CPU: that every part works, not how fast it is

SCRIPT = Path(__file__).with_name("benchmark.py")
OF_A_GPU = {
    "gpu_in_use_gib",
    "peak_teraflops",
    "share_of_peak_flops",
    "memory",
    "sleep_s",
    "sleep_gives_back_gib",
    "wake_s",
}
"""Figures that mean nothing on a CPU."""
MAY_BE_ZERO = {"canary_gap_nats", "mean_logprob_gap_nats"}


def test_every_part_reports_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    environment = {name: value for name, value in alone().items() if name != "FST_TRL_PYTHON"}
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--device", "cpu", "--small"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    parts = report["parts"]
    assert list(parts) == ["make_model", "generate", "load", "sampling", "update", "sync", "step", "trl"]
    for part, found in parts.items():
        for name, value in found.items():
            if name in OF_A_GPU:
                assert value is None, (part, name)
            elif name not in {"fit_gib", "skipped"}:
                assert math.isfinite(value) and (value > 0 or name in MAY_BE_ZERO), (part, name, value)
    assert parts["update"]["fit_gib"]["weights"] > 0 and parts["update"]["tokens"] > 2 * 8 * 16
    assert all(report["versions"].values()) and report["device"] == "cpu" and report["settings"]["answer_tokens"] == 16
    assert [goal["met"] in (True, False) for goal in report["goals"]] == [True, "skipped" not in parts["trl"]]
