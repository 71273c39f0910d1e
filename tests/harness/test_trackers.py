"""Trackers: each shows what the run recorded, by its own reader; and a run never depends on one."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import textwrap
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from sqlalchemy import URL
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

import fst_bench
from fst_bench.cli import main
from fst_bench.harness import trackers as of_runs
from fst_bench.harness.loop import Callback
from fst_bench.harness.rows import EvaluationRow
from fst_bench.harness.store import Store
from fst_bench.harness.trackers import Tracked, flat, load, title, within

ALL = ["--track", "tensorboard,wandb,mlflow"]
SMOKE = ["--stream", "single-math", "--preset", "smoke", "--set", "threads=1"]
FST = ["run", *SMOKE, "--method", "fst", "--set", "stage_problems=8"]
COMPARED = ["config.json", "metrics.json", "evals.jsonl", "answers.jsonl", "rollouts.jsonl", "prompts.jsonl"]

Points = dict[str, list[tuple[int, Any]]]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One out folder, and so one MLflow store, for all runs of this file."""
    return tmp_path_factory.mktemp("tracked")


@pytest.fixture(scope="module")
def tracked(out: Path) -> Path:
    """A finished fst run with all three."""
    assert main([*FST, *ALL, "--out", str(out)]) == 0
    (run,) = out.glob("*/fst/smoke-s0-*")
    return run


def runs_of(out: Path, method: str) -> list[Path]:
    return sorted(path.parent for path in out.glob(f"*/{method}/*/config.json"))


def recorded(run: Path) -> tuple[Points, list[tuple[int, str]]]:
    """Return the points and best prompts that the run's own files hold; one point a tag and x."""
    store, points = Store(run), defaultdict[str, list[tuple[int, Any]]](list)
    for row in store.rows("evals"):
        for key in ("accuracy", "kl"):
            points[f"eval/{row['task']}/{row['prompt_mode']}/{key}"].append((row["problems"], row[key]))
    rollouts, x_of = store.rows("rollouts"), {}
    for row in store.rows("events"):
        x = x_of[row["step"]] = row["problems"]
        for key in sorted(row.keys() - {"kind", "step", "problems"}):
            if row[key] is not None:
                points[f"train/{key}"].append((x, row[key]))
        spent = [r["tokens"] for r in rollouts if r["step"] < row["step"]]
        points["spent/rollouts"].append((x, len(spent)))
        points["spent/sampled_tokens"].append((x, sum(spent)))
    return dict(points), [(x_of[row["step"] + 1], row["population"][0]["prompt"]) for row in store.rows("prompts")]


def singles(points: Points) -> Points:
    return {tag: [(x, np.float32(y)) for x, y in line] for tag, line in points.items()}


def in_tensorboard(run: Path) -> tuple[Points, list[tuple[int, str]]]:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    if "prompt/text_summary" not in events.Tags()["tensors"]:
        return scalars, []
    texts = [
        (e.step, textwrap.dedent(e.tensor_proto.string_val[0].decode())) for e in events.Tensors("prompt/text_summary")
    ]
    return scalars, texts


def in_wandb(run: Path) -> tuple[Points, list[tuple[int, str]]]:
    """Read the one offline file, a LevelDB log of its messages: blocks of 32 KiB, records cut at their ends."""
    (file,) = (run / "wandb").glob("offline-run-*/run-*.wandb")
    data, at, whole = file.read_bytes(), 7, b""
    points = defaultdict[str, list[tuple[int, Any]]](list)
    while at < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole one, or the last part of one
            record, whole = Record.FromString(whole), b""
            for item in record.history.item:
                if not item.nested_key[0].startswith("_"):
                    points[item.nested_key[0]].append((record.history.step.num, json.loads(item.value_json)))
    prompts = points.pop("prompt", [])
    return dict(points), prompts


def store_of(out: Path) -> MlflowClient:
    return MlflowClient(URL.create("sqlite", database=str(out / "mlflow.db")).render_as_string())


def mlflow_runs(out: Path) -> list[Run]:
    client = store_of(out)
    return list(client.search_runs([client.get_experiment_by_name("fst-bench").experiment_id]))


def in_mlflow(run: Path) -> tuple[Points, list[tuple[int, str]]]:
    client = store_of(run.parents[2])
    found = mlflow_run(run)
    points = {
        key: [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, key)]
        for key in found.data.metrics
    }
    files = sorted(Path(unquote(found.info.artifact_uri.removeprefix("file://"))).glob("prompt/*.txt"))
    return points, [(int(file.stem), file.read_text()) for file in files]


def mlflow_run(run: Path) -> Run:
    (found,) = [r for r in mlflow_runs(run.parents[2]) if r.info.run_name == title(run)]
    return found


