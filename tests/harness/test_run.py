"""The run as a whole: reproducible, resumable after SIGKILL, evaluated outside of learning."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fst_bench
from fst_bench.harness.rows import EvaluationRow
from fst_bench.harness.store import Store

STREAM = ["--stream", "single-math", "--preset", "smoke", "--set", "stage_problems=24"]
COMMAND = [sys.executable, "-m", "fst_bench", "run", *STREAM]
COMPARED = ["metrics.json", "evals.jsonl", "answers.jsonl", "rollouts.jsonl"]


def only_run(out: Path) -> Path:
    (config,) = out.glob("*/*/*/config.json")
    return config.parent


def same(one: Path, two: Path) -> bool:
    return all((one / name).read_bytes() == (two / name).read_bytes() for name in COMPARED)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An fst run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole")
    subprocess.run([*COMMAND, "--method", "fst", "--out", str(out)], check=True, capture_output=True)
    return only_run(out)


def test_two_runs_of_one_command_agree_byte_for_byte(uninterrupted: Path, tmp_path: Path) -> None:
    command = [*COMMAND, "--method", "fst", "--out", str(tmp_path), "--json"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    summary = json.loads(result.stdout.splitlines()[-1])
    assert Path(summary["run"]) == only_run(tmp_path)
    assert same(uninterrupted, only_run(tmp_path))


@pytest.mark.parametrize("attempt", range(3))
def test_a_killed_run_ends_the_same(uninterrupted: Path, tmp_path: Path, attempt: int) -> None:
    """SIGKILL at a random moment once the run directory exists, then during the resume, then a resume to the end."""
    rng = random.Random(f"{attempt}/{time.time_ns()}")
    process = subprocess.Popen([*COMMAND, "--method", "fst", "--out", str(tmp_path)], stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob("*/*/*/env.json")):
        assert process.poll() is None, "the run died before it had begun"
        time.sleep(0.02)
    time.sleep(rng.uniform(0.0, 4.0))
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = only_run(tmp_path)
    steps = [row["step"] for row in Store(run).rows("events")]
    process = subprocess.Popen([sys.executable, "-m", "fst_bench", "resume", str(run)], stdout=subprocess.DEVNULL)
    time.sleep(rng.uniform(3.0, 8.0))
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([sys.executable, "-m", "fst_bench", "resume", str(run)], check=True, capture_output=True)
    assert same(uninterrupted, run), f"killed first after step {max(steps, default=0)}"


def test_the_evaluation_interval_changes_no_training_number(tmp_path: Path) -> None:
    texts = []
    for interval in (4, 24):
        settings = {"stage_problems": 12, "evaluation": {"interval": interval}}
        run = fst_bench.run("single-math", "rl", tmp_path, preset="smoke", **settings)
        texts.append((run.path / "rollouts.jsonl").read_text())
    assert texts[0] == texts[1] and len(texts[0].splitlines()) == 12 * 4


@pytest.mark.parametrize("method", ["base", "rl", "gepa", "fst"])
def test_a_run_of_every_method(tmp_path: Path, method: str) -> None:
    """Two stages, so that there is a past and a future task."""
    stream = tmp_path / "two.yaml"
    stages = "[{task: math, problems: 8}, {task: physics, problems: 10}]"
    stream.write_text(f"name: two\nversion: 3\ndescription: d\nstages: {stages}\n")
    settings = {"stage_problems": None, "fast.cycle": 3}
    run = fst_bench.run(stream=str(stream), method=method, preset="smoke", out=tmp_path, seed=1, **settings)
    assert run.path.parent == tmp_path / "two@3" / method
    assert set(EvaluationRow.model_fields) <= set(run.evals.columns)
    ahead = run.evals[run.evals.step < 5].fetched - run.evals[run.evals.step < 5].problems
    # a cycle of 3 batches is looked at at its start
    assert (ahead >= 0).all() and (ahead > 0).any() == (method in ("gepa", "fst"))
    points = run.evals[run.evals.boundary][["stage", "step", "problems"]].drop_duplicates().values.tolist()
    assert points == [[0, 0, 0], [1, 2, 8], [2, 5, 18]]  # batches of 4: the last one has 2 problems
    oracle = run.evals[run.evals.prompt_mode == "oracle"][["stage", "task"]].values.tolist()
    assert oracle == [[1, "math"], [2, "math"], [2, "physics"]]
    modes = set(map(tuple, run.evals[run.evals.stage == 0][["task", "prompt_mode"]].values))
    assert modes == {(t, m) for t in ("math", "physics") for m in ("system", "seed")}
    rows = run.evals[run.evals.boundary].set_index(["step", "task", "prompt_mode"])
    assert (run.evals.kl.abs() > 0).any() == (method in ("rl", "fst") and run.ledger["optimizer_steps"] > 0)
    if method in ("base", "rl"):
        assert (rows.xs("system", level=2).accuracy == rows.xs("seed", level=2).accuracy).all()
    assert run.metrics["stages"][0]["end"]["system"] == rows.loc[(2, "math", "system")].accuracy
    assert run.metrics["ledger"]["rollouts"] == run.ledger["rollouts"] and "seconds" not in run.metrics["ledger"]
    names = {p.name for p in run.path.iterdir()}
    assert {"config.json", "env.json", "events.jsonl", "report.html", "checkpoints"} <= names
    assert {"metrics.json", "ledger.json", "manifest.json"} <= names
    assert Store(run.path).broken() == []
    assert fst_bench.resume(run.path).path == run.path  # finished: returned as it is


def test_a_run_directory_holds_no_host_and_no_key(uninterrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import getpass
    import platform

    files = [p for p in uninterrupted.rglob("*") if p.is_file() and p.suffix in (".json", ".jsonl", ".html")]
    texts = [p.read_text(errors="replace") for p in files]
    assert not [t for t in texts if platform.node() and f'"{platform.node()}"' in t]
    assert not [t for t in texts if f"/{getpass.getuser()}/" in t or str(uninterrupted) in t]
