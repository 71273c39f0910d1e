"""From rows to splits: what is kept, what is skipped and named, and that content alone decides where a problem lies."""

import csv
import hashlib
import json
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tables import codeio, hover, physics, polaris

from fst_bench.tasks.data import DATA, FromRows, load, task_from
from fst_bench.tasks.data.read import NOT_UTF8

RTL = "כמה זה \u202e1+1\u202c? مرحبا"
Write = Any


def rows_of(task: str, folder: Path) -> Any:
    return load(DATA[task], str(folder))


def reasons(task: str, folder: Path) -> dict[str, str]:
    """Row -> why it was skipped."""
    return dict(rows_of(task, folder).skipped)


def task_of(task: str, folder: Path, **difficulty: Any) -> FromRows:
    made = task_from(str(folder), task, difficulty)
    assert isinstance(made, FromRows)
    return made


# --- quirks of the four data sets --------------------------------------------------------------------------------


def test_polaris_keeps_what_can_be_judged_and_names_the_rest(write: Write) -> None:
    good = polaris(40)
    odd = [
        {"problem": RTL, "answer": r"\frac{1}{2}", "difficulty": "3/8"},
        {"problem": "Which?", "answer": r"\text{(A)}", "difficulty": "0/8"},
        {"problem": "Where?", "answer": r"(-\infty, 2] \cup [3, \infty)", "difficulty": None},
        {"problem": "Number", "answer": 7},
        {"problem": "No answer", "difficulty": "1/8"},
        {"problem": "Null", "answer": None, "difficulty": "1/8"},
        {"problem": "   ", "answer": "1", "difficulty": "1/8"},
        {"problem": "Blank", "answer": " ", "difficulty": "1/8"},
        {"problem": ["a", "b"], "answer": "1", "difficulty": "1/8"},
        {"problem": "Truth", "answer": True, "difficulty": "1/8"},
        {"problem": "List", "answer": ["1"], "difficulty": "1/8"},
        {"problem": "Determinant", "answer": r"\begin{vmatrix}1&2\\3&4\end{vmatrix}", "difficulty": "1/8"},
        {"problem": "Sum", "answer": r"\sum_{i=1}^{9}i", "difficulty": "1/8"},
        {"problem": "Proof", "answer": "x " * 100, "difficulty": "1/8"},
        '{"problem": "lone \\ud800", "answer": "1", "difficulty": "1/8"}',
        "",
        "[1, 2]",
        "null",
        good[0],
        {**good[1], "problem": good[1]["problem"] + "  "},
        '{"problem": "torn", "ans',
    ]
    folder = write("polaris", good + odd)
    rows = rows_of("math", folder)
    assert len(rows.items) == 44
    assert reasons("math", folder) == {
        "45": "answer is missing or empty",
        "46": "answer is missing or empty",
        "47": "problem is missing or empty",
        "48": "answer is missing or empty",
        "49": "problem is not a text",
        "50": "answer is not a text",
        "51": "answer is not a text",
        "52": "an answer that math-verify does not read",
        "53": "an answer that math-verify does not read",
        "54": "an answer that math-verify does not read",
        "55": "text with a lone surrogate",
        "56": "an empty line",
        "57": "a line that is not a JSON object",
        "58": "a line that is not a JSON object",
        "59": "a repetition",
        "60": "a repetition",
        "61": "a line that is not JSON",
    }
    assert (
        rows.facts["kept"] == 44
        and sum(rows.facts["skipped"].values()) == 17
        and rows.facts["skipped"]["a repetition"] == 2
    )
    assert rows.facts["source"] == "polaris.jsonl"  # and no folder: a run's directory holds no path of a user's


