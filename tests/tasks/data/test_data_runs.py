"""Runs on real data: the CLI from end to end, what a run records, a resume, and one line for whatever is wrong."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tables import codeio, hover, physics, polaris

import fst_bench
from fst_bench.analysis import load as load_runs
from fst_bench.analysis.probes import probe
from fst_bench.cli import main
from fst_bench.cli.catalogue import show
from fst_bench.harness.config import resolve
from fst_bench.tasks.data import tasks_in

TWO = "name: two\nversion: 1\ndescription: d\nstages: [{task: hover, problems: 8}, {task: physics, problems: 8}]\n"
COMPARED = ["metrics.json", "evals.jsonl", "answers.jsonl", "rollouts.jsonl"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    for stem, made in (
        ("polaris", polaris(200)),
        ("hover", hover(300)),
        ("codeio", codeio(80)),
        ("physics", physics(150)),
    ):
        lines = [json.dumps(row) for row in made] + ['{"torn']
        (folder / f"{stem}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def two(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished rl run of two tasks."""
    out = tmp_path_factory.mktemp("two")
    (out / "two.yaml").write_text(TWO)
    return fst_bench.run(
        stream=str(out / "two.yaml"),
        method="rl",
        preset="smoke",
        out=out,
        data=str(rows),
        stage_problems=8,
        checkpoint={"every": 1},
    ).path


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and err.startswith("fst-bench: ") and out.count("\n") <= 1
    return err


