"""Sweeps: skipped when done, resumed when killed, one failure stops nothing. Real runs of the smoke preset."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fst_bench.analysis import load
from fst_bench.cli import main
from fst_bench.cli.program import parser
from fst_bench.cli.runs import settings_of
from fst_bench.harness.config import parse_setting, resolve
from fst_bench.harness.store import Store
from fst_bench.harness.sweep import State, SweepCallback, parse_seeds, plan, sweep

SMOKE = ["sweep", "--stream", "single-math", "--preset", "smoke"]
SMALL = {"stage_problems": 8, "threads": 1}


class States(SweepCallback):
    """The states of a sweep's runs, in the order of the calls."""

    def __init__(self) -> None:
        self.states: list[State] = []

    def on_state(self, path: Path, state: State, why: str | None = None) -> None:
        self.states.append(state)


def test_seeds() -> None:
    assert parse_seeds("0-4") == [0, 1, 2, 3, 4]
    assert parse_seeds("7, 100-101") == [7, 100, 101]
    for text in ("", "a", "3-1", "1-", "0-2,2"):
        with pytest.raises(ValueError, match="--seeds"):
            parse_seeds(text)


def test_a_sweep_continues_where_it_stopped(tmp_path: Path) -> None:
    observer = States()
    first = sweep("single-math", ["base", "rl"], [0, 1], tmp_path, "smoke", SMALL, 2, observer)
    assert list(first.values()) == [None] * 4 and sorted(observer.states) == ["done"] * 4 + ["run"] * 4
    paths = list(first)
    numbers = [(path / "metrics.json").read_text() for path in paths]
    before = [(path / "manifest.json").stat().st_mtime_ns for path in paths]

    shutil.rmtree(paths[0])  # one was lost, one was killed before its end
    (paths[1] / "manifest.json").unlink()
    observer = States()
    again = sweep("single-math", ["base", "rl"], [0, 1], tmp_path, "smoke", SMALL, 2, observer)
    assert list(again.values()) == [None] * 4
    assert sorted(observer.states) == ["done", "done", "resume", "run", "there", "there"]
    assert [(path / "metrics.json").read_text() for path in paths] == numbers
    assert [(path / "manifest.json").stat().st_mtime_ns for path in paths[2:]] == before[2:]


def test_two_sweeps_at_the_same_moment_share_their_runs(tmp_path: Path) -> None:
    observers, results = [States(), States()], []

    def one(observer: States) -> None:
        settings = SMALL | {"checkpoint.every": 1}
        results.append(sweep("single-math", ["rl"], [0], tmp_path, "smoke", settings, 1, observer))

    threads = [threading.Thread(target=one, args=(observer,)) for observer in observers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (path,) = tmp_path.glob("*/*/*")
    assert results == [{path: None}] * 2
    assert sorted(observer.states[-1] for observer in observers) == ["done", "there"]
    (run,) = load([path])
    assert run.steps.step.tolist() == [1, 2]


def test_a_run_that_is_in_use_is_refused_and_a_sweep_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fst_bench.harness.launch.job.LOOK", 0.05)
    command = ["run", "--stream", "single-math", "--method", "base", "--preset", "smoke", "--out", str(tmp_path)]
    command += ["--set", "stage_problems=8", "--set", "threads=1"]
    assert main(command) == 0
    (path,) = tmp_path.glob("*/*/*")
    capsys.readouterr()
    assert main([*command, "--once"]) == 4
    assert capsys.readouterr().err == f"fst-bench: {path} exists already: fst-bench resume {path}\n"
    (path / "manifest.json").unlink()
    observer = States()
    waiting = threading.Thread(target=sweep, args=("single-math", ["base"], [0], tmp_path, "smoke", SMALL, 1, observer))
    with Store(path).held():
        waiting.start()
        assert main(["resume", str(path)]) == 4
        assert f"{path} is in use by process {os.getpid()} on " in capsys.readouterr().err
        assert main(command) == 0  # a run of its own, with a number
        assert {folder.name for folder in path.parent.iterdir()} == {path.name, f"{path.name}-2"}
        while observer.states != ["in use"]:
            time.sleep(0.01)
        Store(path).seal()  # the other process ends
    waiting.join()
    assert observer.states == ["in use", "there"]


def test_a_killed_sweep_gives_the_same_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*SMOKE, "--methods", "rl,fst", "--seeds", "0", "--jobs", "2"]
    command += ["--set", "stage_problems=16", "--set", "threads=1", "--out"]

    def tables(out: Path) -> list[str]:
        capsys.readouterr()
        assert main(["compare", str(out), "--format", "csv"]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if '"seconds"' not in line]

    assert main([*command, str(tmp_path / "whole")]) == 0
    sweeping = subprocess.Popen(
        [sys.executable, "-m", "fst_bench", *command, str(tmp_path / "killed")],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    while not list((tmp_path / "killed").glob("*/rl/*/evals.jsonl")):
        assert sweeping.poll() is None
        time.sleep(0.02)
    os.killpg(sweeping.pid, signal.SIGKILL)
    assert sweeping.wait() == -signal.SIGKILL
    assert len(list((tmp_path / "killed").rglob("manifest.json"))) < 2
    assert main([*command, str(tmp_path / "killed")]) == 0
    assert tables(tmp_path / "killed") == tables(tmp_path / "whole")


def test_one_failure_stops_nothing_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*SMOKE, "--methods", "base", "--seeds", "0-1", "--out", str(tmp_path), "--json"]
    arguments += ["--set", "stage_problems=8"]
    assert main(arguments) == 0
    broken = next(tmp_path.glob("single-math@*/base/smoke-s0-*"))
    (broken / "manifest.json").unlink()
    (broken / "config.json").write_text("{}")
    capsys.readouterr()
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert f"FAILED {broken}" in out and "1 of 2 runs are finished" in out
    assert list(json.loads(out.splitlines()[-1])["failed"]) == [str(broken)]


