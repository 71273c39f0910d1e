"""The committed board is built from the committed submissions; each is consistent, with the committed runs too."""

import json
import shutil
from pathlib import Path

import pytest

from fst_bench.analysis import load
from fst_bench.core.errors import explain
from fst_bench.harness.config import Config
from fst_bench.leaderboard.adjudications import DECISIONS
from fst_bench.leaderboard.build import build
from fst_bench.leaderboard.bundle import read_bundle

ROOT = Path(__file__).parents[2]
BOARD, RESULTS = ROOT / "leaderboard", ROOT / "results"
STREAMS, METHODS = ("continual-4@2", "continual-4-formats-given@1", "paper-3@2"), ("base", "gepa", "rl", "fst")


def files(board: Path) -> dict[str, bytes]:
    """Return what is committed of a board: its pages are made of data.json, and built again when they are needed."""
    paths = [board / "data.json", *(board / "tables").iterdir()]
    return {str(path.relative_to(board)): path.read_bytes() for path in paths}


def test_the_committed_site_is_built_from_what_is_committed(tmp_path: Path) -> None:
    """Each submission is checked whole on the way: a board with all of them is the proof."""
    for part in ("submissions", DECISIONS):
        if (BOARD / part).is_dir():
            shutil.copytree(BOARD / part, tmp_path / part)
        elif (BOARD / part).exists():
            shutil.copyfile(BOARD / part, tmp_path / part)
    _, failed = build(tmp_path, RESULTS)
    assert failed == {}
    built, committed = files(tmp_path), files(BOARD)
    assert sorted(built) == sorted(committed)
    for name in built:
        assert built[name] == committed[name], name


def test_the_reference_rows_are_there_in_the_closed_division_and_ranked() -> None:
    entries = json.loads((BOARD / "data.json").read_text())["entries"]
    there = {
        (e["league"]["stream"], e["method"])
        for e in entries
        if e["league"]["division"] == "closed" and e["places"] and e["seeds"] == [0, 1, 2, 3, 4]
    }
    assert there >= {(stream, method) for stream in STREAMS for method in METHODS}


@pytest.mark.parametrize("stream", STREAMS)
def test_the_reference_submissions_hold_the_rows_of_the_committed_runs(stream: str) -> None:
    for method in METHODS:
        bundle = read_bundle(RESULTS / "submissions" / f"{stream.partition('@')[0]}-{method}.zip")
        for run in bundle.runs:
            (committed,) = (other for other in load([RESULTS / stream / method]) if other.seed == run.seed)
            assert run.evaluations == committed.typed("evals") and run.populations == committed.populations
            assert run.metrics == committed.metrics and run.saved["stages"] == committed.saved["stages"]
            assert run.config == explain(Config, committed.saved["config"], "config.json")
