"""The child process that judges LaTeX: killed, stuck, forked or asked from threads, its next answer is right."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fst_bench.tasks.math_judge import Judge

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
        ("\ud800", "7", "wrong"),
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
        r"10!",
        r"9E99999999",
        r"\sqrt[0.001]{9}",
        r"\exp(\exp(9))",
        r"\operatorname{eye}(9999)",
        r"\Gamma(9999999)",
        r"\binom{9999}{99}",
        r"\int x",
        r"\sum_{i=1}^{9}i",
        r"\begin{matrix}7\end{matrix}",
        r"3 4",
        r"٧",
        r"|a|b|c|",
        r"((((((((7))))))))",
        r"99999999999999999999",
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
