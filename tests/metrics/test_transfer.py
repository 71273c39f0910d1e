"""Worked by hand; all numbers are signed."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from fst_bench.metrics import area, difference, interaction, read_off, seen_so_far, summarise, transfer

TWO = [{"a": 0.1, "b": 0.2}, {"a": 0.7, "b": 0.3}, {"a": 0.5, "b": 0.9}]


def test_two_tasks() -> None:
    t = transfer(TWO)
    assert t.final == pytest.approx(0.7)  # (.5 + .9) / 2
    assert t.anytime == pytest.approx(0.7)  # (.7 + (.5 + .9) / 2) / 2
    assert t.bwt == pytest.approx(-0.2)  # .5 - .7
    assert t.forgetting == pytest.approx(0.2)  # .7 - .5
    assert t.fwt == pytest.approx(0.1)  # .3 - .2
    assert t.intransigence is None
    assert transfer(TWO, single={"a": 0.9, "b": 0.8}).intransigence == pytest.approx(0.05)  # (.9 - .7 + .8 - .9) / 2


def test_three_tasks_with_a_peak_after_the_own_stage() -> None:
    rows = [
        {"a": 0.0, "b": 0.1, "c": 0.2},
        {"a": 0.5, "b": 0.2, "c": 0.1},
        {"a": 0.8, "b": 0.6, "c": 0.4},
        {"a": 0.6, "b": 0.7, "c": 0.9},
    ]
    t = transfer(rows)
    assert t.final == pytest.approx(2.2 / 3)
    assert t.anytime == pytest.approx((0.5 + (0.8 + 0.6) / 2 + 2.2 / 3) / 3)
    assert t.bwt == pytest.approx(((0.6 - 0.5) + (0.7 - 0.6)) / 2)
    assert t.forgetting == pytest.approx(
        ((0.8 - 0.6) + (0.6 - 0.7)) / 2
    )  # the peak before the end; b got better: negative
    assert t.fwt == pytest.approx(((0.2 - 0.1) + (0.4 - 0.2)) / 2)


def test_a_revisit_has_its_own_entry() -> None:
    rows = [{"a": 0.1, "b": 0.2}, {"a": 0.7, "b": 0.3}, {"a": 0.4, "b": 0.9}, {"a": 0.8, "b": 0.6}]
    t = transfer(rows, order=["a", "b", "a"], single={"a": 1.0, "b": 1.0})
    assert t.final == pytest.approx(0.7)
    assert t.anytime == pytest.approx((0.7 + (0.4 + 0.9) / 2 + (0.8 + 0.6) / 2) / 3)
    assert t.bwt == pytest.approx(((0.8 - 0.7) + (0.6 - 0.9)) / 2)
    assert t.forgetting == pytest.approx(((0.7 - 0.8) + (0.9 - 0.6)) / 2)
    assert t.fwt == pytest.approx(0.3 - 0.2)  # b's first stage; a's second is no transfer to something new
    assert t.intransigence == pytest.approx((0.3 + 0.1) / 2)


def test_a_mixture_counts_once_with_the_mean_over_its_tasks() -> None:
    rows = [
        {"a": 0.1, "b": 0.2, "c": 0.0},
        {"a": 0.5, "b": 0.7, "c": 0.1},  # a+b
        {"a": 0.4, "b": 0.9, "c": 0.8},  # c
        {"a": 0.3, "b": 0.6, "c": 0.9},  # b+c: both come back
        {"a": 0.6, "b": 0.5, "c": 0.7},  # a
    ]
    t = transfer(rows, order=[["a", "b"], "c", ["b", "c"], "a"], single={"a": 0.9, "b": 0.9, "c": 1.0})
    assert t.final == pytest.approx(0.6)
    assert t.anytime == pytest.approx((0.6 + 2.1 / 3 + 0.6 + 0.6) / 4)
    assert t.bwt == pytest.approx((((0.6 - 0.5) + (0.5 - 0.7)) / 2 + (0.7 - 0.8) + ((0.5 - 0.6) + (0.7 - 0.9)) / 2) / 3)
    assert t.forgetting == pytest.approx(
        (((0.5 - 0.6) + (0.9 - 0.5)) / 2 + (0.9 - 0.7) + ((0.6 - 0.5) + (0.9 - 0.7)) / 2) / 3
    )
    assert t.fwt == pytest.approx(0.1 - 0.0)  # of c before its stage; b and c are nothing new in the third
    assert t.intransigence == pytest.approx((((0.9 - 0.5) + (0.9 - 0.7)) / 2 + (1.0 - 0.8)) / 2)


def test_one_stage_has_nothing_to_transfer() -> None:
    t = transfer([{"a": 0.1}, {"a": 0.6}])
    assert (t.final, t.anytime) == (0.6, 0.6)
    assert (t.bwt, t.forgetting, t.fwt, t.intransigence) == (None, None, None, None)


@pytest.mark.parametrize(
    ("rows", "more", "complaint"),
    [
        ([{"a": 0.1, "b": 0.2}, {"a": 0.7}, {"a": 0.5, "b": 0.9}], {}, "no accuracy of b after stage 1"),
        (
            [{"a": 0.1, "b": 0.2}, {"a": 0.7, "b": math.nan}, {"a": 0.5, "b": 0.9}],
            {},
            "accuracy of b after stage 1 is nan",
        ),
        (TWO[:2], {}, "2 stages need 3 rows"),
        ([], {}, "0 stages need 1 rows"),
        (TWO, {"order": ["a", "c"]}, "unknown task 'c'"),
        (TWO, {"order": ["a", ["a", "c"]]}, "unknown task 'c'"),
        (TWO, {"single": {"a": 0.5}}, "no single-task reference of b"),
        (TWO, {"single": {"a": 0.5, "b": 0.5, "x": 1.0}}, "unknown task 'x'"),
        ([TWO[0], TWO[1] | {"z": 0.1}, TWO[2]], {}, "row 1: unknown task 'z'"),
    ],
)
def test_what_is_missing_or_unknown_is_named(rows: list, more: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        transfer(rows, **more)


ARRAYS: dict[str, Callable[[list[list[float]]], Any]] = {
    "lists": list,
    "tuples": lambda rows: tuple(map(tuple, rows)),
    "numpy": np.array,
    "objects": lambda rows: np.array(rows, dtype=object),
    "torch": lambda rows: torch.tensor(rows, dtype=torch.float64),
    "pandas without names": pd.DataFrame,
    "pandas": lambda rows: pd.DataFrame(rows, columns=["a", "b"]),
    "series": lambda rows: [pd.Series(row, ["a", "b"]).to_dict() for row in rows],
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_is_the_same_as_its_rows(kind: str) -> None:
    R = ARRAYS[kind]([list(row.values()) for row in TWO])
    alone = [0.9, 0.8]
    by_name = {"a": 0.9, "b": 0.8}
    singles = (alone, tuple(alone), np.array(alone), pd.Series(alone), by_name, pd.Series(by_name))
    expected = transfer(TWO, single=by_name)
    if kind in ("pandas", "series"):
        assert {transfer(R, single=single) for single in singles} == {expected}
    else:
        assert {transfer(R, ["a", "b"], single) for single in singles} == {expected}
        assert transfer(R, single=alone) == transfer(R, np.array([0, 1]), alone) == expected
        assert transfer(R, [1, 0]) == transfer(TWO, ["b", "a"])  # numbers are columns
        assert transfer(R, ["b", "a"]) == transfer([{"b": row["a"], "a": row["b"]} for row in TWO], ["b", "a"])


@pytest.mark.parametrize(
    ("R", "more", "complaint"),
    [
        (np.zeros((3, 2)), {"order": ["a", "b", "c"]}, "an array of 2 columns has 3 tasks in its order: a, b, c"),
        (np.zeros((3, 2)), {"order": [0, 5]}, "unknown task '5': There are 0, 1"),
        (np.zeros((4, 2)), {}, "2 stages need 3 rows, the first before learning; got 4"),
        (np.zeros(3), {}, r"an array of accuracies is \(stages \+ 1, tasks\), got \(3,\)"),
        (np.array([[0, 0], [0, np.nan], [0, 0]]), {}, "the accuracy of 1 after stage 1 is nan"),
        ([[0.1, 0.2], [0.3]], {}, "accuracies are no array of numbers"),
        ([{"a": 0.1}, {"a": None}], {}, "the accuracy of a after stage 1 is nan"),
        (np.zeros((3, 2)), {"single": [0.5]}, "2 tasks have a single-task reference each, got 1"),
    ],
)
def test_what_is_wrong_with_an_array_is_named(R: Any, more: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        transfer(R, **more)


# --- metrics.json from rows written by hand

STAGES = [{"stage": 1, "tasks": ["a"]}, {"stage": 2, "tasks": ["b"]}]


def row(stage: int, task: str, mode: str, accuracy: float, kl: float = 0.0, boundary: bool = True) -> dict:
    return {
        "stage": stage,
        "task": task,
        "prompt_mode": mode,
        "accuracy": accuracy,
        "kl": kl,
        "kl_per_answer": 10 * kl,
        "boundary": boundary,
    }


SYSTEM = {(0, "a"): 0.1, (0, "b"): 0.2, (1, "a"): 0.7, (1, "b"): 0.1, (2, "a"): 0.3, (2, "b"): 0.9}
ROWS = [row(s, t, "system", v, kl=s / 100) for (s, t), v in SYSTEM.items()]
ROWS += [row(s, t, "seed", v / 2) for (s, t), v in SYSTEM.items()]
ROWS += [row(1, "a", "oracle", 0.7), row(2, "a", "oracle", 0.6), row(2, "b", "oracle", 0.9)]
ROWS += [row(1, "a", "system", 0.0, boundary=False)]  # a small evaluation is not a cell of the matrix


def test_the_matrix_and_each_stages_own_task() -> None:
    m = summarise(ROWS, STAGES, {"problems": 5})
    assert m["matrix"]["system"] == {"0": {"a": 0.1, "b": 0.2}, "1": {"a": 0.7, "b": 0.1}, "2": {"a": 0.3, "b": 0.9}}
    assert m["matrix"]["seed"]["2"] == {"a": 0.15, "b": 0.45}
    assert m["transfer"]["system"]["bwt"] == pytest.approx(-0.4)
    assert m["transfer"]["seed"]["fwt"] == pytest.approx(-0.05)
    assert m["stages"][0]["base"] == {"system": 0.1, "seed": 0.05}
    assert m["stages"][0]["end"] == {"system": 0.7, "seed": 0.35, "oracle": 0.7}
    # (0.7 + 0.0) / 2: the small evaluation counts here
    assert [stage["online"] for stage in m["stages"]] == pytest.approx([0.35, 0.9])
    assert m["stages"][0]["final"] == {"system": 0.3, "seed": 0.15, "oracle": 0.6}
    assert (m["stages"][1]["kl"]["system"], m["stages"][1]["kl_per_answer"]["system"]) == (0.02, 0.2)
    assert m["final_average"] == pytest.approx({"system": 0.6, "seed": 0.3, "oracle": 0.75})
    assert m["ledger"] == {"problems": 5}


def test_a_missing_cell_is_an_error_that_names_it() -> None:
    rows = [r for r in ROWS if (r["stage"], r["task"], r["prompt_mode"]) != (2, "b", "seed")]
    with pytest.raises(ValueError, match=r"no boundary evaluation of b \(seed\) at the end of stage 2"):
        summarise(rows, STAGES, {})


def test_a_stage_of_a_mixture_has_the_means_of_its_tasks_and_a_revisit_its_own_number() -> None:
    stages = [{"stage": 1, "tasks": ["a", "b"]}, {"stage": 2, "tasks": ["a"]}]
    cells = {(0, "a"): 0.0, (0, "b"): 0.2, (1, "a"): 0.4, (1, "b"): 0.8, (2, "a"): 0.9, (2, "b"): 0.5}
    rows = [
        row(s, t, mode, v, kl=s / 10 + (t == "b") / 100) for (s, t), v in cells.items() for mode in ("system", "seed")
    ]
    rows += [row(1, "a", "system", 0.0, boundary=False), row(1, "b", "system", 0.4, boundary=False)]
    m = summarise(rows, stages, {})
    first, second = m["stages"]
    assert first["tasks"] == ["a", "b"]
    assert [first[at]["system"] for at in ("base", "end", "final")] == pytest.approx([0.1, 0.6, 0.7])
    assert first["online"] == pytest.approx((0.4 + 0.8 + 0.0 + 0.4) / 4)
    assert first["kl"]["system"] == pytest.approx(0.105)
    assert (second["stage"], second["tasks"], second["end"]["system"], second["online"]) == (2, ["a"], 0.9, 0.9)
    assert m["matrix"]["system"]["1"] == {"a": 0.4, "b": 0.8} and m["final_average"]["system"] == pytest.approx(0.7)
    assert m["transfer"]["system"]["bwt"] == pytest.approx(((0.9 - 0.4) + (0.5 - 0.8)) / 2)
    assert m["transfer"]["system"]["fwt"] is None


# --- test_probed


def test_the_interaction_by_hand() -> None:
    cells = {("base", "seed"): 0.1, ("trained", "seed"): 0.3, ("base", "evolved"): 0.4, ("trained", "evolved"): 0.9}
    assert interaction(cells) == pytest.approx(0.3)  # .9 - .1 - (.2 + .3)


def test_the_paired_difference_by_hand() -> None:
    # deltas 0, -1, 0, -1: mean -.5, variance 1/3, standard error sqrt(1/12)
    assert difference([1, 1, 0, 1], [1, 0, 0, 0]) == pytest.approx((-0.5, 0.288675), abs=1e-6)
    with pytest.raises(ValueError, match="2 and 3 documents"):
        difference([1, 0], [1, 0, 1])


def test_reading_off_at_a_number_of_tokens_by_hand() -> None:
    stages = [{"tasks": ["a"], "start": 0}, {"tasks": ["b"], "start": 10}]
    points = [(0, 0, 0.0, 0.2), (10, 100, 0.8, 0.4), (20, 300, 0.6, 1.0)]
    rows = [
        {"prompt_mode": "system", "problems": problems, "tokens": tokens, "task": task, "accuracy": accuracy}
        for problems, tokens, *accuracies in points
        for task, accuracy in zip("ab", accuracies, strict=True)
    ]
    # so far: a alone 0 and .8, then both .8; in training: a 0 and .8, then b 1
    assert read_off(rows, stages, 100) == pytest.approx({"so far": 0.4, "online": 0.4, "all tasks": 0.6})
    # at 200 tokens, half way: 100 x .4 and 100 x .8; 100 x .4 and 100 x .85
    assert read_off(rows, stages, 200) == pytest.approx({"so far": 0.6, "online": 0.625, "all tasks": 0.7})
    # it ended at 300 and keeps what it had: (100 x .4 + 200 x .8 + 100 x .8) / 400, (40 + 180 + 100) / 400
    assert read_off(rows, stages, 400) == pytest.approx({"so far": 0.7, "online": 0.8, "all tasks": 0.8})
    still = [row | {"tokens": 0} for row in rows if row["problems"] == 0]
    assert read_off(still, stages, 50) == pytest.approx({"so far": 0.0, "online": 0.0, "all tasks": 0.1})


def test_accuracy_on_the_tasks_so_far_by_hand() -> None:
    stages = [{"tasks": ["a"], "start": 0}, {"tasks": ["b", "c"], "start": 20}]
    given = {0: (0.0, 0.3, 0.3), 20: (0.6, 0.3, 0.3), 30: (0.6, 0.9, 0.0), 40: (0.0, 0.9, 0.6)}
    rows = [
        {"problems": problems, "task": task, "prompt_mode": mode, "accuracy": value if mode == "system" else 1.0}
        for problems, values in given.items()
        for task, value in zip("abc", values, strict=True)
        for mode in ("system", "seed")
    ]
    curve = seen_so_far(rows, stages)
    assert curve == pytest.approx({0: 0.0, 20: 0.6, 30: 0.5, 40: 0.5}), "the second stage begins with problem 20"
    # (0 + .6) / 2 * 20 + (.6 + .5) / 2 * 10 + .5 * 10, over 40
    assert area(curve) == pytest.approx((6 + 5.5 + 5) / 40)
    assert area({0: 0.3}) == 0.3
