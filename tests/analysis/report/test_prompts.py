"""The changes between two prompts are exact and read well."""

import random

import pytest

from fst_bench.analysis.report.prompts import LONGEST, changes, cycles
from fst_bench.harness.rows import PopulationRow

BASE = "Solve the problem. End with the final answer."


@pytest.mark.parametrize("seed", range(30))
def test_both_prompts_can_be_read_back(seed):
    rng = random.Random(seed)

    words = ["a", "bc", "Solve it", " ", "  ", "\n", ". ", "! ", ": ", "é", "<b>", ".", "1.5"]

    def text():
        return "".join(rng.choice(words) for _ in range(rng.randrange(40)))

    before, after = text(), text()
    pieces = changes(before, after)
    assert "".join(part for kind, part in pieces if kind != "removed") == after
    assert "".join(part for kind, part in pieces if kind != "added") == before
    assert all(part for _, part in pieces)


def test_nothing_changed():
    assert changes(BASE, BASE) == [("same", BASE)]
    assert changes("", "") == []


def test_a_new_sentence_is_one_piece():
    assert changes(BASE, BASE + " Check it twice.") == [("same", BASE), ("added", " Check it twice.")]


def test_a_reworded_sentence_is_compared_by_words():
    assert changes("End with the final answer.", "End with the boxed answer.") == [
        ("same", "End with the "),
        ("removed", "final"),
        ("added", "boxed"),
        ("same", " answer."),
    ]


def test_another_sentence_is_replaced_whole():
    assert changes("End with the final answer.", "Trace back from the goal.") == [
        ("removed", "End with the final answer."),
        ("added", "Trace back from the goal."),
    ]


def test_cycles_follow_the_best():
    def row(step, *prompts):
        population = [{"prompt": prompt, "score": 0.5} for prompt in prompts]
        return PopulationRow(step=step, problems=16 * step, stage=1, population=population)

    first, second = cycles([row(0, BASE + " A.", "B."), row(10, BASE + " A.")], BASE, {1: "math"})
    assert (first.row.step, second.row.step) == (0, 10)
    assert first.changes == [("same", BASE), ("added", " A.")]
    assert [(other.prompt, other.score) for other in first.others] == [("B.", 0.5)]
    assert second.changes == [("same", BASE + " A.")] and second.task == "math"


def test_prompts_too_long_to_compare_are_replaced_whole():
    before, after = "word " * LONGEST, "other " * LONGEST
    assert changes(before, after) == [("removed", before), ("added", after)]
    assert changes(before, before) == [("same", before)] and changes("", after) == [("added", after)]
