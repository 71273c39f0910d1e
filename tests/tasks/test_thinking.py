"""What a model thought is not its answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fst_bench.tasks import TASKS, load_task
from fst_bench.tasks.base import answer_of


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("7", "7"),
        ("<think>3</think>7", "7"),
        ("3</think>7", "7"),  # the opening tag may stand in the prompt
        ("<think>a</think>b<think>c</think>7", "7"),
        ("<think></think>", ""),
        ("</think>", ""),
        ("<think>7", None),
        ("7<think>", None),
        ("<think>3</think>7<think>8", None),
        ("< think>7", "< think>7"),
        ("<thinking>7", "<thinking>7"),
    ],
)
def test_the_answer_is_what_follows_the_last_thought(text: str, answer: str | None) -> None:
    assert answer_of(text) == answer


@given(st.text())
def test_a_text_without_the_tags_is_all_answer(text: str) -> None:
    assert "think>" in text or answer_of(text) == text


@pytest.mark.parametrize("name", TASKS)
def test_every_task_judges_the_answer_alone(name: str) -> None:
    task = load_task(name, **TASKS[name].levels[1])
    problem = task.problem("test", 0, 0)
    right, wrong = task.write(problem.answer), task.wrong_texts(problem)[1]
    assert task.verify(problem, f"<think>\n{wrong}\n</think>\n\n{right}").reward == 1.0
    assert task.verify(problem, f"<think>\n{right}\n</think>\n\n{wrong}").reward == 0.0
    assert task.verify(problem, f"<think>\n{right}\n</think>\n\n").status == "unparseable"
    assert task.verify(problem, "<think>" * 300_000 + "</think>" + right).reward == 1.0
    left_open = task.verify(problem, f"{right}\n<think>\n{right}")
    assert (left_open.reward, left_open.status) == (0.0, "unparseable") and "never closed" in left_open.feedback
