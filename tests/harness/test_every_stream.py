"""Every shipped stream, run from its first batch to its comparison: short and real."""

from pathlib import Path

import pytest

import fst_bench
from fst_bench.analysis import load, tables, write_page
from fst_bench.cli.validate import run as check
from fst_bench.harness.rows import label
from fst_bench.harness.run import Run
from fst_bench.tasks import reasoning_gym
from fst_bench.tasks.stream import load_spec, of_package, stream_files

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
    assert not [complaint for _, complaint in check(str(done.path)) if complaint]

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
