"""Adversarial texts: whatever a model writes, a verifier answers with a verdict, and no reward.

A 2 MB text that made a verifier slower than linear would not finish here; nothing is timed.
"""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fst_bench.core.types import Status
from fst_bench.tasks import TASKS, Problem, Score, Task, load_task
from fst_bench.tasks.formats import WRAPPERS, AnswerFormat, Wrapped

MB2 = 2_000_000
CODE = "__import__('pathlib').Path('pwned').write_text('x')"


def nested(opening: str, closing: str, depth: int, inside: str = "1") -> str:
    return opening * depth + inside + closing * depth


SMALL = [
    "", " ", "\n", "\0", "\ud800", "\udfff\ud800", "\u202e\u200f\ufeff", "\x1b[31m", "null", "NaN", "Infinity", "-0",
    "1e999", "٤٢", "４２", "½", "𝟜𝟚", "IV", "10!",
    "9^{9^{9}}", "9**9**9", "9^9^9^9", "\\frac{1}{0}", "\\frac", "\\sqrt[0.0000001]{9}", "9E99999999", "9^{9*9999999}",
    "9^9\\mathrm{th}9999999", "0x2a", "1_000",
    "(a+b+c+d)^{99}", "\\operatorname{eye}(99999)", "\\lfloor\\exp(\\exp(99))\\rfloor", "\\Gamma(99999999)", "|a" * 50,
    "\\sqrt{\\infty}", "$" * 99, "\\",
    "9" * 30, "9" * 5_000, "1e" + "9" * 30, "%s%n{0}{x}", CODE, f"{{{CODE}}}", f"\\text{{{CODE}}}", f"1 + {CODE}",
    "<script>", "'; DROP TABLE", "${HOME}", "`id`",
    "{}", "[]", "{" * 500, "}" * 500, "->" * 100, ";" * 100, "N^9", "N" * 100, "m" + "*m" * 50, "m/" * 50, "km", "m^-9",
    "kg*m/s", "True", '"\\ud800"', '{"a":1,"a":2}',
    nested("[", "]", 500), nested('{"output":', "}", 500), nested("\\boxed{", "}", 500), nested("\\frac{1}{", "}", 30),
    nested("(", ")", 50), nested("\\sqrt{", "}", 20),
]  # fmt: skip

