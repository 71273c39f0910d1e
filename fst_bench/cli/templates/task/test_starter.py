"""starter draws problems that its verifier can score. Seconds: python -m pytest test_starter.py"""

from pathlib import Path

from fst_bench.cli.validate import tasks
from fst_bench.tasks import load_task

FILE = str(Path(__file__).with_name("starter.py"))


def test_its_problems_and_scores_are_sound() -> None:
    assert [(name, complaint) for name, complaint in tasks(FILE) if complaint] == []


def test_a_problem_worked_out_by_hand() -> None:
    task = load_task(FILE, letters=3)
    problem = task.problem("train", 0, 0)
    first, second, third = problem.prompt.splitlines()[0].removeprefix("Letters: ").split()
    assert task.verify(problem, f"So it is \\boxed{{{third} {second} {first}}}.").reward == 1.0
    assert "in \\boxed{}" in task.verify(problem, f"{third} {second} {first}").feedback
