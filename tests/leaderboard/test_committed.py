"""The committed board is what the committed submissions make of it, and each of them is consistent, with the committed runs too."""

import json
import shutil
from pathlib import Path

import pytest

from fst_bench.leaderboard.adjudications import DECISIONS
from fst_bench.leaderboard.build import build
from fst_bench.leaderboard.bundle import read_bundle
from fst_bench.harness.store import records

HOUSE = Path(__file__).parents[2]
BOARD, RESULTS = HOUSE / "leaderboard", HOUSE / "results"
STREAMS, METHODS = ("continual-4@2", "continual-4-formats-given@1", "paper-3@2"), ("base", "gepa", "rl", "fst")


def files(board: Path) -> dict[str, bytes]:
    """What a build writes."""
    paths = [board / "index.html", board / "data.json", *(board / "entries").iterdir(), *(board / "tables").iterdir()]
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
            (folder,) = (RESULTS / stream / method).glob(f"tiny-s{run.seed}-*")
            assert run.evals == records(folder / "evals.jsonl")
            assert run.metrics == json.loads((folder / "metrics.json").read_text())


def test_the_readmes_table_is_the_boards() -> None:
    assert (BOARD / "tables" / "summary.md").read_text() in (HOUSE / "README.md").read_text()