def test_codeio_reads_mixed_types_line_by_line_and_each_pair_for_itself(write: Write) -> None:
    row = codeio(1)[0]
    mixed = {
        **row,
        "ios": [
            {"input": {"a": a}, "output": output}
            for a, output in enumerate((None, True, 3, 2.5, "é\u202e", [], [1, ["x"]], {"k": None}))
        ]
        + [
            {"input": {"a": 1}},
            {"output": 1},
            {"input": [1], "output": 1},
            {"input": "a=1", "output": 1},
            "pair",
            {"input": {"a": 1}, "output": float("nan")},
            {"input": {"a": float("inf")}, "output": 1},
            {"input": {"a": 2}, "output": 3},
            {"input": {"a": 1}, "output": json.loads("[" * 40 + "]" * 40)},
            {"input": {"a": 1}, "output": [{}] * 600},
            {"input": {"a": "\ud800"}, "output": 1},
        ],
    }
    others = [
        {**row, "ios": []},
        {**row, "ios": None},
        {**row, "ios": "[]"},
        {**row, "refcode": "x = 1"},
        {**row, "funcname": "main.py"},
        {**row, "refcode": "class A:\n    def main(self):\n        return 1"},
        {k: v for k, v in row.items() if k != "io_requirements"},
    ]
    folder = write("codeio", [mixed, *others, *codeio(20)[1:]])
    assert len(rows_of("codeio", folder).items) == 8 + 19 * 3
    assert reasons("codeio", folder) == {
        "1/9": "a pair without input or output",
        "1/10": "a pair without input or output",
        "1/11": "an input that is not a mapping of arguments",
        "1/12": "an input that is not a mapping of arguments",
        "1/13": "a pair without input or output",
        "1/14": "NaN or Infinity, which is not JSON",
        "1/15": "NaN or Infinity, which is not JSON",
        "1/16": "a repetition",
        "1/17": "an output too large to be read in an answer",
        "1/18": "an output too large to be read in an answer",
        "1/19": "text with a lone surrogate",
        "2": "ios holds no pairs",
        "3": "ios is missing or empty",
        "4": "ios holds no pairs",
        "5": "no such function in refcode",
        "6": "no such function in refcode",
        "7": "no such function in refcode",
        "8": "io_requirements is missing or empty",
    }


def test_hover_takes_both_kinds_of_labels_and_both_shapes_of_facts(write: Write) -> None:
    base = hover(1)[0]
    given = [
        {**base, "claim": "a", "label": "SUPPORTED"},
        {**base, "claim": "b", "label": "NOT_SUPPORTED"},
        {**base, "claim": "c", "label": 1.0, "num_hops": 3.0},
        {**base, "claim": "d", "supporting_facts": {"key": ["X", "Y", "X"], "value": [0, 1, 2]}},
        {**base, "claim": RTL, "supporting_facts": [{"key": "Cafe\u0301  Paris", "value": 0}]},
        {**base, "claim": "e", "label": -1},
        {**base, "claim": "f", "label": "REFUTED"},
        {**base, "claim": "g", "label": True},
        {**base, "claim": "h", "num_hops": None},
        {**base, "claim": "i", "num_hops": -1},
        {**base, "claim": "j", "supporting_facts": []},
        {**base, "claim": "k", "supporting_facts": [{"value": 0}]},
        {**base, "claim": "l", "supporting_facts": ["X"]},
        {**base, "claim": "m", "supporting_facts": [{"key": "Steins;Gate", "value": 0}]},
        {**base, "claim": "n", "supporting_facts": "none"},
    ]
    folder = write("hover", given + hover(20))
    by_claim = {i.content["claim"]: i.content for i in rows_of("hover", folder).items}
    assert [by_claim[c]["verdict"] for c in "abcd"] == ["SUPPORTED", "NOT_SUPPORTED", "SUPPORTED", "NOT_SUPPORTED"]
    assert by_claim["d"]["titles"] == ["X", "Y"] and by_claim[RTL]["titles"] == ["Caf\u00e9 Paris"]
    assert reasons("hover", folder) == {
        **dict.fromkeys(("6", "7", "8"), "label is neither SUPPORTED nor NOT_SUPPORTED"),
        "9": "num_hops is missing or empty",
        "10": "num_hops is not a number of hops",
        **dict.fromkeys(("11", "12", "13"), "supporting_facts names no titles"),
        "14": "a title with a semicolon",
        "15": "supporting_facts is not a list",
    }


