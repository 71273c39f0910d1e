"""Decisions are appended and hold together; running a seed again tells an honest submission from an invented one."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tampering import written

from fst_bench.cli import main
from fst_bench.harness.config import resolve
from fst_bench.harness.evaluate import TEST_SEED
from fst_bench.leaderboard import adjudications
from fst_bench.leaderboard.adjudications import Action, append, judge, read
from fst_bench.leaderboard.answers import with_answers
from fst_bench.leaderboard.bundle import BundledRun, SubmittedRun, read_bundle
from fst_bench.leaderboard.check import check
from fst_bench.tasks import load_task

ENTRY, OTHER = "a" * 64, "b" * 64


def test_decisions_are_read_in_order_and_an_edited_or_dropped_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "board" / "adjudications.jsonl"
    assert read(path) == []
    decisions: list[tuple[str, Action, str]] = [
        (ENTRY, "removed", "Its author asked."),
        (OTHER, "verified", "The same."),
        (ENTRY, "restored", "Asked again."),
    ]
    for entry, action, reason in decisions:
        append(path, entry, action, reason)
    assert [(d.entry, d.action, d.reason) for d in read(path)] == decisions
    lines = path.read_text().splitlines()
    for changed, number in (
        ([lines[0].replace("asked", "begged"), *lines[1:]], 2),
        ([lines[0], lines[2]], 2),
        (lines[1:], 1),
        ([lines[1], lines[0], lines[2]], 1),
    ):
        path.write_text("\n".join(changed) + "\n")
        with pytest.raises(ValueError, match=f"line {number} does not follow the line before it"):
            read(path)
        with pytest.raises(ValueError, match=f"line {number} does not follow"):
            append(path, ENTRY, "removed", "Again.")
    path.write_text("[]\n")
    with pytest.raises(ValueError, match="line 1"):
        read(path)
    path.write_text("{\n")
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        read(path)


def test_a_decision_requires_a_reason(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reason"):
        append(tmp_path / "a.jsonl", ENTRY, "removed", "")
    assert not (tmp_path / "a.jsonl").exists()


def test_a_seed_run_again_is_the_same_bit_for_bit(
    honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = tmp_path / "board"
    places = ["--out", str(tmp_path / "runs"), "--board", str(board)]
    assert main(["leaderboard", "verify", str(honest), "--seed", "1", *places]) == 0
    (made,) = read(board / "adjudications.jsonl")
    assert made.action == "verified" and made.seed == 1 and made.entry == read_bundle(honest).sha256
    assert re.fullmatch(r"seed 1 run again on .*: all \d+ evaluation rows are the same, bit for bit", made.reason)
    assert main(["leaderboard", "verify", str(honest), "--seed", "3", *places]) == 2
    assert "no seed 3 in this submission: its seeds are 0, 1" in capsys.readouterr().err


def test_invented_answers_are_consistent_and_running_a_seed_again_disputes_them(
    tampered: Callable[..., Path], honest: Path, tmp_path: Path
) -> None:
    task = load_task("math", **resolve("single-math", "fst", "smoke")[0].difficulty["math"])
    golden = {p.id: (p, task.write(p.answer)) for p in task.problems("test", TEST_SEED, 8)}

    def invent(files: dict[str, bytes]) -> None:
        """All answers right but a few, all numbers computed from them as the harness would."""
        for run in read_bundle(honest).runs:
            answers = list(run.answers)
            for number, answer in enumerate(run.answers):
                if (number + run.seed) % 7:
                    problem, text = golden[answer.problem]
                    status = task.verify(problem, text).status
                    answers[number] = answer.model_copy(update={"text": text, "reward": 1.0, "status": status})
            files.update(written(with_answers(run, answers)))

    path = tampered(invent)
    assert [line for line in check(read_bundle(path)) if line[1]] == []  # consistent, and not honest
    board = tmp_path / "board"
    places = ["--out", str(tmp_path / "runs"), "--board", str(board)]
    assert main(["leaderboard", "verify", str(path), "--seed", "0", *places]) == 1
    (made,) = read(board / adjudications.DECISIONS)
    assert made.action == "disputed" and "evaluation rows differ; end of stream" in made.reason


def test_on_another_machine_one_more_draw_has_to_lie_where_another_seed_would(honest: Path) -> None:
    bundle = read_bundle(honest)
    run = bundle.runs[0]
    rows = [row | {"kl": row["kl"] + 1e-9} for row in run.source.rows("evals")]

    def again(metrics: dict[str, Any]) -> SubmittedRun:
        assert isinstance(run.source, BundledRun)
        return SubmittedRun(BundledRun(run.seed, run.source.settings | {"metrics": metrics}, {"evals": rows}))

    action, reason = judge(bundle, run, again(run.metrics))
    assert action == "verified" and reason.startswith(
        f"{len(rows)} of {len(rows)} evaluation rows differ; end of stream"
    )
    ends = [other.metrics["final_average"]["system"] for other in bundle.runs]
    # t of one degree of freedom, s / sqrt(2) of two, and sqrt(n + 1)
    half = 12.7062 * abs(ends[0] - ends[1]) / 2 * math.sqrt(3)
    assert f"in {sum(ends) / 2 - half:.3f} to {sum(ends) / 2 + half:.3f}" in reason
    far = run.metrics | {"final_average": run.metrics["final_average"] | {"system": sum(ends) / 2 + half + 0.01}}
    assert judge(bundle, run, again(far))[0] == "disputed"
    with pytest.raises(ValueError, match="one seed gives no interval"):
        judge(replace(bundle, runs=[run]), run, again(run.metrics))
