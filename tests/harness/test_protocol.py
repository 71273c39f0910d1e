"""The lock is the code's own protocol, and a change can't pass as the old version."""

import copy
import json
from pathlib import Path

import pytest

import fst_bench
from fst_bench.analysis import load, tables, write_page
from fst_bench.cli.validate import run as validate_run
from fst_bench.harness import protocol
from fst_bench.harness.collection import Collection
from fst_bench.harness.config import resolve
from fst_bench.harness.loop import run_parts
from fst_bench.harness.protocol import changes, check, current, freeze
from fst_bench.harness.rows import label
from fst_bench.harness.run import Run
from fst_bench.tasks import reasoning_gym
from fst_bench.tasks.stream import load_spec, of_package, stream_files

RESULTS = Path(__file__).parents[2] / "results"


def test_the_code_runs_the_frozen_protocol() -> None:
    """When this fails, a published number would come out differently: undo the change, or freeze a new version."""
    assert [complaint for _, complaint in check() if complaint] == []


def test_published_runs_keep_their_ids() -> None:
    """By them a sweep knows which runs exist already."""
    published = Collection(RESULTS / "continual-4@2").runs()
    of_the_methods = [run for run in published if run.saved["preset"] == "tiny" and not run.saved["config"]["init"]]
    assert len(of_the_methods) >= 20
    for run in of_the_methods:
        parts = run_parts(*resolve("continual-4", run.method, "tiny", run.seed, {"threads": 1}))
        assert parts[1:] == run.path.parts[-2:]


def test_every_kind_of_change_is_seen() -> None:
    now = current()
    cases = [
        ("models", "embedded:tiny", "model.safetensors"),
        ("streams", "continual-4", "sha256"),
        ("problems", "tiny", "math"),
        ("settings", "tiny", "slow.ratio_clip_max"),
        ("settings", "tiny", "difficulty.hover.chains"),
        ("settings", "tiny-early", "policy.learning_rate"),
    ]
    for part, name, key in cases:
        changed = copy.deepcopy(now)
        changed[part][name][key] = "other"
        assert list(changes(now[part], changed[part])) == [f"{name}.{key} was {now[part][name][key]}, is other"]
    more = copy.deepcopy(now)
    more["settings"]["tiny"]["slow.new"] = 1
    assert not list(changes(now["settings"], more["settings"]))


def test_a_change_needs_a_new_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "protocol.json"
    monkeypatch.setattr(protocol, "LOCK", lock)
    freeze(1)
    freeze(1)  # nothing changed
    locked = json.loads(lock.read_text())
    locked["settings"]["tiny"]["slow.ratio_clip_max"] = 99
    lock.write_text(json.dumps(locked))
    with pytest.raises(ValueError, match=r"slow.ratio_clip_max was 99.*freeze it as version 2"):
        freeze(1)
    freeze(2)
    locked = json.loads(lock.read_text())
    locked["streams"]["paper-3"]["sha256"] = "older"
    lock.write_text(json.dumps(locked))
    with pytest.raises(ValueError, match="stream paper-3 changed: give it version"):
        freeze(3)


# --- every shipped stream, run from its first batch to its comparison: short and real

SHORT = {
    "stage_problems": 8,
    "policy": {"max_tokens": 16},
    "slow": {"group_size": 2},
    "fast": {"valset_size": 2, "reflection_minibatch_size": 2, "max_metric_calls": 20},
    "evaluation": {"boundary": 2, "small": 2, "interval": 16},
    "checkpoint": {"every": 1000, "stages": False},
}


def run(stream: str, out: Path) -> Run:
    return fst_bench.run(stream, "fst", out, preset="smoke", **SHORT)


@pytest.mark.parametrize("name", stream_files())
def test_a_run_its_report_and_its_comparison(name: str, tmp_path: Path) -> None:
    if of_package(name) and reasoning_gym.version() is None:
        pytest.skip("no reasoning-gym: pip install 'fst-bench[gym]'")
    done = run(name, tmp_path / "runs")
    spec, stages = load_spec(name), done.stages
    assert [list(s.tasks) for s in stages] == [list(s.weights) for s in spec.stages] * spec.cycles
    assert (done.saved["announced"], done.saved["task_visible"]) == (spec.announced, spec.task_visible)
    assert not [complaint for _, complaint in validate_run(str(done.path)) if complaint]

    keys = list(dict.fromkeys(key for s in stages for key in s.tasks))
    matrix = done.metrics["matrix"]["system"]
    assert list(matrix) == [str(i) for i in range(len(stages) + 1)] and all(
        list(row) == keys for row in matrix.values()
    )
    for stage in done.metrics["stages"]:
        ends = [matrix[str(stage["stage"])][key] for key in stage["tasks"]]
        assert stage["end"]["system"] == pytest.approx(sum(ends) / len(ends))
    assert (done.metrics["transfer"]["system"]["bwt"] is None) == (len(stages) == 1)

    page = (done.path / "report.html").read_text()
    assert all(key in page for key in keys) and "not finished" not in page
    runs = load([tmp_path / "runs"])
    learning = tables(runs)[0]
    assert learning.columns[: len(stages)] == [f"{s.stage} {label(s.tasks)}" for s in stages]
    shown = [cell.estimate.value for cell in learning.rows[0].cells[: len(stages)]]
    assert shown == [stage["end"]["system"] for stage in done.metrics["stages"]]
    assert all(key in write_page(runs, tmp_path / "page").read_text() for key in keys)


def test_a_method_that_ignores_boundaries_and_tasks_does_the_same_without_them(tmp_path: Path) -> None:
    informed, uninformed = run("continual-4-told", tmp_path), run("continual-4", tmp_path)
    for name in ("evals", "answers", "rollouts", "prompts"):
        assert (informed.path / f"{name}.jsonl").read_bytes() == (uninformed.path / f"{name}.jsonl").read_bytes()
