"""The run as a whole: reproducible, resumable after SIGKILL, evaluated outside of learning."""

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fst_bench
from fst_bench.analysis.probes.opened import Opened
from fst_bench.cli.validate import run as validate_run
from fst_bench.core.errors import Unwritable
from fst_bench.core.types import SampleRequest
from fst_bench.harness import loop
from fst_bench.harness.config import resolve
from fst_bench.harness.evaluate import answers, evaluation_schedule
from fst_bench.harness.loop import Callback, recorded, refuse_other_weights
from fst_bench.harness.planning.cost import estimate
from fst_bench.harness.rows import EvaluationRow, StepRow
from fst_bench.harness.run import Run
from fst_bench.harness.store import Store
from fst_bench.method.lab import conversation
from fst_bench.method.ledger import Ledger
from fst_bench.policy import load_policy
from fst_bench.policy.models import model_folder
from fst_bench.tasks.stream import Stream

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
    assert set(EvaluationRow.model_fields) - {"levels"} <= set(run.evals.columns)
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


def test_greedy_answers_stand_beside_the_sampled_ones(tmp_path: Path) -> None:
    """Those of the likeliest tokens; nothing else of the run changes, and its answers are scored again to the same."""
    settings = {"stage_problems": 8, "evaluation.samples": 2, "evaluation.small_modes": ["system"]}
    modes = ["system", "seed", "oracle"]
    usual, greedy = (
        fst_bench.run(
            stream="single-math",
            method="fst",
            preset="smoke",
            out=tmp_path / str(len(chosen)),
            seed=1,
            **settings,
            **{"evaluation.boundary_modes": chosen},
        )
        for chosen in (modes, [*modes, "greedy"])
    )
    measured = greedy.evals.prompt_mode == "greedy"
    assert list(greedy.evals[measured].step) == [0, 2] and set(greedy.evals[measured].n_samples) == {1}
    assert greedy.evals[~measured].reset_index(drop=True).equals(usual.evals)
    # the base's, by the model itself under the seed prompt
    changed = settings | {"evaluation.boundary_modes": [*modes, "greedy"]}
    config, spec = resolve("single-math", "fst", "smoke", 1, changed)
    policy, stream = load_policy(config.model, config.policy), Stream(spec, 1, config.difficulty, config.stage_problems)
    problems = stream.held_out()["math"].problems("test", 0, config.evaluation.boundary)
    requests = [SampleRequest(conversation(config.seed_prompt, p.prompt), 0) for p in problems]
    texts = [group[0].text for group in policy.sample(requests, temperature=0.0)]
    rows = [json.loads(line) for line in (greedy.path / "answers.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows if row["step"] == 0 and row["prompt_modes"] == ["greedy"]] == texts
    assert not [complaint for _, complaint in validate_run(str(greedy.path)) if complaint]
    expected = answers(evaluation_schedule(stream, config.batch, config.evaluation), config.evaluation, evolves=True)
    assert sum(expected.values()) >= len(rows) and estimate(config, spec)["evaluation_rollouts"] >= len(rows)


def test_a_run_directory_holds_no_host_and_no_key(uninterrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import getpass
    import platform

    files = [p for p in uninterrupted.rglob("*") if p.is_file() and p.suffix in (".json", ".jsonl", ".html")]
    texts = [p.read_text(errors="replace") for p in files]
    assert not [t for t in texts if platform.node() and f'"{platform.node()}"' in t]
    assert not [t for t in texts if f"/{getpass.getuser()}/" in t or str(uninterrupted) in t]


class Disturbed(Callback):
    """Does something after the second step."""

    def __init__(self, what: Callable[[], None]):
        self.what = what

    def on_step(self, row: StepRow, ledger: Ledger) -> None:
        if row.step == 2:
            self.what()


def killed() -> None:
    raise KeyboardInterrupt


def test_a_checkpoint_that_cannot_be_written_ends_the_run_in_one_line(tmp_path: Path) -> None:
    """The limit on a file's size is a disk that takes no more, without one's own disk."""
    settings: dict[str, Any] = {"preset": "smoke", "stage_problems": 16, "checkpoint": {"every": 1}}
    whole = loop.run("single-math", "rl", tmp_path / "whole", **settings)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = Disturbed(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard)))
    try:
        with pytest.raises(Unwritable) as raised:
            loop.run("single-math", "rl", tmp_path / "full", callback=full, **settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    run = only_run(tmp_path / "full")
    assert str(raised.value) == (
        f"step 2: cannot write {run}/checkpoints/step-000002: File too large; "
        f"no step before its last checkpoint is lost: fst-bench resume {run}"
    )
    assert sorted(folder.name for folder in (run / "checkpoints").iterdir()) == ["step-000000", "step-000001"]
    assert same(loop.resume(run).path, whole.path)


def test_relative_folders_are_found_from_anywhere_and_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        shutil.copytree(model_folder("embedded:tiny"), folder / "base")
    (here / "data").mkdir()
    rows = [{"problem": f"What is {i} + 1?", "answer": str(i + 1), "difficulty": "4/8"} for i in range(400)]
    (here / "data" / "polaris.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    weights = there / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    settings: dict[str, Any] = {"preset": "smoke", "stage_problems": 16, "model": "base", "data": "data"}
    monkeypatch.chdir(here)
    with pytest.raises(KeyboardInterrupt):
        loop.run("single-math", "base", "runs", callback=Disturbed(killed), **settings)
    run = only_run(here / "runs")
    saved = json.loads((run / "config.json").read_text())
    assert saved["model"] == saved["config"]["model"] == str(here / "base")
    assert saved["config"]["data"] == str(here / "data")
    monkeypatch.chdir(there)
    shutil.copytree(run, there / "run")
    assert loop.resume(run).finished
    shutil.copy(weights, here / "base" / "model.safetensors")
    for go_on in (lambda: loop.resume(there / "run"), lambda: Opened(run)):
        with pytest.raises(ValueError, match=f"begun on another model: {here}/base now has another weights$"):
            go_on()
    with (here / "data" / "polaris.jsonl").open("a") as f:
        f.write(json.dumps(rows[0] | {"problem": "What is 0 + 0?", "answer": "0"}) + "\n")
    with pytest.raises(ValueError, match="begun on other data"):
        loop.resume(there / "run")


def test_the_checkpoint_that_a_run_starts_from_is_known_by_content(tmp_path: Path) -> None:
    first = loop.run("single-math", "base", tmp_path, preset="smoke", stage_problems=8)
    init = Store(first.path).checkpoints()[-1]
    second = loop.run("single-math", "base", tmp_path, preset="smoke", stage_problems=8, init=str(init))
    refuse_other_weights(Store(second.path), second_config := recorded(Store(second.path))[0])
    assert second_config.init == str(init)
    (init / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"begun from other weights than those that \S+ now holds"):
        refuse_other_weights(Store(second.path), second_config)


def test_a_run_of_an_older_fst_bench_has_no_fingerprint_and_is_resumed(uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    saved = json.loads((run / "config.json").read_text())
    assert set(saved.pop("fingerprint")["model"]) == {"weights", "tokenizer", "config"}
    (run / "config.json").write_text(json.dumps(saved))
    (run / "manifest.json").unlink()
    assert same(loop.resume(run).path, uninterrupted) and Run(Store(run)).fingerprint.model == {}