def test_physics_as_csv_with_nan_and_ragged_records(tmp_path: Path) -> None:
    with (tmp_path / "physics.csv").open("w", encoding="utf-8-sig", newline="") as f:
        table = csv.writer(f)
        table.writerow(["question", "choices", "answer"])
        table.writerows([row["question"], json.dumps(row["choices"]), row["answer"]] for row in physics(12))
        table.writerow([f"{RTL}\nof two lines, with a comma", '["007", 8]', "(b)."])
        table.writerow(["NaN", '["1", "2"]', "A"])
        table.writerow(["no answer", '["1", "2"]', "NaN"])
        table.writerow(["an index", '["1", "2"]', "0"])
        table.writerow(["past the end", '["1", "2"]', "C"])
        table.writerow(["no list", "1, 2", "A"])
        table.writerow(["one", '["1"]', "A"])
        table.writerow(["a choice", '["1", null]', "A"])
        table.writerow(["short"])
        table.writerow(["long", '["1", "2"]', "A", "B"])
        f.write("\n")  # the csv reader passes over it
        f.flush()
        f.buffer.write(b'\xff,"[1, 2]",A\n')
    (odd,) = [i.content for i in rows_of("physics", tmp_path).items if RTL in i.content["question"]]
    assert odd["choices"] == ["007", "8"] and odd["letter"] == "B" and "\n" in odd["question"]
    assert reasons("physics", tmp_path) == {
        "14": "question is missing or empty",
        "15": "answer is missing or empty",
        "16": "answer is not a letter of the choices",
        "17": "answer is not a letter of the choices",
        "18": "choices is not a list",
        "19": "choices is not a list of 2 to 26",
        "20": "a choice that is not a text",
        "21": "choices is missing or empty",
        "22": "more cells than columns",
        "23": NOT_UTF8,
    }


@pytest.mark.parametrize(("stem", "task"), [("polaris", "math"), ("hover", "hover"), ("physics", "physics")])
def test_parquet_and_csv_give_what_jsonl_gives(tmp_path: Path, stem: str, task: str) -> None:
    made = {"polaris": polaris, "hover": hover, "physics": physics}[stem](20)
    for kind in ("jsonl", "parquet", "csv"):
        (tmp_path / kind).mkdir()
    (tmp_path / "jsonl" / f"{stem}.jsonl").write_text("\n".join(map(json.dumps, made)))
    pq.write_table(pa.Table.from_pylist(made), tmp_path / "parquet" / f"{stem}.parquet")
    with (tmp_path / "csv" / f"{stem}.csv").open("w", newline="") as f:
        table = csv.DictWriter(f, made[0])
        table.writeheader()
        table.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in made)
    found = [rows_of(task, tmp_path / kind).facts for kind in ("jsonl", "parquet", "csv")]
    assert len({facts["fingerprint"] for facts in found}) == 1 and found[0]["kept"] == 20


def test_a_csv_that_is_broken_in_places_loses_those_records_alone(tmp_path: Path) -> None:
    good = [f'"Question {i}?","[""1"", ""2""]",B\n' for i in range(30)]
    bad = [
        f'{"x" * 131_073},"[1, 2]",A\n',
        '"' + "y" * 200_000 + '\nQuestion?,""[1, 2]"",A\n","[1, 2]",A\n',  # its second line is no record
        '"a"b,"[1, 2]",A\n',
        '"Caf\u00e9?","[1, 2]",A\n',
        f'{"z" * 131_072},"[1, 2]",A\n',
    ]
    text = "question,choices,answer\n" + "".join([*good[:15], *bad, *good[15:], '"not closed,[],A\nand no more,[],A\n'])
    (tmp_path / "physics.csv").write_bytes(text.encode("cp1252"))
    assert reasons("physics", tmp_path) == {
        "16": "a cell over 131,072 characters",
        "17": "a cell over 131,072 characters",
        "18": "a record that is not csv (',' expected after '\"')",
        "19": NOT_UTF8,
        "36": "a record that is not csv (unexpected end of data)",
    }
    assert len(rows_of("physics", tmp_path).items) == 31


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_another_encoding_is_named(tmp_path: Path, encoding: str, ending: str) -> None:
    rows = {
        "csv": "problem,answer,difficulty\n" + "".join(f"Na\u00efve {i}?,{i},\n" for i in range(9)),
        "jsonl": "".join(f'{{"problem": "Na\u00efve {i}?", "answer": "{i}"}}\n' for i in range(9)),
    }
    (tmp_path / f"polaris.{ending}").write_bytes(rows[ending].encode(encoding))
    assert NOT_UTF8 in complaint("math", str(tmp_path))


