"""Evaluating in a process of its own gives the records of evaluating inline, whichever process is killed when."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from fst_bench.core.errors import RunError
from fst_bench.harness import loop
from fst_bench.harness.loop import Callback
from fst_bench.harness.rows import StepRow
from fst_bench.harness.run import Run
from fst_bench.harness.store import PENDING
from fst_bench.method.ledger import Ledger

RUN: dict[str, Any] = {"stream": "continual-4", "method": "fst", "preset": "smoke", "stage_problems": 8}


def records(run: Run) -> dict[str, list[dict[str, Any]]]:
    """All that a run recorded, but for what the clock says."""
    found = {name: run.source.rows(name) for name in ("events", "rollouts", "evals", "answers", "prompts")}
    return {name: [{k: v for k, v in row.items() if k != "seconds"} for row in rows] for name, rows in found.items()}


def made(run: Run) -> tuple[Any, ...]:
    weights = run.path / "checkpoints" / f"step-{len(run.steps):06d}" / "weights.safetensors"
    ledger = {key: value for key, value in run.ledger.items() if key != "seconds"}
    return records(run), run.metrics, ledger, weights.read_bytes()


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return loop.run(out=tmp_path_factory.mktemp("inline"), **RUN)


def evaluators() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "fst_bench.harness.evaluator" in " ".join(p.cmdline())]


def test_its_records_are_those_of_evaluating_inline(inline: Run, tmp_path: Path) -> None:
    run = loop.run(out=tmp_path, evaluator="process", **RUN)
    assert made(run) == made(inline)
    assert run.ledger["seconds"]["evaluate"] > 0
    assert not (run.path / PENDING).exists() and not evaluators()


def test_an_evaluator_that_is_killed_loses_nothing(inline: Run, tmp_path: Path) -> None:
    killed = []

    class Kill(Callback):
        def on_step(self, row: StepRow, ledger: Ledger) -> None:
            if row.step in (2, 5):
                for process in evaluators():
                    process.kill()
                    killed.append(row.step)

    assert made(loop.run(out=tmp_path, evaluator="process", callback=Kill(), **RUN)) == made(inline)
    assert killed


@pytest.mark.parametrize("after", [1, 4, 6])
def test_a_run_that_is_killed_evaluates_what_was_open(inline: Run, tmp_path: Path, after: int) -> None:
    settings = [f"--set={key}={value}" for key, value in RUN.items() if key == "stage_problems"]
    command = ["run", "--stream", RUN["stream"], "--method", RUN["method"], "--preset", RUN["preset"], *settings]
    command += ["--set=evaluator=process", "--out", str(tmp_path)]
    running = subprocess.Popen(
        [sys.executable, "-m", "fst_bench", *command], stdout=subprocess.DEVNULL, start_new_session=True
    )
    end = time.monotonic() + 120
    while not any(sum(1 for _ in path.open()) >= after for path in tmp_path.rglob("events.jsonl")):
        assert running.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)  # the loop and its evaluator
    running.wait()
    (config,) = tmp_path.rglob("config.json")
    assert json.loads(config.read_text())["config"]["evaluator"] == "process"
    assert made(loop.resume(config.parent)) == made(inline)


def test_a_method_that_breaks_its_contract_there_ends_the_run_in_the_same_words(tmp_path: Path) -> None:
    (tmp_path / "drifting.py").write_text(
        "from fst_bench.method import Method\n\n\nclass Drifting(Method):\n    name = 'drifting'\n    asked = 0\n\n"
        "    def step(self, batch):\n        return {}\n\n    def context_for(self, prompt):\n        self.asked += 1\n"
        "        return ''\n"
    )
    words = []
    for evaluator in ("inline", "process"):
        settings = RUN | {"method": str(tmp_path / "drifting.py"), "evaluator": evaluator}
        with pytest.raises(RunError) as raised:
            loop.run(out=tmp_path / evaluator, **settings)
        words.append(str(raised.value))
    assert words[1] == f"the evaluator failed: {words[0]}" and "changed itself in context_for" in words[0]


def test_it_needs_the_torch_backend_on_a_cpu(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="evaluator: process requires backend torch on a CPU"):
        loop.run(out=tmp_path, evaluator="process", policy={"device": "cuda"}, **RUN)