def test_each_shows_what_the_run_recorded(tracked: Path) -> None:
    points, prompts = recorded(tracked)
    assert len(points["train/loss"]) == 2 and [x for x, _ in points["eval/math/system/kl"]] == [0, 8] and prompts
    assert in_wandb(tracked) == (points, prompts)
    assert in_mlflow(tracked) == (points, prompts)
    assert in_tensorboard(tracked) == (singles(points), prompts)
    run = mlflow_run(tracked)
    settings = json.loads((tracked / "config.json").read_text())["config"]
    assert (
        run.data.params == {key: str(value) for key, value in flat(settings)}
        and run.data.params["slow.group_size"] == "4"
    )
    assert run.info.status == "FINISHED"


def test_the_run_is_the_same_without_and_stays_valid(
    tracked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FST, "--out", str(tmp_path)]) == 0
    (plain,) = runs_of(tmp_path, "fst")
    assert plain.relative_to(tmp_path) == tracked.relative_to(tracked.parents[2])
    assert [name for name in COMPARED if (plain / name).read_bytes() != (tracked / name).read_bytes()] == []
    assert sorted(p.name for p in tracked.iterdir() if not (plain / p.name).exists()) == [
        "tensorboard",
        "trackers.json",
        "wandb",
    ]
    assert main(["validate", "run", str(tracked)]) == 0
    copy = Path(shutil.copytree(tracked, tmp_path / "copy", symlinks=True))
    shutil.rmtree(copy / "wandb")  # trackers' files are theirs: they may go
    next((copy / "tensorboard").iterdir()).write_bytes(b"")
    assert main(["validate", "run", str(copy)]) == 0
    (copy / "trackers.json").write_text("{}")
    assert main(["validate", "run", str(copy)]) == 1