def test_a_setting_for_one_method_of_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*SMOKE, "--methods", "base,rl-replay", "--seeds", "0", "--out", str(tmp_path)]
    command += ["--set", "stage_problems=8", "--set"]
    assert main([*command, "methods.rl-replay.settings.share=0.5"]) == 0
    found = {run.method: run.saved["config"] for run in load([tmp_path])}
    assert found["rl-replay"]["settings"] == {"share": 0.5, "memory": 256} and found["base"]["settings"] == {}
    capsys.readouterr()
    for wrong, complaint in (
        ("rl-reply.settings.share", "did you mean rl-replay? There are base, rl-replay"),
        ("rl-replay.settings.shore", "did you mean share"),
    ):
        assert main([*command, f"methods.{wrong}=0.5"]) == 2 and complaint in capsys.readouterr().err


@settings(max_examples=30)
@given(
    st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["a: b # c", "! x", "@y", "null", "'", "\n"])
)
def test_any_text_reaches_the_runs_of_a_sweep(text: str) -> None:
    """From a user's --set, or from Python, through the command that a sweep starts, to the same configuration."""
    values: list[dict[str, Any]] = [dict([parse_setting(f"seed_prompt={text}")]), {"seed_prompt": text}]
    values[1] |= {"policy.stop": [text or " "], "methods.rl.model": "007", "init": None}
    for own in values:
        try:
            planned, (config,) = plan("single-math", ["rl"], [0], Path("out"), "smoke", own)
        except ValueError as error:
            assert "\0" in text and "cannot be the text" in str(error)  # no argument of a command holds it
            continue
        args = parser().parse_args(next(iter(planned.values())).command)
        assert resolve(args.stream, args.method, args.preset, args.seed, settings_of(args))[0] == config
        assert config.seed_prompt == text


def test_a_text_that_means_none_cannot_be_handed_on() -> None:
    with pytest.raises(ValueError, match="init cannot be the text 'null' in a sweep"):
        plan("single-math", ["rl"], [0], Path("out"), "smoke", {"init": "null"})


def test_wrong_settings_are_an_error_before_the_first_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean fst"):
        sweep("single-math", ["base", "fts"], [0], tmp_path, "smoke", SMALL)
    assert not list(tmp_path.iterdir())


class Children:
    """A stand-in for `subprocess.run`: runs that take no time, of which those with an odd seed fail.

    `together` of them meet, or it is an error.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, together: int) -> None:
        self.meeting = threading.Barrier(together, timeout=20)
        self.running: list[str] = []
        self.environments: list[dict[str, str]] = []
        self.shared: set[str] = set()
        monkeypatch.setattr("fst_bench.harness.launch.job.subprocess.run", self.run)

    def run(self, command: list[str], env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        gpu = env["CUDA_VISIBLE_DEVICES"]
        self.running.append(gpu)
        self.environments.append(env)
        self.meeting.wait()
        if self.running.count(gpu) > 1:
            self.shared.add(gpu)
        self.running.remove(gpu)
        return subprocess.CompletedProcess(command, int(command[command.index("--seed") + 1]) % 2, "", "went wrong")

    def gpus(self) -> list[str]:
        return sorted(env["CUDA_VISIBLE_DEVICES"] for env in self.environments)


@pytest.mark.parametrize(
    ("visible", "jobs", "used"),
    [(" GPU-a, 3,", None, ["3", "GPU-a"]), ("GPU-a,3", 1, ["GPU-a"]), (None, None, ["0", "1"])],
    ids=["named", "fewer jobs", "counted by torch"],
)
def test_each_run_has_a_gpu_of_its_own(
    visible: str | None, jobs: int | None, used: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    children = Children(monkeypatch, len(used))
    done = sweep("single-math", ["base", "rl"], [0, 1, 2], tmp_path, "smoke", SMALL | {"policy.device": "cuda"}, jobs)
    assert list(done.values()) == [None, None, "went wrong", "went wrong", None, None]
    assert len(children.gpus()) == 6 and sorted(set(children.gpus())) == used and not children.shared
    assert all(env["OMP_NUM_THREADS"] == "1" for env in children.environments)


def test_runs_on_the_cpu_share_its_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,3")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    children = Children(monkeypatch, 3)
    done = sweep("single-math", ["base"], range(6), tmp_path, "smoke", SMALL | {"threads": 2})
    assert list(done.values()) == [None, "went wrong"] * 3
    expected = os.environ | {"OMP_NUM_THREADS": "2"}
    assert all(env == expected for env in children.environments)  # not compared as lists: a failure would print keys


def test_too_few_gpus_are_an_error_before_the_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*SMOKE, "--methods", "base,rl", "--seeds", "0-3", "--out", str(tmp_path)]
    children = Children(monkeypatch, 1)
    everywhere = "policy.device=cuda"
    for visible, setting, jobs, complaint in (
        ("GPU-a,3", everywhere, "3", "--jobs can be at most 2 here, one for each GPU, got 3"),
        ("", everywhere, "1", "policy.device is cuda, and torch sees no GPU here"),
        ("-1", everywhere, "1", "policy.device is cuda, and torch sees no GPU here"),
        (
            "GPU-a,3",
            "methods.rl.policy.device=cuda",
            "1",
            "policy.device is cpu for some runs of this sweep and cuda for others",
        ),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert main([*command, "--set", setting, "--jobs", jobs]) == 2
        output = capsys.readouterr()
        assert complaint in output.err and output.err.count("\n") == 1 and not output.out
    assert not children.gpus() and not list(tmp_path.iterdir())
