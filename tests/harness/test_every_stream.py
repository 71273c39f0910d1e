"""Every shipped stream, run from its first batch to its comparison: short and real."""

from pathlib import Path

import pytest

import fst_bench
from fst_bench.harness.loop import Run
from fst_bench.analysis import load, tables, write_page
from fst_bench.metrics.transfer import trained
from fst_bench.tasks.stream import load_spec, stream_files
from fst_bench.cli.validate import run as check

SHORT = {
    "stage_problems": 8, "policy": {"max_tokens": 16}, "fast": {"anchor": 2, "minibatch": 2, "budget": 20},
    "evaluation": {"boundary": 2, "small": 2, "interval": 16}, "slow": {"group": 2}, "checkpoint": {"every": 1000, "stages": False},
}  # fmt: skip


def run(stream: str, out: Path) -> Run:
    return fst_bench.run(stream, "fst", out, preset="smoke", **SHORT)


@pytest.mark.parametrize("name", stream_files())
def test_a_run_its_report_and_its_comparison(name: str, tmp_path: Path) -> None:
    done = run(name, tmp_path / "runs")
    spec, config = load_spec(name), done.store.read("config")
    stages = config["stages"]
    assert [s["task"] for s in stages] == ["+".join(s.weights) for s in spec.stages] * spec.cycles
    assert (config["announced"], config["task_visible"]) == (spec.announced, spec.task_visible)
    assert not [complaint for _, complaint in check(str(done.path)) if complaint]

    keys = list(dict.fromkeys(key for s in stages for key in trained(s["task"])))
    matrix = done.metrics["matrix"]["system"]
    assert list(matrix) == [str(i) for i in range(len(stages) + 1)] and all(
        list(row) == keys for row in matrix.values()
    )
    for stage in done.metrics["stages"]:
        mine = trained(stage["task"])
        assert stage["end"]["system"] == pytest.approx(
            sum(matrix[str(stage["stage"])][key] for key in mine) / len(mine)
        )
    assert (done.metrics["transfer"]["system"]["bwt"] is None) == (len(stages) == 1)

    page = (done.path / "report.html").read_text()
    assert all(key in page for key in keys) and "not finished" not in page
    runs = load([tmp_path / "runs"])
    learning = tables(runs)[0]
    assert learning.columns[: len(stages)] == [f"{s['stage']} {s['task']}" for s in stages]
    assert [cell.value for cell in learning.rows[0].cells[: len(stages)]] == [
        s["end"]["system"] for s in done.metrics["stages"]
    ]
    assert all(key in write_page(runs, tmp_path / "page").read_text() for key in keys)


def test_who_ignores_what_it_is_told_does_the_same_untold(tmp_path: Path) -> None:
    told, untold = run("continual-4-told", tmp_path), run("continual-4", tmp_path)
    for name in ("evals", "answers", "rollouts", "prompts"):
        assert told.store.file(name).read_bytes() == untold.store.file(name).read_bytes()
