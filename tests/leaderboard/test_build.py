"""The board is what its submissions and decisions make of it: nothing else, and nothing less."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tampering import written

from fst_bench.analysis import load
from fst_bench.cli import main
from fst_bench.core.errors import explain
from fst_bench.harness.config import Config
from fst_bench.leaderboard.adjudications import DECISIONS, append
from fst_bench.leaderboard.answers import with_answers
from fst_bench.leaderboard.build import build
from fst_bench.leaderboard.bundle import read_bundle


def board_of(path: Path, *bundles: Path) -> Path:
    (path / "submissions").mkdir(parents=True)
    for number, bundle in enumerate(bundles):
        shutil.copyfile(bundle, path / "submissions" / f"{number}.zip")
    return path


def entries(board: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((board / "data.json").read_text())["entries"]
    return found


def test_submissions_become_entries_with_the_numbers_of_their_runs(honest: Path, made: Path, tmp_path: Path) -> None:
    board = board_of(tmp_path / "board", honest)
    page, failed = build(board, tmp_path / "nothing")
    assert page == board / "index.html" and failed == {}
    (entry,) = entries(board)
    ends = [json.loads(p.read_text())["final_average"]["system"] for p in sorted(made.rglob("metrics.json"))]
    assert entry["values"]["end"]["value"] == round(sum(ends) / 2, 3)
    assert entry["unranked"] == "incomplete: seeds 0, 1, a place requires 0 to 4" and not entry["places"]
    assert entry["command"] == "fst-bench sweep --stream single-math --methods fst --preset smoke --seeds 0-4"
    assert entry["bundle"] == read_bundle(honest).sha256
    assert (board / "entries" / f"{entry['id']}.html").exists()


def test_what_fails_its_check_is_left_out_and_named(
    honest: Path, tampered: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def better(files: dict[str, bytes]) -> None:
        metrics = json.loads(files["runs/s0/metrics.json"])
        metrics["final_average"]["system"] = 0.99
        files["runs/s0/metrics.json"] = json.dumps(metrics).encode()

    board = board_of(tmp_path / "board", honest, tampered(better))
    assert main(["leaderboard", "build", "--board", str(board), "--results", str(tmp_path / "nothing")]) == 1
    assert "FAILS" in (printed := capsys.readouterr().out) and "final_average.system is 0.99" in printed
    assert [e["bundle"] for e in entries(board)] == [read_bundle(honest).sha256]
    (board / "submissions" / "2.zip").write_bytes(b"no zip")
    _, failed = build(board, tmp_path / "nothing")
    assert len(failed) == 2


def test_decisions_remove_restore_and_dispute(honest: Path, tmp_path: Path) -> None:
    board, sha = board_of(tmp_path / "board", honest), read_bundle(honest).sha256
    decisions = board / "adjudications.jsonl"
    append(decisions, sha, "verified", "seed 0 run again: the same", seed=0, code="0123abc")
    build(board, tmp_path / "nothing")
    assert entries(board)[0]["verified"] == ["seed 0 run again: the same"]
    append(decisions, sha, "removed", "Its author asked <b>for it</b>.")
    build(board, tmp_path / "nothing")
    assert entries(board) == [] and not list((board / "entries").glob("*.html"))
    assert "Its author asked &lt;b&gt;for it&lt;/b&gt;." in (board / "index.html").read_text()
    append(decisions, sha, "restored", "Asked again.")
    append(decisions, sha, "disputed", "seed 1 run again: another world")
    build(board, tmp_path / "nothing")
    assert entries(board)[0]["unranked"] == "disputed: seed 1 run again: another world"
    append(decisions, "f" * 64, "removed", "Nobody.")
    with pytest.raises(ValueError, match=r"is about ffff.*, which is not a submission here"):
        build(board, tmp_path / "nothing")


def test_a_mended_verifier_scores_a_submission_again_once_that_was_decided(
    tampered: Callable[..., Path], tmp_path: Path
) -> None:
    """As if the verifier of old had been wrong about one answer: consistent then, not now."""

    def of_old(files: dict[str, bytes]) -> None:
        run = next(run for run in read_bundle(untouched).runs if run.seed == 0)
        wrong = next(answer for answer in run.answers if answer.reward == 0.0)
        right = wrong.model_copy(update={"reward": 1.0, "status": "ok"})
        files.update(written(with_answers(run, [right if answer is wrong else answer for answer in run.answers])))

    untouched = tmp_path / "untouched.zip"
    shutil.copyfile(tampered(lambda files: None), untouched)
    board = board_of(tmp_path / "board", tampered(of_old))
    _, failed = build(board, tmp_path / "nothing")
    assert "was scored 1.0" in next(iter(failed.values())) and entries(board) == []
    append(
        board / "adjudications.jsonl",
        read_bundle(board / "submissions" / "0.zip").sha256,
        "rescored",
        "The verifier took a wrong answer for right.",
    )
    _, failed = build(board, tmp_path / "nothing")
    assert failed == {}
    reference = board_of(tmp_path / "reference", untouched)
    build(reference, tmp_path / "nothing")
    assert entries(board)[0]["values"] == entries(reference)[0]["values"]


def test_the_same_file_twice_is_refused(honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = board_of(tmp_path / "board", honest, honest)
    assert main(["leaderboard", "build", "--board", str(board), "--results", str(tmp_path / "nothing")]) == 2
    assert "is the same file as" in capsys.readouterr().err
    assert not (board / "index.html").exists()


# --- the committed board is built from the committed submissions; each is consistent, with the committed runs too

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
