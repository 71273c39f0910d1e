"""Numbers of an entry by hand; places are intervals, and ties are ties."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tampering import written

from fst_bench.cli import main
from fst_bench.harness.config import resolve
from fst_bench.harness.evaluate import TEST_SEED
from fst_bench.harness.run import Run
from fst_bench.leaderboard import adjudications
from fst_bench.leaderboard.adjudications import Action, append, judge, read
from fst_bench.leaderboard.answers import with_answers
from fst_bench.leaderboard.bundle import BundledRun, SubmittedRun, read_bundle
from fst_bench.leaderboard.check import check
from fst_bench.leaderboard.standings import COLUMNS, Entry, League, Place, difference, standings
from fst_bench.metrics import paired_difference
from fst_bench.tasks import load_task

LEAGUE = League("continual-4@2", "embedded:tiny", "tiny", "closed")


@dataclass(frozen=True)
class Written:
    """A run's source whose files are given."""

    files: dict[str, Any]
    path: Path = field(default=Path("runs"))
    finished: bool = True

    def read(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.files[name]
        return found

    def rows(self, name: str) -> list[dict[str, Any]]:
        return []


def finished(end: float, online: tuple[float, float] = (0.5, 0.7)) -> Run:
    metrics = {
        "stages": [{"online": o, "kl": {"system": k}} for o, k in zip(online, (0.1, 0.3), strict=True)],
        "final_average": {"system": end, "seed": 0.25},
        "transfer": {"system": {"anytime": 0.5, "forgetting": None}},
    }
    ledger = {
        "rollouts": {"train": 80, "valset": 20},
        "sampled_tokens": 1_000,
        "seconds": {"sample": 1.5, "update": 2.5},
    }
    run = Run(Written({"metrics": metrics, "ledger": ledger}))
    run.__dict__["so_far"] = end  # in place of the evaluation rows that it would be computed from
    return run


def entry(
    name: str,
    ends: list[float],
    onlines: list[float] | None = None,
    unranked: str | None = None,
    league: League = LEAGUE,
) -> Entry:
    """Return an entry whose seeds got `ends`, on one problem each, and `onlines`."""
    return Entry(
        id=name,
        league=league,
        name=name,
        organisation="o",
        method="m",
        runs=tuple(map(finished, ends)),
        settings={},
        code="shipped",
        note="",
        command="",
        bundle="0" * 64,
        scores={
            "so-far": {"so-far": np.array(ends)},
            "end": {"math": np.array(ends)[:, None]},
            "online": {"online": np.array(onlines or ends)},
        },
        unranked=unranked,
    )


def places(*entries: Entry, column: str = "end") -> dict[str, str]:
    return {s.entry.id: str(s.places[column]) for s in standings(entries) if s.places}


def test_columns_of_a_run_by_hand() -> None:
    run = finished(0.8)
    found = {column.key: column.of(run) for column in COLUMNS}
    assert {key: value for key, value in found.items() if not math.isnan(value)} == {
        "so-far": 0.8,
        "end": 0.8,
        "online": 0.6,
        "seed": 0.25,
        "anytime": 0.5,
        "kl": 0.2,
        "rollouts": 100,
        "tokens": 1_000,
        "seconds": 4.0,
    }
    assert [key for key, value in found.items() if math.isnan(value)] == ["oracle", "greedy", "forgetting"]


def test_a_number_is_a_mean_over_seeds_with_its_t_interval() -> None:
    number = entry("a", [0.1, 0.2, 0.3]).values["end"]
    half = 4.302653 * 0.1 / math.sqrt(3)  # t of 2 degrees of freedom at 97.5 %, a standard deviation of .1
    assert number.value == pytest.approx(0.2) and (number.low, number.high) == pytest.approx((0.2 - half, 0.2 + half))
    single = entry("a", [0.1]).values["end"]
    assert single.value == 0.1 and math.isnan(single.low)


def test_clearly_better_comes_first_and_what_cannot_be_told_apart_shares_places() -> None:
    top, tied, last = [0.90, 0.91, 0.92, 0.93, 0.94], [0.88, 0.94, 0.90, 0.95, 0.91], [0.10, 0.11, 0.12, 0.13, 0.14]
    assert places(entry("last", last), entry("tied", tied), entry("top", top)) == {
        "top": "1–2",
        "tied": "1–2",
        "last": "3",
    }
    assert places(entry("alone", top)) == {"alone": "1"}


def test_pairing_by_seed_tells_apart_what_overlaps() -> None:
    spread = [0.1, 0.3, 0.5, 0.7, 0.9]
    a, b = entry("a", [x + 0.02 for x in spread]), entry("b", spread)
    assert a.values["end"].low < b.values["end"].high
    assert places(a, b) == {"a": "1", "b": "2"}


def test_the_two_rankings_are_apart_and_the_first_one_orders_the_rows() -> None:
    high, low = [0.8, 0.81, 0.82, 0.8, 0.79], [0.2, 0.21, 0.22, 0.2, 0.19]
    a, b = entry("a", high, low), entry("b", low, high)
    assert places(a, b) == {"a": "1", "b": "2"} and places(a, b, column="online") == {"a": "2", "b": "1"}
    assert [s.entry.id for s in standings([b, a])] == ["a", "b"]


def test_unranked_entries_come_last_and_take_no_place() -> None:
    best = entry("best", [0.99] * 3, unranked="incomplete: seeds 0, 1, 2, a place requires 0 to 4")
    found = standings([best, entry("b", [0.1, 0.2, 0.3, 0.2, 0.1]), entry("a", [0.5, 0.6, 0.5, 0.6, 0.5])])
    assert [(s.entry.id, {k: str(p) for k, p in s.places.items()}) for s in found] == [
        ("a", {"so-far": "1", "end": "1", "online": "1"}),
        ("b", {"so-far": "2", "end": "2", "online": "2"}),
        ("best", {}),
    ]


def test_leagues_are_apart() -> None:
    other = LEAGUE._replace(division="open")
    assert places(entry("a", [0.1] * 5), entry("b", [0.9] * 5, league=other)) == {"a": "1", "b": "1"}


@settings(max_examples=10)  # each draws thousands of resamples
@given(st.lists(st.lists(st.integers(0, 10).map(lambda n: n / 10), min_size=5, max_size=5), min_size=1, max_size=5))
def test_places_hold_together_whatever_the_scores(scores: list[list[float]]) -> None:
    found = {s.entry.id: s for s in standings([entry(str(i), ends) for i, ends in enumerate(scores)])}
    for name, standing in found.items():
        place = standing.places["end"]
        assert 1 <= place.first <= place.last <= len(scores)
        for other, d in standing.differences["end"].items():
            back = found[other].differences["end"][name]
            assert (d.value, d.low, d.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert min(s.places["end"].first for s in found.values()) == 1
    assert Place(1, 1) != Place(1, 2)


def test_a_difference_has_the_wider_of_the_t_interval_and_the_paired_bootstrap() -> None:
    rng = np.random.default_rng(0)
    a, b = ({task: (rng.random((5, 40)) < p).astype(float) for task in ("math", "hover")} for p in (0.6, 0.5))
    found, bootstrap = difference(a, b), paired_difference(a, b)
    seeds = [np.mean([a[task][i].mean() - b[task][i].mean() for task in a]) for i in range(5)]
    half = 2.776445 * np.std(seeds, ddof=1) / math.sqrt(5)  # t of 4 degrees of freedom at 97.5 %
    assert found.value == pytest.approx(bootstrap.value) == pytest.approx(np.mean(seeds))
    assert (found.low, found.high) == pytest.approx(
        (min(bootstrap.low, np.mean(seeds) - half), max(bootstrap.high, np.mean(seeds) + half))
    )


def test_one_seed_unlike_the_others_makes_a_lead_unclear() -> None:
    """Five of five seeds are ahead, one of them far: no resample of them is negative, and yet five are few."""
    base = [0.5] * 5
    assert places(entry("a", [0.51, 0.52, 0.51, 0.52, 0.75]), entry("b", base)) == {"a": "1–2", "b": "1–2"}
    assert places(entry("a", [0.61, 0.62, 0.61, 0.62, 0.65]), entry("b", base)) == {"a": "1", "b": "2"}


# --- decisions are appended and hold together; running a seed again tells an honest submission from an invented one

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
    assert made.action == "disputed" and "evaluation rows differ; tasks so far" in made.reason


def test_on_another_machine_one_more_draw_has_to_lie_where_another_seed_would(honest: Path) -> None:
    bundle = read_bundle(honest)
    run = bundle.runs[0]
    rows = [row | {"kl": row["kl"] + 1e-9} for row in run.source.rows("evals")]

    def again(metrics: dict[str, Any]) -> SubmittedRun:
        assert isinstance(run.source, BundledRun)
        return SubmittedRun(BundledRun(run.seed, run.source.settings | {"metrics": metrics}, {"evals": rows}))

    action, reason = judge(bundle, run, again(run.metrics))
    assert action == "verified" and reason.startswith(
        f"{len(rows)} of {len(rows)} evaluation rows differ; tasks so far"
    )
    ends = [other.metrics["final_average"]["system"] for other in bundle.runs]
    # t of one degree of freedom, s / sqrt(2) of two, and sqrt(n + 1)
    half = 12.7062 * abs(ends[0] - ends[1]) / 2 * math.sqrt(3)
    assert f"in {sum(ends) / 2 - half:.3f} to {sum(ends) / 2 + half:.3f}" in reason
    far = run.metrics | {"final_average": run.metrics["final_average"] | {"system": sum(ends) / 2 + half + 0.01}}
    assert judge(bundle, run, again(far))[0] == "disputed"
    with pytest.raises(ValueError, match="one seed gives no interval"):
        judge(replace(bundle, runs=[run]), run, again(run.metrics))