def test_lists_in_a_csv_may_be_spelled_as_python_does(tmp_path: Path) -> None:
    spelled = {
        "['1 m', '2 m']": ["1 m", "2 m"],
        '["it\'s 1", 2.5]': ["it's 1", "2.5"],
        r"['\\frac{1}{2}', '\(x\)']": [r"\frac{1}{2}", r"\(x\)"],
        "[ 'a',\n 'b' ]": ["a", "b"],
    }
    others = ["('1', '2')", "{'1', '2'}", "[f(1), 2]", "[" * 2000, "[1, 2", "__import__('os')", "['1' '2']"]
    with (tmp_path / "physics.csv").open("w", newline="") as f:
        table = csv.writer(f)
        table.writerow(["question", "choices", "answer"])
        table.writerows([f"Q{i}", choices, "B"] for i, choices in enumerate([*spelled, *others]))
        table.writerows([row["question"], repr(row["choices"]), row["answer"]] for row in physics(10))
    choices = {i.content["question"]: i.content["choices"] for i in rows_of("physics", tmp_path).items}
    assert [choices[f"Q{i}"] for i in range(len(spelled))] == list(spelled.values()) and len(choices) == 14
    assert list(reasons("physics", tmp_path).values()) == ["choices is not a list"] * 6 + [
        "choices is not a list of 2 to 26"
    ]


def test_hover_reads_its_own_pairs_and_titles_with_html_entities(write: Write) -> None:
    base = hover(1)[0]
    facts = [
        [["Simon &amp; Garfunkel", 0], ["Caf&eacute; M&Microphone", "A sentence."], ["AT&T", 1]],
        "[('A &#38; B', 0), ('C', 1)]",
        [["X"]],
        [["X", 0], "Y"],
        [["Steins;Gate &amp; more", 0]],
        [["One &nosuchentity; two", 0]],
    ]
    given = [{**base, "claim": f"c{i}", "supporting_facts": fact} for i, fact in enumerate(facts)]
    folder = write("hover", given + hover(10))
    titles = {i.content["claim"]: i.content["titles"] for i in rows_of("hover", folder).items}
    assert titles["c0"] == ["AT&T", "Caf\u00e9 M&Microphone", "Simon & Garfunkel"] and titles["c1"] == ["A & B", "C"]
    assert reasons("hover", folder) == {
        **dict.fromkeys(("3", "4"), "supporting_facts names no titles"),
        **dict.fromkeys(("5", "6"), "a title with a semicolon"),
    }


def test_a_problem_with_two_gold_answers_is_unusable_in_all_its_rows(write: Write) -> None:
    """Which one is right, nobody says; the same value in other words is no contradiction."""
    write(
        "polaris",
        [
            *polaris(10),
            {"problem": "How many?", "answer": "3", "difficulty": "1/8"},
            {"problem": "How  many?", "answer": "4", "difficulty": "1/8"},
            {"problem": "Half?", "answer": "0.5", "difficulty": "1/8"},
            {"problem": "Half?", "answer": r"\frac{1}{2}", "difficulty": "1/8"},
        ],
    )
    base, (function,) = hover(1)[0], codeio(1)
    write("hover", [*hover(10), {**base, "label": 1 - base["label"]}, {**hover(2)[1], "num_hops": 4}])
    write("physics", [*physics(10), {**physics(1)[0], "answer": "C"}, {**physics(2)[1], "choices": ["1", "2"]}])
    outputs = [{"s": -1, "t": []}, {"s": 2, "t": [1, 0.50001]}]
    again = [{**pair, "output": output} for pair, output in zip(function["ios"], outputs, strict=False)]
    folder = write("codeio", [function, {**function, "ios": again}, *codeio(5)[1:]])
    two = "a problem with two gold answers"
    assert reasons("math", folder) == {"11": two, "12": two}
    assert reasons("hover", folder) == {"1": two, "11": two}
    assert reasons("physics", folder) == {"1": two, "11": two}
    assert reasons("codeio", folder) == {"1/1": two, "2/1": two}