@pytest.mark.parametrize("method", ["base", "rl"])
def test_a_run_of_a_whole_stream_on_rows(
    rows: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"run --stream continual-4 --method {method} --preset smoke --set stage_problems=8 --data {rows}".split()
    assert main([*command, "--out", str(tmp_path), "--json"]) == 0
    out = capsys.readouterr().out
    assert "math from polaris.jsonl: 200 problems, 1 skipped" in out
    run = Path(json.loads(out.splitlines()[-1])["run"])
    config = json.loads((run / "config.json").read_text())
    assert config["config"]["data"] == str(rows)
    assert set(config["data"]) == {"math", "codeio", "hover"}  # star-graph and hover-search are procedural everywhere
    assert config["data"]["math"] == {
        "source": "polaris.jsonl",
        "fingerprint": config["data"]["math"]["fingerprint"],
        "kept": 200,
        "skipped": {"a line that is not JSON": 1},
    }
    # the preset's other difficulties are of procedural problems
    assert set(config["config"]["difficulty"]) == {"star-graph", "hover-search"}
    if method == "rl":
        trained = {json.loads(line)["problem"] for line in (run / "answers.jsonl").read_text().splitlines()}
        assert {problem.rpartition("-")[0] for problem in trained} == {"math", "codeio", "hover", "star-graph"}
    assert main(["validate", "run", str(run)]) == 0
    assert show("run", str(run))


def test_a_killed_run_ends_the_same(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(TWO)
    stream, settings = str(tmp_path / "two.yaml"), {"stage_problems": 12, "checkpoint.every": 1}
    whole = fst_bench.run(
        stream=stream, method="fst", preset="smoke", out=tmp_path / "whole", data=str(rows), **settings
    ).path
    command = f"{sys.executable} -m fst_bench run --stream {stream} --preset smoke --method fst --data {rows}".split()
    command += ["--out", str(tmp_path / "killed")]
    command += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob("killed/*/*/*/checkpoints/step-000001/COMPLETE.json")):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    time.sleep(random.uniform(0.0, 0.3))
    process.send_signal(signal.SIGKILL)
    process.wait()
    (killed,) = (path.parent for path in tmp_path.glob("killed/*/*/*/config.json"))
    fst_bench.resume(killed)
    assert all((killed / name).read_bytes() == (whole / name).read_bytes() for name in COMPARED)


def test_a_resume_on_other_rows_is_refused(
    two: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(two, tmp_path / "run")
    (run / "manifest.json").unlink()  # as if it had been killed at the very end
    data = shutil.copytree(rows, tmp_path / "rows")
    config = json.loads((run / "config.json").read_text())
    config["config"]["data"] = str(data)
    (run / "config.json").write_text(json.dumps(config))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    hover_file = data / "hover.jsonl"
    whole = hover_file.read_text()

    hover_file.write_text(whole.replace('"label": 1', '"label": 0', 1))
    assert "the run was begun on other data: hover.jsonl gave 300 problems of hover" in complaint(
        ["resume", str(run)], capsys
    )
    # the same rows in another order, and no torn line
    hover_file.write_text("\n".join(reversed(whole.splitlines()[:-1])))
    (data / "codeio.jsonl").unlink()  # not a task of this stream
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert main(["resume", str(run)]) == 0
    assert all((run / name).read_bytes() == (two / name).read_bytes() for name in COMPARED)
    capsys.readouterr()
    (data / "physics.jsonl").unlink()
    assert "no physics.jsonl" in complaint(["probe", "drift", str(run)], capsys)
    shutil.rmtree(data)
    assert "is not a folder" in complaint(["probe", "drift", str(run)], capsys)


def test_probes_of_a_run_on_rows(two: Path) -> None:
    assert len(probe("channels", two, n=4)) == 2 * 2 * 2
    cases = {(row["key"]["task"], json.dumps(row["key"]["difficulty"])) for row in probe("ood", two, n=4)}
    assert {("math", "{}"), ("codeio", "{}"), ("hover", '{"hops": 4}')} <= cases and ("hover", "{}") not in cases
    assert probe("plasticity", two, task="math", problems=4)[0]["key"]["task"] == "math"
    (fresh,) = two.glob("probes/plasticity/math-4-from-stage-0/*/*/*/config.json")
    assert json.loads(fresh.read_text())["data"]["math"]["kept"] == 200


def test_runs_are_put_in_one_table_by_their_rows_and_not_by_their_folder(rows: Path, tmp_path: Path) -> None:
    elsewhere, other = shutil.copytree(rows, tmp_path / "elsewhere"), shutil.copytree(rows, tmp_path / "other")
    (other / "physics.jsonl").write_text("\n".join(map(json.dumps, physics(140))))

    def made(name: str, seed: int, data: Path) -> Path:
        settings: dict[str, Any] = {"stage_problems": 4, "data": str(data)}
        out = tmp_path / name
        return fst_bench.run("single-physics", "base", out=out, seed=seed, preset="smoke", **settings).path

    a, b, c = made("a", 0, rows), made("b", 1, elsewhere), made("c", 2, other)
    assert len(load_runs([a, b])) == 2
    with pytest.raises(ValueError, match="does not belong in this table: data"):
        load_runs([a, c])


def test_a_sweep_takes_data(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "sweep --stream single-physics --methods base --seeds 0 --preset smoke --set stage_problems=4".split()
    assert main([*command, "--data", str(rows), "--out", str(tmp_path), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    assert json.loads((Path(run) / "config.json").read_text())["data"]["physics"]["kept"] == 150


def test_bad_data_is_one_line_and_no_directory(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = tmp_path / "few"
    few.mkdir()
    (few / "polaris.jsonl").write_text("\n".join(map(json.dumps, polaris(30))))
    (few / "physics.jsonl").write_text('{"question": "q"}\n')
    digests = {row["problem"]: hashlib.sha256(f"math/{row['problem']}".encode()).hexdigest() for row in polaris(200)}
    held = [row for row in polaris(200) if int(digests[row["problem"]][:8], 16) % 20 < 2]
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "polaris.jsonl").write_text("\n".join(map(json.dumps, held)))
    long = tmp_path / "long"
    long.mkdir()
    words = [{**row, "problem": row["problem"] + " and so on" * 700} for row in polaris(200)]
    (long / "polaris.jsonl").write_text("\n".join(map(json.dumps, words)))
    run = ["run", "--method", "rl", "--preset", "smoke", "--out", str(tmp_path / "runs"), "--stream"]
    cases: list[tuple[list[str], str]] = [
        ([*run, "single-math", "--data", "hbu"], "data: 'hbu' is not a folder, and neither procedural nor hub"),
        ([*run, "single-math", "--set", "data=3"], "data: "),
        ([*run, "paper-3", "--data", "hub"], "no physics exists on the hub"),
        (
            [*run, "single-codeio", "--data", str(few)],
            "no codeio.jsonl: codeio requires one, with the columns refcode, funcname",
        ),
        (
            [*run, "single-physics", "--data", str(few)],
            "1 of 1 rows are unusable (1 x choices is missing or empty (first in row 1))",
        ),
        (
            [*run, "single-math", "--data", str(few)],
            "test problems of math at this difficulty, number 8 is required: take more rows",
        ),
        ([*run, "single-math", "--data", str(tmp_path / "held")], "has 0 train problems of math at this difficulty"),
        (
            [*run, "single-math", "--data", str(rows), "--set", "difficulty.math.operations=3"],
            "unknown key 'operations'",
        ),
        ([*run, "single-math", "--data", str(rows), "--set", "difficulty.math.min_eighths=9"], "min_eighths"),
        (["validate", "data"], "validate data requires hub or a folder"),
        (["validate", "data", str(tmp_path)], "holds none of polaris.jsonl"),
        (["validate", "data", "hbu"], "is not a folder"),
    ]
    for arguments, expected in cases:
        assert expected in complaint(arguments, capsys), arguments
    assert not (tmp_path / "runs").exists()
    # longer prompts than the model reads: one line where it happens, and a parameter that leaves them out
    assert main([*run, "single-math", "--data", str(long)]) == 2
    assert "leaves no room" in capsys.readouterr().err
    assert "has 0 train problems" in complaint(
        [*run, "single-math", "--data", str(long), "--set", "difficulty.math.max_characters=900"], capsys
    )


def test_the_hub_when_offline_is_one_line_a_task(tmp_path: Path) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "fst_bench", "validate", "data", "hub"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    repositories = [
        "POLARIS-Project/Polaris-Dataset-53K",
        "hkust-nlp/CodeIO-PyEdu-Reasoning-Raw",
        "vincentkoc/hover-parquet",
    ]
    assert done.returncode == 1 and not done.stderr and len(lines) == 3
    for line, task, repository in zip(lines, ("math", "codeio", "hover"), repositories, strict=True):
        assert line.startswith(f"BAD {task}: cannot read {repository}: ")


def test_validate_data_names_every_row_that_is_skipped(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(rows, tmp_path / "rows")
    with (folder / "hover.jsonl").open("a") as f:
        f.write('\n\n{"claim": "c", "label": 1}\n')
    assert main(["validate", "data", str(folder)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "ok  hover: hover.jsonl, 300 problems kept, 3 skipped" in out
    assert (
        "ok  hover: skipped 1 for an empty line: 302" in out
        and "ok  hover: skipped 1 for a line that is not JSON: 301" in out
    )
    assert "ok  hover: skipped 1 for num_hops is missing or empty: 303" in out
    assert sum(line.startswith("ok  codeio {") for line in out) == 2
    (folder / "physics.jsonl").write_text("{}\n")
    wrong = [{**row, "ios": [{"input": {"a": j, "b": 2}, "output": j} for j in range(3)]} for row in codeio(80)]
    (folder / "codeio.jsonl").write_text("\n".join(map(json.dumps, wrong)))
    assert main(["validate", "data", str(folder)]) == 1
    bad = [line for line in capsys.readouterr().out.splitlines() if line.startswith("BAD")]
    assert len(bad) == 2 and "1 of 1 rows are unusable" in bad[1]
    assert (
        'codeio {"direction": "input"}' in bad[0] and "the gold answer" in bad[0] and "but it should return" in bad[0]
    )


def test_tasks_that_a_source_has(rows: Path, tmp_path: Path) -> None:
    assert (
        set(tasks_in("procedural"))
        == set(tasks_in(str(rows)))
        == {"math", "codeio", "hover", "star-graph", "physics", "hover-search"}
    )
    assert set(tasks_in("hub")) == {"math", "codeio", "hover", "star-graph", "hover-search"}
    assert tasks_in(str(tmp_path)) == ["star-graph", "hover-search"]


def settings_for(data: Any, **more: Any) -> dict[str, dict[str, Any]]:
    return resolve("continual-4", "rl", "tiny", 0, {"data": data} | more)[0].difficulty


def test_a_presets_parameters_are_of_the_problems_it_was_written_for(rows: Path, tmp_path: Path) -> None:
    assert settings_for("procedural") == resolve("continual-4", "rl", "tiny")[0].difficulty
    assert set(settings_for(str(rows))) == {"star-graph", "hover-search"}
    assert settings_for(str(rows), **{"difficulty.hover.hops": 2})["hover"] == {"hops": 2}
    stream = tmp_path / "s.yaml"  # a stream may be of real data: its difficulty parameters then apply to any
    settings = "{data: hub, difficulty: {math: {max_eighths: 4}}}"
    stream.write_text(
        f"name: s\nversion: 1\ndescription: d\nsettings: {settings}\nstages: [{{task: math, problems: 16}}]\n"
    )
    assert resolve(str(stream), "rl", "tiny")[0].difficulty["math"] == {"max_eighths": 4}
    assert resolve(str(stream), "rl", "tiny", 0, {"data": str(rows)})[0].difficulty["math"] == {"max_eighths": 4}
    assert "math" not in resolve(str(stream), "rl", "tiny", 0, {"data": "procedural"})[0].difficulty
