"""What earns a reward on rows of the real data sets, and what a reader learns where nothing is earned."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tables import codeio

from fst_bench.core.types import Status
from fst_bench.tasks import Problem, Score, Task
from fst_bench.tasks.data import DATA, load, task_from
from fst_bench.tasks.data.codeio import CodeioRows

Write = Any


@pytest.mark.parametrize(
    ("name", "level"), [(name, level) for name, kind in DATA.items() for level in range(len(kind.levels))]
)
def test_gold_earns_one_and_every_wrong_text_zero(folder: Path, name: str, level: int) -> None:
    task = task_from(str(folder), name, DATA[name].levels[level])
    for problem in task.problems("test", 0, 5):
        gold = task.verify(problem, f"Some words first.\n{task.write(problem.answer)}")
        assert (gold.reward, gold.status) == (1.0, "ok"), gold
        thought = task.verify(
            problem, f"<think>\n{task.wrong_texts(problem)[1]}\n</think>\n{task.write(problem.answer)}"
        )
        assert thought.reward == 1.0
        assert len(task.wrong_texts(problem)) >= 6
        for text in task.wrong_texts(problem):
            wrong = task.verify(problem, text)
            assert wrong.reward == 0.0 and wrong.status in ("wrong", "unparseable"), text
            assert "\n" not in wrong.feedback and (task.hint in wrong.feedback) == ("\n" not in text)


# --- math --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gold", "content", "right"),
    [
        (r"\frac{1}{2}", "0.5", True),
        ("0.5", r"\frac{1}{2}", True),
        ("$\\frac{1}{2}$", r"\dfrac{2}{4}", True),
        (r"\frac{1}{3}", "0.3", False),
        ("1,000", "1000", True),
        ("2", "2.0", True),
        ("-3", "3", False),
        (r"\{1, 2\}", r"\{2, 1\}", True),
        (r"\{1, 2\}", "1", False),
        (r"[0, 1)", r"[0,1)", True),
        (r"[0, 1)", r"[0,1]", False),
        (r"(-\infty, 2] \cup [3, \infty)", r"[3,\infty) \cup (-\infty,2]", True),
        (r"\text{(A)}", "A", True),
        (r"\text{(A)}", r"\text{A}", True),
        (r"\text{(A)}", "B", False),
        (r"\text{Yes}", "yes", True),
        (r"\text{Yes}", "no", False),
        ("x = 3", "3", True),
        ("2x+1", "1 + 2x", True),
        ("2x+1", "2x", False),
        (r"2\sqrt{3}", r"\sqrt{12}", True),
        (r"30^\circ", "30", True),
    ],
)
def test_math_golds_in_latex(write: Write, gold: str, content: str, right: bool) -> None:
    task = task_from(str(write("polaris", [{"problem": "?", "answer": gold, "difficulty": "1/8"}])), "math", {})
    verdict = task.verify(Problem("math-0", "?", gold, {}), f"So \\boxed{{{content}}}")
    assert (verdict.status == "ok") == right
    assert right or f"but the right value is {gold}." in verdict.feedback


# --- codeio ------------------------------------------------------------------------------------------------------


def codeio_problem(folder: Path, direction: str, given: dict[str, Any]) -> tuple[Task, Problem]:
    """The problem of function 0 whose arguments are `given`, wherever it lies."""
    task = task_from(str(folder), "codeio", {"direction": direction})
    assert isinstance(task, CodeioRows)
    (content,) = [i.content for i in task.rows.items if i.content["input"] == given and "+ 0" in i.content["refcode"]]
    prompt, answer = task.ask(content)
    return task, Problem("codeio-0", prompt, answer, content)


def test_codeio_shows_the_function_and_asks_for_the_other_side(folder: Path) -> None:
    row = codeio(1)[0]
    for direction, shown, hidden, question in (
        ("output", '{"a": 2, "b": 2}', '"s": 4', "main is called with the arguments"),
        ("input", '{"s": 4, "t": [2, 0.5]}', '"a": 2', "Which arguments was it called with?"),
    ):
        _, problem = codeio_problem(folder, direction, {"a": 2, "b": 2})
        assert problem.prompt.startswith(row["refcode"]) and row["io_requirements"] in problem.prompt
        assert shown in problem.prompt and hidden not in problem.prompt and question in problem.prompt


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ('{"s": 4, "t": [2, 0.5]}', True),
        ('{"t": [2.0, 0.5004], "s": 4}', True),
        ('{"s": 4, "t": [2, 0.501]}', False),
        ('{"s": 4.001, "t": [2, 0.5]}', False),
        ('{"s": 4, "t": [2, 0.5, 0]}', False),
        ('{"s": 4}', False),
        ('{"s": 4, "t": [2, 0.5], "u": null}', False),
        ('"{\\"s\\": 4, \\"t\\": [2, 0.5]}"', False),
    ],
)
def test_codeio_output(folder: Path, output: str, right: bool) -> None:
    task, problem = codeio_problem(folder, "output", {"a": 2, "b": 2})
    verdict = task.verify(problem, f'I step through it.\n{{"output": {output}}}')
    assert (verdict.status == "ok") == right
    assert right or 'the right output is {"s":4,"t":[2,0.5]}.' in verdict.feedback


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ('{"a": 2, "b": 2}', "ok", ""),
        ('{"a": 2.0, "b": 2.0}', "ok", ""),
        ('{"a": 2, "b": 2, "c": 1}', "wrong", "unexpected keyword argument"),
        (
            '{"a": 3, "b": 2}',
            "wrong",
            'With the arguments {"a":3,"b":2} the function returns {"s":6,"t":[3,0.5]}, '
            'but it should return {"s":4,"t":[2,0.5]}.',
        ),
        ('{"a": "x", "b": 2}', "wrong", "fails (TypeError"),
        ('{"a": null, "b": []}', "wrong", "fails ("),
        ("[2, 2]", "unparseable", "an object from argument names to values was expected"),
        ('"__import__(1)"', "unparseable", "an object from argument names"),
        ("{2, 2}", "unparseable", "JSON object with the key input"),
    ],
)
def test_codeio_input_is_run_in_the_sandbox(folder: Path, answer: str, status: str, said: str) -> None:
    task, problem = codeio_problem(folder, "input", {"a": 2, "b": 2})
    verdict = task.verify(problem, f'Backwards.\n{{"input": {answer}}}')
    assert verdict.status == status and said in verdict.feedback, verdict


CODE = """
def main(n):
    if n == 1:
        while True:
            pass
    if n == 2:
        return "x" * 10**7
    if n == 3:
        return [0] * 10**10
    if n == 4:
        value = 0
        for _ in range(500):
            value = [value]
        return value
    if n == 5:
        return float("nan")
    return n % 7