VOLATILE = [
    "return hash(str(n))",
    "return list({'a', 'b', 'c', str(n)})",
    "return random.random()",
    "return 1 // (random.random() > 0.5)",
    "return os.urandom(4).hex()",
    "return time.time()",
    "return int(time.time()) // 60",
    "return datetime.datetime.now().year - n",
    "return datetime.date.today().isoformat()",
    "return time.strftime('%A')",
    "return time.monotonic()",
    "LOG.append(n)\n    return len(LOG)",
    "return repr(object())",
]
STEADY = [
    "random.seed(n)\n    return random.random()",
    "return sorted({'a', 'b', str(n)})",
    "return sum({'a': 0.1, 'b': 0.2, 'c': 0.3}[k] for k in {'a', 'b', 'c'})",  # its last digit depends on the order
    "CACHE.setdefault(n, n * 2)\n    return CACHE[n]",
    "return repr(datetime.datetime(2024, 1, 1) + datetime.timedelta(n))",
    "n = [n]\n    n.append(1)\n    return n",
    "return 1 // 0",
    "return {n}",
    "raise SystemExit",
    "while True:\n        pass",
    "os._exit(0)",
]


def test_functions_that_contradict_themselves_are_unusable(write: Write) -> None:
    head = "import datetime, os, random, time\nLOG = []\nCACHE = {}\n"
    made = [
        {
            "refcode": f"{head}def main(n):\n    {body}",
            "funcname": "main",
            "io_requirements": "n is an integer",
            "ios": [{"input": {"n": n}, "output": 0} for n in (1, 2)],
        }
        for body in VOLATILE + STEADY
    ]
    folder = write("codeio", [*made, *codeio(5)])
    found = {number.partition("/")[0]: why for number, why in reasons("codeio", folder).items()}
    assert found == {str(i): "a function that contradicts itself" for i in range(1, len(VOLATILE) + 1)}


# --- what cannot be read at all ----------------------------------------------------------------------------------


def complaint(task: str, data: str) -> str:
    with pytest.raises(ValueError) as raised:
        task_from(data, task, {})
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_file_that_is_not_there_or_another_one_is_named_with_its_columns(write: Write, tmp_path: Path) -> None:
    assert (
        "no codeio.jsonl: codeio requires one, with the columns refcode, funcname, io_requirements, ios"
        in complaint("codeio", str(tmp_path))
    )
    assert "no physics.jsonl or physics.parquet or physics.csv" in complaint("physics", str(tmp_path))
    folder = write("hover", [{"text": "x", "label": 1}] * 3)
    said = complaint("hover", str(folder))
    assert "hover.jsonl: 3 of 3 rows are unusable (3 x claim is missing or empty (first in row 1))" in said
    assert "hover requires the columns claim, supporting_facts, label, num_hops" in said
    (tmp_path / "hover.csv").write_text("claim,label\n")
    assert "more than one of hover.jsonl or hover.parquet or hover.csv" in complaint("hover", str(folder))
    assert "0 of 0 rows are unusable (it is empty)" in complaint("math", str(write("polaris", [])))
    (tmp_path / "physics.parquet").write_bytes(b"PAR1 and no more")
    assert "cannot read" in complaint("physics", str(tmp_path))
    assert "no physics exists on the hub: the paper does not name the set" in complaint("physics", "hub")


