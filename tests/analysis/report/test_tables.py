"""Nested records of any shape become readable tables."""

import pytest

from fst_bench.analysis.report.tables import Table, number, tables


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "True"),
        (12345, "12,345"),
        (0, "0"),
        (0.013249, "0.01325"),
        (1234.56, "1,235"),
        (float("nan"), "nan"),
        (">672", ">672"),
        ([0.9, 95], "0.9, 95"),
    ],
)
def test_numbers_read_well(value, text):
    assert number(value) == text


def test_flat_records_are_one_table():
    assert tables({"a": 1, "b": None}) == [Table("", [], [("a", [1]), ("b", [None])])]
    assert tables({}) == []


def test_unlike_parts_are_tables_of_their_own():
    assert tables({"a": 1, "b": {"c": 2}, "d": {"e": {"f": 3}}}) == [
        Table("overall", [], [("a", [1])]),
        Table("b", [], [("c", [2])]),
        Table("d.e", [], [("f", [3])]),
    ]


def test_like_parts_stand_side_by_side_the_longer_way_down():
    matrix = {"0": {"math": 0.1, "hover": 0.2}, "1": {"math": 0.3, "hover": 0.4}, "2": {"math": 0.5}}
    assert tables({"matrix": {"system": matrix}}) == [
        Table("matrix.system", ["math", "hover"], [("0", [0.1, 0.2]), ("1", [0.3, 0.4]), ("2", [0.5, None])])
    ]
    modes = {"system": {"a": 1, "b": 2, "c": 3}, "seed": {"a": 4, "b": 5, "c": 6}}
    assert tables(modes) == [Table("", ["system", "seed"], [("a", [1, 4]), ("b", [2, 5]), ("c", [3, 6])])]


def test_lists_of_records_are_numbered():
    assert tables({"stages": [{"task": "math", "end": {"seed": 0.1}}]}) == [
        Table("stages.1", [], [("task", ["math"])]),
        Table("stages.1.end", [], [("seed", [0.1])]),
    ]
