"""Probes of real finished runs, with two stages each and nothing in them but seconds of learning."""

import json
import shutil
from pathlib import Path

import pytest

import fst_bench
from fst_bench.policy.torch_backend import TorchPolicy
from fst_bench.probes import probe
from fst_bench.probes.channels import interaction
from fst_bench.store import Store

N = 4


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("runs")
    stream = out / "two.yaml"
    stream.write_text("name: two\nversion: 1\ndescription: d\nstages: [{task: hover, problems: 8}, {task: physics, problems: 8}]\n")
    same = {"preset": "smoke", "out": out, "stage_problems": 8, "checkpoint": {"every": 1, "keep": 1}}
    return {method: fst_bench.run(stream=str(stream), method=method, **same).path for method in ("rl", "fst")}


def test_the_stages_ends_are_still_there(runs: dict[str, Path]) -> None:
    assert [p.name for p in Store(runs["rl"]).checkpoints()] == ["step-000002", "step-000004"]


def test_drift(runs: dict[str, Path]) -> None:
    rows = probe("drift", runs["fst"], n=N)
    assert len(rows) == 2 * 2 * 2 * 2  # stages, tasks, prompt modes, directions
    assert all(0 < row["kl_per_token"] < 5 for row in rows)
    assert all(row["kl_per_answer"] == pytest.approx(row["kl_per_token"] * row["tokens_per_answer"]) for row in rows)
    forth, back = ([r["kl_per_token"] for r in rows if r["key"]["direction"] == d] for d in ("policy||base", "base||policy"))
    assert forth != back
    assert Store(runs["fst"]).broken() == []  # nothing of the run itself was touched


def test_channels(runs: dict[str, Path]) -> None:
    cells = {tuple(r["key"][k] for k in ("stage", "weights", "prompt")): r["accuracy"] for r in probe("channels", runs["rl"], n=N)}
    assert len(cells) == 2 * 2 * 2
    for stage in (1, 2):  # rl has no prompt of its own: its columns agree, draw by draw
        for weights in ("base", "trained"):
            assert cells[stage, weights, "seed"] == cells[stage, weights, "evolved"]
    assert len(probe("channels", runs["fst"], n=N)) == 8


def test_the_interaction_by_hand() -> None:
    cells = {("base", "seed"): 0.1, ("trained", "seed"): 0.3, ("base", "evolved"): 0.4, ("trained", "evolved"): 0.9}
    assert interaction(cells) == pytest.approx(0.3)  # .9 - .1 - (.2 + .3)


def test_ood_is_of_other_tasks_and_other_difficulties(runs: dict[str, Path]) -> None:
    rows = probe("ood", runs["rl"], n=N)
    cases = {(row["key"]["task"], json.dumps(row["key"]["difficulty"])) for row in rows}
    assert {"math", "codeio", "star-graph"} <= {task for task, _ in cases}
    config = json.loads((runs["rl"] / "config.json").read_text())["config"]["difficulty"]
    assert ("hover", json.dumps(config["hover"])) not in cases and ("math", json.dumps(config["math"])) in cases
    assert len(rows) == 2 * len(cases)
    others = {key: r["accuracy"] for r in probe("ood", runs["fst"], n=N) if r["key"]["weights"] == "base" for key in [json.dumps(r["key"])]}
    assert others == {json.dumps(r["key"]): r["accuracy"] for r in rows if r["key"]["weights"] == "base"}  # the base is the same one


def test_plasticity_from_the_base_is_a_plain_rl_run(runs: dict[str, Path], tmp_path: Path) -> None:
    rows = probe("plasticity", runs["fst"], task="math", problems=8)
    assert [row["key"]["stage"] for row in rows] == [0, 1, 2]
    plain = fst_bench.run("single-math", "rl", preset="smoke", out=tmp_path, stage_problems=8, checkpoint={"every": 1, "keep": 1})
    fresh, mine = (Store(p).rows("rollouts") for p in (plain.path, runs["fst"] / rows[0]["run"]))
    assert fresh == mine
    starts = [Store(runs["fst"] / row["run"]).rows("evals")[0]["kl"] for row in rows]
    assert starts[0] == 0.0 and 0 < starts[1] != starts[2] > 0  # the others start from where the run's stages ended


def test_a_stopped_probe_goes_on(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["fst"], run, ignore=shutil.ignore_patterns("probes"))
    whole = probe("channels", run, n=N)
    path = run / "probes" / "channels.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    asked = []
    sample = TorchPolicy.sample
    monkeypatch.setattr(TorchPolicy, "sample", lambda self, asks, **more: asked.append(len(asks)) or sample(self, asks, **more))
    assert probe("channels", run, n=N) == whole
    assert asked == [N] * 3 and path.read_bytes() == b"".join(lines)


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("drfit", {}, "unknown probe 'drfit': did you mean drift"),
        ("plasticity", {"task": "hover"}, "the stream holds hover: plasticity wants one of math, codeio, star-graph"),
        ("plasticity", {"task": "maths"}, "unknown task 'maths'"),
    ],
)
def test_what_cannot_be_probed_is_refused(runs: dict[str, Path], name: str, options: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        probe(name, runs["rl"], **options)


def test_an_unfinished_run_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(runs["rl"], tmp_path / "run")
    (tmp_path / "run" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="is not finished: fst-bench resume"):
        probe("drift", tmp_path / "run")