ODD = ["9" * 5_000, "['a', 'b']", "['a'", "(B).", "SUPPORTED", "[" * 3_000, "&amp;;", "x" * 140_000]
LISTS: list[Any] = [[], [["X", 0]], [{"key": 1}], [{"key": "X"}], {"key": []}, [1.5, None]]
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
CELLS = PLAIN | st.sampled_from(ODD) | st.sampled_from(LISTS)


@given(
    st.sampled_from(["hover", "physics"]),
    st.sampled_from(["jsonl", "csv", "parquet"]),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), CELLS), max_size=6),
    st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 9), st.binary(max_size=4)), max_size=4),
)
@settings(max_examples=120)
def test_any_file_is_rows_and_reasons_or_one_line(
    stem: str, ending: str, cells: list[tuple[int, int, Any]], cuts: list[tuple[int, int, bytes]]
) -> None:
    rows = {"hover": hover, "physics": physics}[stem](10)
    for number, column, cell in cells:
        rows[number][list(rows[0])[column % len(rows[0])]] = cell
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{stem}.{ending}"
        if ending == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif ending == "csv":
            with path.open("w", newline="", errors="surrogatepass") as f:
                table = csv.DictWriter(f, rows[0])
                table.writeheader()
                table.writerows(rows)
        else:
            texts = [{name: ascii(cell) for name, cell in row.items()} for row in rows]
            pq.write_table(pa.Table.from_pylist(texts), path)
        data = path.read_bytes()
        for start, length, put in cuts:
            data = data[:start] + put + data[start + length :]
        path.write_bytes(data)
        try:
            found = rows_of(stem, Path(folder))
        except ValueError as error:
            assert "\n" not in str(error) and stem in str(error)
        else:
            assert len(found.skipped) <= len(found.items) and all(why and "\n" not in why for _, why in found.skipped)


def test_more_unusable_rows_than_usable_ones_are_an_error_and_half_of_them_are_not(write: Write) -> None:
    assert len(rows_of("math", write("polaris", polaris(5) + [{}] * 5)).items) == 5
    assert "6 of 11 rows are unusable (6 x problem is missing or empty (first in row 6))" in complaint(
        "math", str(write("polaris", polaris(5) + [{}] * 6))
    )


def test_a_file_that_changed_is_read_again(write: Write) -> None:
    before = rows_of("math", write("polaris", polaris(10))).facts
    after = rows_of("math", write("polaris", polaris(11))).facts
    assert (before["kept"], after["kept"]) == (10, 11) and before["fingerprint"] != after["fingerprint"]


# --- splits ------------------------------------------------------------------------------------------------------


def test_splits_are_those_of_the_procedural_tasks_hash(write: Write) -> None:
    task = task_of("math", write("polaris", polaris(200)))
    for split, buckets in (("test", {0, 1}), ("train", set(range(2, 10))), ("pretrain", set(range(10, 20)))):
        wanted = {
            row["problem"]
            for row in polaris(200)
            if int(hashlib.sha256(f"math/{row['problem']}".encode()).hexdigest()[:8], 16) % 20 in buckets
        }
        assert {i.content["problem"] for i in task.pools[split]} == wanted
        assert len(wanted) > 10


def test_one_function_never_lies_in_two_splits(write: Write) -> None:
    folder = write("codeio", codeio(60))
    for direction in ("output", "input"):
        task = task_of("codeio", folder, direction=direction)
        where: dict[str, set[str]] = {}
        for split, pool in task.pools.items():
            for i in pool:
                where.setdefault(i.content["refcode"], set()).add(split)
        assert len(where) == 60 and all(len(splits) == 1 for splits in where.values())
        assert {split for splits in where.values() for split in splits} == {"train", "test", "pretrain"}


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.randoms(use_true_random=False), seed=st.integers(0, 10**6), index=st.integers(0, 200))
def test_the_order_of_a_file_changes_nothing(write: Write, order: random.Random, seed: int, index: int) -> None:
    made = hover(60)
    straight = task_of("hover", write("hover", made), hops=2)
    order.shuffle(made)
    with tempfile.TemporaryDirectory() as other:  # the same path could still be the same file to the clock
        Path(other, "hover.jsonl").write_text("\n".join(map(json.dumps, made)))
        shuffled = task_of("hover", Path(other), hops=2)
    assert shuffled.rows.facts == straight.rows.facts
    assert shuffled.problem("train", seed, index) == straight.problem("train", seed, index)