def test_a_killed_and_resumed_run_is_one_curve(out: Path) -> None:
    """Killed between checkpoints: steps are done twice, and all that the kill cut off is there."""
    settings = ["--set", "stage_problems=32", "--set", "checkpoint.every=4"]
    arguments = [*SMOKE, "--method", "fst", "--seed", "1", *settings, *ALL, "--out", str(out)]
    command = [sys.executable, "-m", "fst_bench", "run", *arguments]
    # without the service of this process, where the killed run would live on
    shell = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"}
    process = subprocess.Popen(command, env=shell, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not [path for path in out.glob("*/fst/smoke-s1-*") if len(Store(path).rows("events")) >= 2]:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (run,) = out.glob("*/fst/smoke-s1-*")
    assert in_mlflow(run)[0]["train/reward"]
    assert main(["resume", str(run), *ALL]) == 0
    points, prompts = recorded(run)
    assert len(points["train/reward"]) == 8 and len(prompts) == 4
    assert in_wandb(run) == (points, prompts)
    assert in_tensorboard(run) == (singles(points), prompts)
    shown, texts = in_mlflow(run)
    # of a step done twice it holds the first time's seconds
    assert [x for x, _ in shown.pop("train/seconds")] == [x for x, _ in points.pop("train/seconds")]
    assert (shown, texts) == (points, prompts) and mlflow_run(run).info.status == "FINISHED"


class Breaks(Callback):
    """A callback that drops a table of MLflow's store once the run has begun, and keeps notes."""

    def __init__(self, database: Path):
        self.database, self.notes = database, list[str]()

    def on_evaluation(self, rows: Sequence[EvaluationRow]) -> None:
        with sqlite3.connect(self.database) as connection:
            connection.execute("DROP TABLE IF EXISTS metrics")

    def on_note(self, text: str) -> None:
        self.notes.append(text)


def test_a_tracker_that_breaks_is_reported_once_and_the_run_continues(tracked: Path, tmp_path: Path) -> None:
    shutil.copyfile(tracked.parents[2] / "mlflow.db", tmp_path / "mlflow.db")
    callback = Breaks(tmp_path / "mlflow.db")
    trackers = Tracked(load(["mlflow", "tensorboard"]), callback)
    settings = {"stage_problems": 8, "threads": 1}
    run = fst_bench.run("single-math", "fst", tmp_path, preset="smoke", callback=trackers, **settings)
    (note,) = callback.notes
    assert note.startswith("tracker mlflow failed and is dropped, the run continues: ")
    assert "no such table: metrics" in note
    assert [name for name in COMPARED if (run.path / name).read_bytes() != (tracked / name).read_bytes()] == []
    assert len(in_tensorboard(run.path)[0]["train/loss"]) == 2


def test_a_tracker_that_cannot_begin(tracked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "single-math@1" / "fst" / tracked.name
    shutil.copytree(tracked, run, symlinks=True)
    (run / "manifest.json").unlink()
    shutil.rmtree(run / "tensorboard")
    (run / "tensorboard").write_text("in the way")
    assert main(["resume", str(run), "--track", "tensorboard"]) == 0
    assert capsys.readouterr().out.count("tracker tensorboard failed and is dropped") == 1
    assert (run / "metrics.json").read_bytes() == (tracked / "metrics.json").read_bytes() and (
        run / "manifest.json"
    ).exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_server_that_does_not_answer_is_given_up(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(of_runs, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:  # it listens, and says nothing
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        for key, value in {
            "MLFLOW_TRACKING_URI": url,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # that the thread which is left behind ends soon
            "WANDB_MODE": "online",
            "WANDB_BASE_URL": url,
            "WANDB_API_KEY": "5ec4e7" * 6 + "abcd",
            "WANDB_INIT_TIMEOUT": "1",
        }.items():
            monkeypatch.setenv(key, value)
        smoke = ["--method", "base", "--set", "stage_problems=4", "--out", str(tmp_path)]
        assert main(["run", *SMOKE, *smoke, "--track", name]) == 0
    dropped = f"tracker {name} failed and is dropped, the run continues: no answer within 0.5 seconds\n"
    assert capsys.readouterr().out.count(dropped) == 1
    (run,) = runs_of(tmp_path, "base")
    assert Store(run).finished


def test_a_call_that_never_returns_is_left_behind() -> None:
    began = time.perf_counter()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.1 seconds"):
        within(0.1, Event().wait)
    assert time.perf_counter() - began < 10
    with pytest.raises(KeyError, match="gone"):
        within(60.0, lambda: {}["gone"])
    done = list[int]()
    within(60.0, lambda: done.append(1))
    assert done == [1]


def test_a_damaged_store_is_given_up_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be looked at " * 40)
    began = time.perf_counter()
    smoke = ["--method", "base", "--set", "stage_problems=4", "--out", str(tmp_path), "--track", "mlflow"]
    assert main(["run", *SMOKE, *smoke]) == 0 and time.perf_counter() - began < 90  # MLflow itself tries for 102
    assert "tracker mlflow failed and is dropped, the run continues: file is not a database" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a?b=c&mode=ro", "a%20b#50%zz é"])
def test_the_out_folder_may_have_any_name(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    assert main(["run", *SMOKE, "--method", "base", "--set", "stage_problems=4", *ALL, "--out", str(out)]) == 0
    (run,) = runs_of(out, "base")
    points, _ = recorded(run)
    assert in_mlflow(run)[0] == points == in_wandb(run)[0] and in_tensorboard(run)[0] == singles(points)
    # MLflow itself makes an empty folder by the quoted name
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {p for p in out.rglob("*") if p.is_file()}
    assert (out / "mlflow.db").is_file()


def test_nothing_leaves_the_machine_and_no_key_is_written(out: Path) -> None:
    """Every proxy setting and W&B's server point to a port that listens: nobody calls."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url, key = f"http://127.0.0.1:{server.getsockname()[1]}", "5ec4e7" * 6 + "abcd"
        environment = {
            k: v for k, v in os.environ.items() if k != "CI" and not k.startswith(("PYTEST", "WANDB", "MLFLOW"))
        }
        environment |= {
            name: url
            for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WANDB_BASE_URL")
        }
        environment |= {"WANDB_API_KEY": key, "NO_PROXY": "", "no_proxy": ""}
        arguments = [*SMOKE, "--method", "base", "--set", "stage_problems=4", *ALL, "--out", str(out)]
        command = [sys.executable, "-m", "fst_bench", "run", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert "dropped" not in done.stdout + done.stderr
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    (run,) = runs_of(out, "base")
    assert in_wandb(run)[0] == in_mlflow(run)[0] == recorded(run)[0]
    assert [path for path in out.rglob("*") if path.is_file() and key.encode() in path.read_bytes()] == []


def test_a_sweep_tracks_its_runs_in_one_store(tmp_path: Path) -> None:
    command = ["sweep", *SMOKE, "--methods", "base", "--seeds", "0-1", "--set", "stage_problems=4", "--jobs", "2"]
    command += ["--out", str(tmp_path)]
    assert main([*command, "--track", "mlflow"]) == 0
    runs = mlflow_runs(tmp_path)
    assert sorted(r.info.run_name for r in runs) == sorted(map(title, runs_of(tmp_path, "base"))) and len(runs) == 2
    assert [r.info.status for r in runs] == ["FINISHED"] * 2
    for path in runs_of(tmp_path, "base"):
        assert in_mlflow(path)[0] == recorded(path)[0]


def test_bad_names_and_missing_packages_come_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = ["sweep", *SMOKE, "--methods", "base", "--seeds", "0"]
    for command in ([*FST], sweep):
        assert main([*command, "--out", str(tmp_path), "--track", "wandb,mlfow"]) == 2
        assert (
            "unknown tracker 'mlfow': did you mean mlflow? There are mlflow, tensorboard, wandb"
            in capsys.readouterr().err
        )
    monkeypatch.setitem(sys.modules, "wandb", None)  # as Python marks what cannot be imported
    for command in ([*FST], sweep):
        assert main([*command, "--out", str(tmp_path), "--track", "wandb"]) == 2
        assert capsys.readouterr().err == "fst-bench: tracker wandb requires wandb: pip install 'fst-bench[track]'\n"
    assert not list(tmp_path.iterdir())