"""


@pytest.mark.parametrize(
    ("n", "status", "said"),
    [
        (17, "ok", ""),  # another input than the data's gives the same output
        (1, "timeout", "does not end in time; it should return 3."),
        (2, "crash", "ended without a value (output"),
        (3, "crash", "ended without a value (memory"),
        (4, "wrong", "returns a value nested too deep to show, but it should return 3."),
        (5, "wrong", "fails ("),
    ],
)
def test_codeio_input_with_other_ends(write: Write, n: int, status: str, said: str) -> None:
    row = {
        "refcode": CODE,
        "funcname": "main",
        "io_requirements": "n (int)",
        "ios": [{"input": {"n": 10}, "output": 3}],
    }
    task = task_from(str(write("codeio", [row])), "codeio", {"direction": "input"})
    assert isinstance(task, CodeioRows)
    content = task.rows.items[0].content
    verdict = task.verify(Problem("codeio-0", *task.ask(content), content), f'{{"input": {{"n": {n}}}}}')
    assert verdict.status == status and said in verdict.feedback, verdict


SELF_CONTAINED = [
    "import math, json",
    "import os.path as p, re",
    "from collections import Counter",
    "from math import *\nROOT = sqrt(2)",
    "import importlib\nDECODER = importlib.import_module('json.decoder')",
    '"""Take a word\nfrom the list\nimport it from there"""',
    "# import numpy",
    "TEXT = 'import numpy as np'",
    "class A:\n    x = 1\n\n    def m(self):\n        return [y for z in (self.x,) if (y := z)]",
    "def setting():\n    global K\n    K = 1\n\ndef reading():\n    return K",
    "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    print(error, __name__)",
]
NOT_SELF_CONTAINED = [
    "import math, numpy as np",
    "import sklearn.linear_model",
    "from numpy import array",
    "from . import helpers",
    "ARRAY = __import__('numpy')",
    "import importlib\nARRAY = importlib.import_module('numpy.linalg')",
    "from importlib import import_module\nFRAME = import_module('pandas')",
    "NAME = 'numpy'\nANY = __import__(NAME)",
    "def other():\n    import torch",
    "def other(a):\n    return np.array(a)",
    "def other(a: List[int]):\n    return a",
    "def other():\n    exit()",
]


def test_functions_that_require_more_than_the_sandbox_has_have_no_input_problems(write: Write) -> None:
    row = codeio(1)[0]
    codes = [f"{line}\n{row['refcode']}" for line in SELF_CONTAINED + NOT_SELF_CONTAINED]
    folder = write("codeio", [{**row, "refcode": code} for code in codes])
    kept = {}
    for direction in ("output", "input"):
        task = task_from(str(folder), "codeio", {"direction": direction})
        assert isinstance(task, CodeioRows)
        kept[direction] = {i.content["refcode"] for i in task.rows.items if task.wanted(i.content)}
    assert kept["output"] == {*codes} and kept["input"] == {*codes[: len(SELF_CONTAINED)]}


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("def main(:", "refcode that is not Python"),
        ("def main(a): \x00", "refcode that is not Python"),
        ("def main(a): pass\n" + "(" * 9_999, "refcode that is not Python"),
        ("TEXT = '''\ndef main(a):\n'''", "no such function in refcode"),
        ("if True:\n    def main(a): pass", "no such function in refcode"),
    ],
)
def test_refcode_is_parsed_and_not_matched(write: Write, code: str, why: str) -> None:
    rows = load(DATA["codeio"], str(write("codeio", [{**codeio(1)[0], "refcode": code}, *codeio(5)[1:]])))
    assert rows.skipped == (("1", why),)


# --- hover -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("VERDICT: NOT_SUPPORTED EVIDENCE: Amélie; Paris; Montmartre", "ok", ""),
        ("VERDICT: NOT SUPPORTED\nEVIDENCE:\nMontmartre;  Paris;Ame\u0301lie", "ok", ""),
        ("**VERDICT:** NOT SUPPORTED.\n**EVIDENCE:** “Amélie”; **Paris**; Montmartre;", "ok", ""),
        ("VERDICT: SUPPORTED or NOT SUPPORTED EVIDENCE: Amélie; Paris; Montmartre", "unparseable", "is none of"),
        (
            "VERDICT: SUPPORTED EVIDENCE: Amélie; Paris; Montmartre",
            "wrong",
            "The verdict is SUPPORTED, but the claim is NOT_SUPPORTED.",
        ),
        (
            "VERDICT: NOT_SUPPORTED EVIDENCE: Amélie; Lyon",
            "wrong",
            "The evidence lacks Montmartre; Paris. The claim does not rest on Lyon.",
        ),
        (
            "VERDICT: NOT_SUPPORTED EVIDENCE: amélie; Paris; Montmartre",
            "wrong",
            "The evidence lacks Amélie. The claim does not rest on amélie.",
        ),
        (
            "VERDICT: NOT_SUPPORTED EVIDENCE: Amélie; Paris; Paris; Montmartre",
            "wrong",
            "Each title is to be given once.",
        ),
        (
            "VERDICT: REFUTED EVIDENCE: Amélie; Paris; Montmartre",
            "unparseable",
            "'REFUTED' is none of SUPPORTED, NOT_SUPPORTED",
        ),
        ("VERDICT: NOT_SUPPORTED", "unparseable", "labels VERDICT: and EVIDENCE:"),
    ],
)
def test_hover_requires_the_verdict_and_exactly_the_titles(write: Write, text: str, status: str, said: str) -> None:
    facts = [{"key": key, "value": 0} for key in ("Paris", "Amélie", "Paris", "Montmartre")]
    folder = write(
        "hover",
        [{"claim": "Amélie is set in Lyon.", "supporting_facts": facts, "label": "NOT_SUPPORTED", "num_hops": 3}],
    )
    task = task_from(str(folder), "hover", {})
    content = task.rows.items[0].content  # type: ignore[attr-defined]
    verdict = task.verify(Problem("hover-0", *task.ask(content), content), text)  # type: ignore[attr-defined]
    assert verdict.status == status and said in verdict.feedback


# --- physics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("ANSWER: B", "ok", ""),
        ("ANSWER: (b).", "ok", ""),
        ("ANSWER: A\nANSWER:\nB\n", "ok", ""),
        ("**ANSWER:** B", "ok", ""),
        ("**ANSWER: (B).**", "ok", ""),
        ("**ANSWER:** B, C", "unparseable", "none of the letters"),
        ("ANSWER: C", "wrong", "ANSWER: says C (3 m), but B (2 m) is right."),
        ("ANSWER: D", "unparseable", "none of the letters A, B, C"),
        ("ANSWER: 2 m", "unparseable", "ANSWER: says 2 m, which is none of the letters"),
        ("ANSWER: B or C", "unparseable", "none of the letters"),
        ("B", "unparseable", "expected after ANSWER:"),
        ("ANSWER: Ｂ", "unparseable", "none of the letters"),
    ],
)
def test_physics_requires_a_letter(write: Write, text: str, status: str, said: str) -> None:
    task = task_from(
        str(write("physics", [{"question": "How far?", "choices": ["1 m", "2 m", "3 m"], "answer": "B"}])),
        "physics",
        {},
    )
    content = task.rows.items[0].content  # type: ignore[attr-defined]
    prompt, answer = task.ask(content)  # type: ignore[attr-defined]
    assert prompt == "How far?\nA. 1 m\nB. 2 m\nC. 3 m"
    verdict = task.verify(Problem("physics-0", prompt, answer, content), text)
    assert verdict.status == status and said in verdict.feedback


# --- adversarial texts


def frame(name: str, direction: str, inside: str) -> str:
    return {
        "math": f"\\boxed{{{inside}}}",
        "codeio": f'{{"{direction}": {inside}}}',
        "hover": f"VERDICT: SUPPORTED EVIDENCE: {inside}",
        "physics": f"ANSWER: {inside}",
    }[name]


def check(verdict: Score) -> None:
    assert verdict.reward == 0.0 and verdict.status in set(get_args(Status)) - {"ok"}
    for line in (verdict.feedback, verdict.answer or ""):
        assert line.isprintable() and len(line) < 1_000
        line.encode()


CASES = [(name, difficulty) for name, kind in DATA.items() for difficulty in kind.levels[:2]]


@pytest.mark.parametrize(("name", "difficulty"), CASES)
@settings(max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(exclude_categories=()))
    | st.sampled_from(["{" * 9_000, "\ud800", '{"a": "\\ud800"}', "9" * 5_000, ";" * 300, "\u202e"])
)
def test_any_text_gets_a_verdict_and_no_reward(folder: Path, name: str, difficulty: dict[str, Any], text: str) -> None:
    task = task_from(str(folder), name, difficulty)
    problem = task.problem("test", 0, 0)
    assume(problem.answer not in text)
    for adversarial in (
        text,
        frame(name, "output", text),
        frame(name, "input", text),
        frame(name, "input", json.dumps({"x": text})),
    ):
        check(task.verify(problem, adversarial))


@pytest.mark.parametrize("name", DATA)
def test_golds_of_any_length_stay_printable_in_feedback(write: Write, name: str) -> None:
    long = "é\u202e\n" * 400
    row = {
        "math": {"problem": "?", "answer": "1" + "+1" * 19, "difficulty": None},
        "codeio": {**codeio(1)[0], "ios": [{"input": {"a": 1, "b": 2}, "output": [long]}]},
        "hover": {
            "claim": "c",
            "supporting_facts": [{"key": f"é\u202e {i} {'x' * 90}", "value": 0} for i in range(30)],
            "label": 1,
            "num_hops": 3,
        },
        "physics": {"question": "q", "choices": [long, "x"], "answer": "A"},
    }[name]
    task = task_from(str(write(DATA[name].stem, [row])), name, {"max_characters": 100_000})
    content = task.rows.items[0].content  # type: ignore[attr-defined]
    prompt, answer = task.ask(content)  # type: ignore[attr-defined]
    wrong = {
        "math": "\\boxed{2}",
        "codeio": '{"output": 1}',
        "hover": "VERDICT: SUPPORTED EVIDENCE: X",
        "physics": "ANSWER: B",
    }[name]
    check(task.verify(Problem(f"{name}-0", prompt, answer, content), wrong))