def test_train_goes_through_every_row_once_an_epoch_in_an_order_of_the_seed(folder: Path) -> None:
    task = task_of("math", folder)
    n = task.sizes["train"]
    ids = {seed: [task.problem("train", seed, i).id for i in range(2 * n)] for seed in (0, 1)}
    for seed in (0, 1):
        assert set(Counter(ids[seed][:n]).values()) == set(Counter(ids[seed][n:]).values()) == {1}
    assert len({tuple(part) for seed in (0, 1) for part in (ids[seed][:n], ids[seed][n:])}) == 4
    again = task_of("math", folder)
    assert again.problem("train", 1, 2 * n - 1).id == ids[1][-1]  # whatever was drawn before


def test_test_is_the_same_for_every_seed_and_has_an_end(folder: Path) -> None:
    task = task_of("hover", folder)
    n = task.sizes["test"]
    assert task.problems("test", 0) == task.problems("test", 7) and len({p.id for p in task.problems("test")}) == n
    with pytest.raises(
        ValueError, match=rf"hover.jsonl has {n} test problems of hover at this difficulty, number {n + 1} is required"
    ):
        task.problem("test", 0, n)
    with pytest.raises(ValueError, match="has 0 train problems"):
        task_of("hover", folder, max_characters=5).problem("train", 0, 0)
    with pytest.raises(ValueError, match="did you mean test"):
        task.problem("tset", 0, 0)  # type: ignore[arg-type]


# --- difficulties ------------------------------------------------------------------------------------------------


def test_parameters_choose_among_the_rows(folder: Path) -> None:
    hops = {p.data["hops"] for p in task_of("hover", folder).problems("train")}
    assert hops == {3, 4}  # hard is three or more
    assert {p.data["hops"] for p in task_of("hover", folder, hops=2).problems("train")} == {2, 3, 4}
    assert {p.data["eighths"] for p in task_of("math", folder, min_eighths=2, max_eighths=3).problems("train")} == {
        2,
        3,
    }
    longest = max(len(p.prompt) for p in task_of("math", folder).problems("train"))
    assert max(len(p.prompt) for p in task_of("math", folder, max_characters=longest - 1).problems("train")) < longest


def test_a_row_without_a_mark_is_left_out_only_where_a_band_is_asked_for(write: Write) -> None:
    folder = write("polaris", [{**row, "difficulty": "hard"} for row in polaris(40)])
    assert task_of("math", folder).sizes["train"] > 0
    assert task_of("math", folder, max_eighths=7).sizes["train"] == 0


@pytest.mark.parametrize("task", DATA)
def test_the_format_is_stated_in_the_problem_where_it_is_given(folder: Path, task: str) -> None:
    for difficulty in DATA[task].levels:
        plain, given_ = task_of(task, folder, **difficulty), task_of(task, folder, **difficulty, format_given=True)
        p, q = plain.problem("train", 0, 0), given_.problem("train", 0, 0)
        assert q.prompt == f"{p.prompt}\n{plain.protocol}" and q.id == p.id and plain.protocol not in p.prompt


def test_a_parameter_of_the_procedural_task_is_an_error_that_lists_what_exists(folder: Path) -> None:
    known = "format_given, max_characters, max_eighths, min_eighths"
    with pytest.raises(ValueError, match=rf"difficulty of math with data: unknown key 'operations'.*{known}"):
        task_from(str(folder), "math", {"operations": 3})
    with pytest.raises(ValueError, match="direction"):
        task_from(str(folder), "codeio", {"direction": "both"})
