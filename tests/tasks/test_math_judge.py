"""The child process that judges LaTeX: killed, stuck, forked or asked from threads, its next answer is right."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fst_bench.tasks.math_judge import Judge, plain

HALF = r"\frac{14}{2}"


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    judge = Judge()
    yield judge
    judge.stop()


def pid_of(judge: Judge) -> int:
    assert judge.child is not None
    return judge.child.pid


@pytest.mark.parametrize(
    ("gold", "answer", "status"),
    [
        ("7", HALF, "ok"),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", "ok"),
        (r"\{1,2\}", r"\{2,1\}", "ok"),
        ("x+1", "1+x", "ok"),
        ("(a+b)^2", "a^2+2ab+b^2", "ok"),
        ("x=3", "3", "ok"),
        (r"[0,\infty)", r"[0,\infty)", "ok"),
        (r"\infty", r"\infty", "ok"),
        ("2^{1000}", "4^{500}", "ok"),
        (r"\frac{1}{3}", "0.333333", "ok"),
        (r"\frac{1}{3}", "0.3333", "wrong"),
        (r"\infty", r"-\infty", "wrong"),
        ("x", r"\sqrt{\infty}", "wrong"),
        ("60", r"\{\frac{\pi}{2}*\sqrt{\infty}\}", "wrong"),
        (r"\{60,61\}", r"\frac{\pi}{2}*\sqrt{\infty}", "wrong"),
        ("7", r"\{7\}", "ok"),
        ("7", "[7,8)", "wrong"),
        ("x+1", "x+2", "wrong"),
        ("7", "x", "wrong"),
        ("\ud800", "7", "unparseable"),
        ("204", "204_7", "wrong"),
        ("54", "204_5", "wrong"),
        ("204_7", "204", "ok"),
        ("204", "204_{10}", "ok"),
        ("y=2x+1", "y-1=2x", "ok"),
        (r"\sqrt{3}", "√(3)", "ok"),
        (r"\frac{1}{7000}", "0.000143", "ok"),
        (r"\frac{5}{2}", r"2\frac{1}{2}", "ok"),
    ],
)
def test_it_compares_values(judge: Judge, gold: str, answer: str, status: str) -> None:
    assert judge(gold, answer) == status


@pytest.mark.parametrize(
    "answer",
    [
        r"9^{9^{9}}",
        r"9^99999",
        r"9^{9*9999999}",
        r"2^{1/9999999}",
        r"[0,9^{9*9999}]",
        r"9**9",
        r"e;99\%^{99}",
        r"9999!",
        r"(9999)!",
        r"9E99999999",
        r"\sqrt[0.001]{9}",
        r"\operatorname{eye}(9999)",
        r"\Gamma(9999999)",
        r"\binom{99999}{99}",
        r"\int x",
        r"\sum_{i=1}^{9}i",
        r"\begin{matrix}7\end{matrix}",
        r"\begin{vmatrix}a&b\\c&d\end{vmatrix}",
        r"\begin{pmatrix}a&b\\c&d\end{pmatrix}^{99}",
        r"3 4",
        r"3\,4",
        r"3~4",
        r"3\text{}4",
        r"٧",
        r"|a|b|c|",
        r"((((((((7))))))))",
        "\ud800",
    ],
)
def test_what_explodes_never_reaches_the_child(answer: str) -> None:
    fresh = Judge()
    assert fresh("7", answer) == "unparseable"
    assert fresh.child is None


@pytest.mark.parametrize(
    "answer",
    [
        r"99999999999999999999999999999999999999",
        r"9'9'9'9'9'9!",
        r"\binom{9{,}999{,}999}{9}",
        r"9^9'9'9'9'9",
        r"(9999999)_{5}",
        r"((9!)!)!",
        r"\exp(\exp(9))",
        r"\exp(9^9)",
        r"{\begin{pmatrix}a&b\\c&d\end{pmatrix}}^{99}",
        r"\binom{9*9*9*9*9*9}{9*9*9*9*9}",
        r"\{9^9\mathrm{th}9999999\}",
        r"7\%+9^9\mathrm{th}9999999",
        r"9^9\mathrm{th}9999999",
        r"9^9\text{}9999999",
        r"9^9{,}999{,}999",
        r"9^{{9}^9}",
        r"((9^{999})^{999})^{999}",
        r"(a+b+c+d)^{99}",
        r"(a+b)(c+d)(e+f)(g+h)(i+j)(k+l)(m+n)(o+p)(q+r)(s+t)(u+v)(w+x)(y+z)",
        r"\sqrt{\infty}",
        r"\log(\log(\log(9)))",
        r"\frac{\sqrt{7}}{\sqrt{\arcsin(9999999)}}",
        r"\arccos(\cos(\arcsin(\frac{\cos(99)}{(e)^{999}})))",
    ],
)
def test_what_slips_through_is_refused_or_wrong_without_the_clock(judge: Judge, answer: str) -> None:
    before = judge("7", HALF) and pid_of(judge)
    assert judge("7", answer) in ("unparseable", "wrong")
    assert pid_of(judge) == before, "the same child: none was killed for being slow"


SAME = [
    # the way to state several values
    ("-2,1", r"x=1 \text{ or } x=-2"),
    ("1,2", "x=1,x=2"),
    ("1,2", "x_1=1, x_2=2"),
    ("(1,2)", "x=1, y=2"),
    ("(1,2)", r"x=1 \text{ and } y=2"),
    ("(1,2,3)", "x=1, y=2, z=3"),
    ("7,8", "8 or 7"),
    (r"\pm 2", "-2, 2"),
    (r"\{7\}", "x = 7"),
    ("(1,1,2)", "(1,1,2)"),
    ("(3,2),(2,3)", "(2,3),(3,2)"),
    # numbers' typography
    ("10000", r"10,\!000"),
    ("10000", "10{,}000"),
    ("1000", "1 000"),
    ("1000", r"1\,000"),
    ("1000", "1\u202f000"),
    ("1234567.5", "1 234 567.5"),
    ("7", "7."),
    ("7", "**7**"),
    ("7", "**7.**"),
    ("-5", "\u22125"),
    (r"5\times10^{-4}", "5×10^{-4}"),
    (r"5\times10^{-4}", "5·10⁻⁴"),
    ("0.0005", "5E-4"),
    (r"\frac34", r"\displaystyle\frac34"),
    (r"\frac{3}{4}", r"\tfrac{3}{4}."),
    # signs
    (r"2\pi", "2π"),
    (r"\sqrt{12}", "√12"),
    ("x^{2}+1", "x²+1"),
    ("60", "60°"),
    (r"60^\circ", "60°"),
    (r"(-\infty,2]", "(−∞, 2]"),
    (r"x \le 3", "x ≤ 3"),
    (r"\frac{\pi}{2}", "π÷2"),
    # numbers that are not written out
    ("2^{100}", "1267650600228229401496703205376"),
    (r"\frac{1}{2^{100}}", "2^{-100}"),
    ("120", "5!"),
    (r"\frac{10!}{(10-3)!}", "720"),
    (r"\binom{5}{2}", "10"),
    (r"\binom{2n}{n}", r"\frac{(2n)!}{n!n!}"),
    ("e^{2}", r"\exp(2)"),
    ("e^{-x^{2}}", "e^{-x^2}"),
    (r"e^{\sqrt{2}}", r"e^{\sqrt{2}}"),
    (r"\lfloor 7.5 \rfloor", "7"),
    (r"\lvert -7 \rvert", "7"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\ \frac{4}{2}\end{bmatrix}"),
    # an unknown, a unit, a base, a per cent that one of the two leaves out
    ("11", r"x\approx11"),
    ("12", "12 cm"),
    ("12 cm", r"12\text{ centimeters}"),
    (r"15\text{ cm}^2", r"15\mathrm{~cm}^{2}"),
    ("12", r"12\text{ apples}"),
    ("204_5", "204_{5}"),
    ("1:2", "2:4"),
    (r"50\%", "0.5"),
]
"""Pairs of equal answers, in either order."""


@pytest.mark.parametrize(("one", "other"), SAME)
def test_equal_answers_are_equal_in_either_order(judge: Judge, one: str, other: str) -> None:
    assert judge(one, other) == "ok" and judge(other, one) == "ok"


DIFFERENT = {
    "rounding at six decimals": [
        ("0.0000001", r"2\cdot10^{-7}"),
        (r"\frac{1}{10000000}", "0.0000002"),
        (r"\{1, 10^{-7}\}", "1, 0.0000002"),
        ("(0, 0.0000001)", r"(0, 2\cdot10^{-7})"),
        ("0", "10^{-9}"),
    ],
    "a difference that is chopped": [
        (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
        ("10^{-20}", "10^{-21}"),
        (r"\frac{\pi}{2^{99}}", r"\frac{\pi}{2^{98}}"),
        (r"\frac{1}{204!}", r"\frac{1}{206!}"),
        (r"(0, 2^{-99})", "(0, 2^{-98})"),
        ("2^{100}", "1267650600228229401496703205377"),
    ],
    "a base": [("204_5", "204_7"), ("204_{5}", "204_{7}"), ("204_5+1", "204_7+1")],
    "a ratio of three": [("1:2:3", "1:6"), ("1:2:3", "1:3:2"), ("3:4:5", r"\frac{3}{20}"), ("2", "4:2:1")],
    "a unit": [
        ("12 cm", "12 m"),
        (r"12\text{ cm}", r"12\mathrm{~m}"),
        ("12 kg", "12 g"),
        (r"15\text{ cm}^2", r"15\text{ cm}^3"),
        (r"5\text{ hours}", r"5\text{ minutes}"),
    ],
    "a repetition": [(r"\{1,1,2\}", r"\{1,2\}"), ("1,1,2", "1,2"), ("7", "7,7"), ("1,2", "x=1, x=1, x=2")],
    "two numbers that are added": [("7", "3 4"), ("7", r"3\ 4"), ("1000", "1 00 0")],
    "a hedge": [
        ("7", "7 or 8"),
        ("7", "7, 8"),
        ("7", r"\pm 7"),
        ("7", r"x = 7 \text{ or } x = 8"),
        ("7", "x=7, y=8"),
        ("7", "[7,8]"),
        ("7", r"7 \le x \le 8"),
        ("7", r"x \ne 8"),
        ("7", "not 7"),
        ("7,8", "7"),
        ("x=3", "y=3"),
        (r"\text{Yes}", r"\text{Yes or No}"),
    ],
    "another value": [
        ("-2,1", r"x=-1 \text{ or } x=2"),
        ("(1,2)", "x=2, y=1"),
        ("(1,2)", "(2,1)"),
        ("10000", r"1,\!000"),
        ("1000", "1 001"),
        (r"2\pi", "3π"),
        (r"\binom{5}{2}", "11"),
        ("60", "61°"),
        (r"\sqrt{12}", "√13"),
        ("x^{2}", "x³"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "1,2"),
        ("(a+b)^{99}", "(a+b)^{98}"),
        ("12", r"x\approx11"),
    ],
}
"""What math-verify loses, or a hedge uses -> pairs of different answers: refused in either order."""


@pytest.mark.parametrize(("one", "other"), [pair for pairs in DIFFERENT.values() for pair in pairs])
def test_different_answers_are_different_in_either_order(judge: Judge, one: str, other: str) -> None:
    assert judge(one, other) in ("wrong", "unparseable") and judge(other, one) in ("wrong", "unparseable")


@pytest.mark.parametrize("gold", ["9^{9^{9}}", "9999999!", r"9^{9*9999999}", r"\sum_{i=1}^{9999999}i!", "9^9^9^9"])
def test_a_gold_that_explodes_costs_no_time(judge: Judge, gold: str) -> None:
    before = judge("7", HALF) and pid_of(judge)
    assert judge(gold, "7") in ("unparseable", "wrong") and judge(gold, "2^{7}") in ("unparseable", "wrong")
    assert pid_of(judge) == before, "the same child: none was killed for being slow"


@pytest.mark.parametrize(
    ("text", "value"),
    [(" $7$ ", "7"), ("7...", "7..."), ("1,2.", "1,2"), ("1 0000", "1 0000"), ("2 1 000", "2 1 000"), ("z^*", "z^*")],
)
def test_plain_leaves_alone_what_is_not_typography(text: str, value: str) -> None:
    assert plain(text) == value and plain(value) == value


def test_a_deadline_that_passes_is_a_timeout_and_the_next_answer_is_right() -> None:
    judge = Judge()
    assert judge("7", HALF) == "ok"
    judge.deadline_s = 0.0
    assert judge("7", r"\sqrt{2}+\sqrt{3}+\sqrt{5}+\sqrt{7}+\sqrt{11}") == "timeout"
    assert judge.child is None, "the slow child is gone"
    judge.deadline_s = 20.0
    assert judge("7", HALF) == "ok"
    judge.stop()


def test_a_stuck_child_is_a_timeout_and_is_killed() -> None:
    judge = Judge(deadline_s=20.0)
    judge("7", HALF)
    pid = pid_of(judge)
    judge.deadline_s = 0.2
    os.kill(pid, signal.SIGSTOP)
    assert judge("7", HALF) == "timeout"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    judge.deadline_s = 20.0
    assert judge("7", HALF) == "ok"
    judge.stop()


def test_a_child_that_dies_over_a_question_is_a_crash_and_the_next_answer_is_right() -> None:
    judge = Judge()
    judge("7", HALF)
    pid = pid_of(judge)
    os.kill(pid, signal.SIGSTOP)  # so that the question is surely open when the child dies
    killer = threading.Timer(0.2, os.kill, (pid, signal.SIGKILL))
    killer.start()
    assert judge("7", HALF) == "crash"
    assert judge("7", HALF) == "ok"
    assert pid_of(judge) != pid
    judge.stop()


def test_a_child_that_died_between_questions_is_not_noticed() -> None:
    judge = Judge()
    judge("7", HALF)
    assert judge.child is not None
    os.kill(judge.child.pid, signal.SIGKILL)
    judge.child.wait()
    assert judge("7", HALF) == "ok"
    judge.stop()


def test_threads_get_their_own_answers(judge: Judge) -> None:
    questions = [(str(i), rf"\frac{{{2 * j}}}{{2}}") for i in range(8) for j in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda question: judge(*question), questions))
    assert answers == ["ok" if gold == str(int(answer[6:-4]) // 2) else "wrong" for gold, answer in questions]


def test_a_fork_starts_a_child_of_its_own(judge: Judge) -> None:
    assert judge("7", HALF) == "ok"
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send((judge("8", HALF), pid_of(judge))), daemon=True)
    process.start()
    assert receiver.poll(60), "the fork waits for an answer that the parent's child sent elsewhere"
    status, pid = receiver.recv()
    process.join()
    assert status == "wrong" and pid != pid_of(judge)
    assert judge("7", HALF) == "ok"


def test_it_starts_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json", "math_verify", "fst_bench"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the working directory was imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    judge = Judge()
    assert judge("7", HALF) == "ok"
    judge.stop()
