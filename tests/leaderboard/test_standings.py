"""Numbers of an entry by hand; places are intervals, and ties are ties."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fst_bench.harness.run import Run
from fst_bench.leaderboard.standings import COLUMNS, Entry, League, Place, difference, standings
from fst_bench.metrics import paired_difference

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
    return Run(Written({"metrics": metrics, "ledger": ledger}))


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
        scores={"end": {"math": np.array(ends)[:, None]}, "online": {"online": np.array(onlines or ends)}},
        unranked=unranked,
    )


def places(*entries: Entry, column: str = "end") -> dict[str, str]:
    return {s.entry.id: str(s.places[column]) for s in standings(entries) if s.places}


def test_columns_of_a_run_by_hand() -> None:
    run = finished(0.8)
    found = {column.key: column.of(run) for column in COLUMNS}
    assert {key: value for key, value in found.items() if not math.isnan(value)} == {
        "end": 0.8,
        "online": 0.6,
        "seed": 0.25,
        "anytime": 0.5,
        "kl": 0.2,
        "rollouts": 100,
        "tokens": 1_000,
        "seconds": 4.0,
    }
    assert [key for key, value in found.items() if math.isnan(value)] == ["oracle", "forgetting"]


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
        ("a", {"end": "1", "online": "1"}),
        ("b", {"end": "2", "online": "2"}),
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