LARGE = {
    "braces": "{" * MB2,
    "closing braces": "\\boxed{" + "}" * MB2,
    "boxes": "\\boxed{" * (MB2 // 7),
    "box in box": nested("\\boxed{", "}", MB2 // 8),
    "box of digits": "\\boxed{" + "9" * MB2 + "}",
    "box of arrows": "\\boxed{" + "0->" * (MB2 // 3) + "}",
    "box of 30 kB": "\\boxed{" + "0->" * 10_000 + "}",
    "deep objects": nested('{"output":', "}", MB2 // 11),
    "deep lists": '{"output":' + nested("[", "]", MB2 // 2) + "}",
    "deep lists in reach": '{"output":' + nested("[", "]", 16_000) + "}",
    "open lists": ('{"k":[' * 1_500) + "1," * 11_000,
    "open objects": ('{"k":[' + "1," * 3_000) * 5,
    "open keys": '{"' * (MB2 // 2),
    "open string": '{"output": "' + "{" * MB2,
    "empty objects": "{}" * (MB2 // 2),
    "wide object": "{" + ",".join(f'"k{i}":1' for i in range(MB2 // 12)) + "}",
    "long integer": '{"output": ' + "9" * MB2 + "}",
    "integer in reach": '{"output": ' + "9" * 30_000 + "}",
    "backslashes": "\\" * MB2,
    "lone surrogates": "\ud800" * MB2,
    "nul bytes": "\0" * MB2,
    "right to left": "\u202e\u200f" * (MB2 // 2),
    "spaces": " " * MB2,
    "lines": "\n" * MB2,
    "labels": "VERDICT: " * (MB2 // 9),
    "verdicts": "VERDICT: SUPPORTED EVIDENCE: " * (MB2 // 29),
    "titles": "VERDICT: SUPPORTED EVIDENCE: " + "Ana;" * (MB2 // 4),
    "titles in reach": "VERDICT: SUPPORTED EVIDENCE: " + "Ana;" * 8_000,
    "answers": "ANSWER:" * (MB2 // 7),
    "answer digits": "ANSWER: " + "9" * MB2 + " N",
    "answer digits in reach": "ANSWER: " + "9" * 32_000 + " N",
    "answer units": "ANSWER: 1 m" + "*m" * 16_000,
    "answer spaces": "ANSWER: 1" + " " * 32_000 + "N",
}


def frame(name: str, inside: str) -> str:
    """`inside` where the task's answer would stand."""
    return {
        "math": f"\\boxed{{{inside}}}",
        "codeio": f'{{"output": {inside}}}',
        "hover": f"VERDICT: SUPPORTED EVIDENCE: {inside}",
        "hover-search": f"VERDICT: SUPPORTED EVIDENCE: {inside}",
        "star-graph": f"\\boxed{{{inside}}}",
        "physics": f"ANSWER: {inside}",
    }[name]


def check(task: Task, problem: Problem, text: str) -> Score:
    """No reward, and a verdict that can be stored: one line of printable text, encodable, with a status of the list."""
    verdict = task.verify(problem, text)
    assert verdict.reward == 0.0 and verdict.status in set(get_args(Status)) - {"ok"}
    for line in (verdict.feedback, verdict.answer or ""):
        assert line.isprintable() and len(line) < 1_000
        line.encode()
    return verdict


def hard(name: str) -> tuple[Task, Problem]:
    """A problem whose answer no text here hits by chance."""
    task = load_task(name, **{"math": {"max_value": 1_000_000, "operations": 20, "max_operand": 999}}.get(name, {}))
    return task, task.problem("test", 0, 0)


@pytest.mark.parametrize("name", TASKS)
def test_nasty_texts_bare_and_in_place_of_the_answer(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task, problem = hard(name)
    for nasty in SMALL:
        for text in (
            nasty,
            frame(name, nasty),
            frame(name, nasty) + "\n",
            frame(name, json.dumps(nasty)),
            frame(name, f"{nasty} N"),
        ):
            assert check(task, problem, text).status not in ("timeout", "crash"), (
                "limits, not the clock, refuse what is slow"
            )
    assert not list(tmp_path.iterdir()), "nothing of a model's text is run"


@pytest.mark.parametrize(
    ("name", "style"),
    [(name, style) for name, kind in TASKS.items() if issubclass(kind, Wrapped) for style in WRAPPERS],
)
def test_nasty_texts_in_every_answer_format(name: str, style: AnswerFormat) -> None:
    _, problem = hard(name)
    task = load_task(name, answer_format=style)
    for nasty in SMALL:
        for text in (nasty, task.write(nasty), task.wrapper.write(nasty) + "\n", task.wrapper.write(json.dumps(nasty))):
            assert check(task, problem, text).status not in ("timeout", "crash")
    for large in LARGE.values():
        assert check(task, problem, large).status in ("unparseable", "wrong")
    for large in (
        "<answer>" * (MB2 // 8),
        "<answer>" + "9" * MB2 + "</answer>",
        "#" * MB2,
        "#### " + "9" * MB2,
        "####" * 8_000 + "[" * 500,
    ):
        assert check(task, problem, large).status in ("unparseable", "wrong")


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("kind", LARGE)
def test_two_megabytes(name: str, kind: str) -> None:
    task, problem = hard(name)
    assert check(task, problem, LARGE[kind]).status in ("unparseable", "wrong")


@pytest.mark.parametrize("name", TASKS)
@settings(deadline=None, derandomize=True, max_examples=150)
@given(text=st.text(st.characters(exclude_categories=())), after=st.text(max_size=10))
def test_any_text(name: str, text: str, after: str) -> None:
    task, problem = hard(name)
    assume(problem.answer not in text)
    for adversarial in (text, frame(name, text) + after, frame(name, problem.answer + "1") + after):
        check(task, problem, adversarial)


PIECES = st.sampled_from(
    [
        *"0123456789{}()[]|^_,.;=<>+-*/%$xyzeEiN \n\"'&~#!{}",
        *["\\frac", "\\sqrt", "\\pi", "\\cdot", "\\text", "\\infty", "->", "kg", "m/s"],
    ]
)


@pytest.mark.parametrize("name", TASKS)
@settings(deadline=None, derandomize=True, max_examples=100)
@given(pieces=st.lists(PIECES, max_size=40))
def test_any_mixture_of_the_answer_syntaxes(name: str, pieces: list[str]) -> None:
    task, problem = hard(name)
    assume(problem.answer not in "".join(pieces))
    check(task, problem, frame(name, "".join(pieces)))


json_documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("output"), inner),
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(document=json_documents, other=json_documents)
def test_any_json(document: Any, other: Any) -> None:
    task, problem = hard("codeio")
    for text in (
        json.dumps(document),
        json.dumps({"output": document}),
        json.dumps({"output": document, "x": other}) + json.dumps(other),
    ):
        check(task, problem, text)
