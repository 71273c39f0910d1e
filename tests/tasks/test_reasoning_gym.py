"""reasoning-gym as tasks: the allow-list holds, wrong names and parameters are one line, and a run resumes with it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fst_bench
from fst_bench.cli import main
from fst_bench.core.types import Problem
from fst_bench.harness.config import resolve
from fst_bench.harness.store import Store
from fst_bench.tasks import TASK_REGISTRY, TASKS, Task, find_task, load_task, reasoning_gym
from fst_bench.tasks.stream import Stream, load_spec, of_package, stream_files

SETS: dict[str, dict[str, Any]] = reasoning_gym.allow_list()["sets"]
LISTED = {name: about["levels"] for name, about in SETS.items() if "levels" in about}
FEW = 3
gym = pytest.mark.skipif(reasoning_gym.version() is None, reason="no reasoning-gym: pip install 'fst-bench[gym]'")


def first(name: str, level: dict[str, Any]) -> tuple[Task, list[Problem], list[Problem]]:
    task = load_task(f"reasoning-gym/{name}", **level)
    return task, task.problems("train", 0, FEW), task.problems("test", 0, FEW)


def test_the_list_has_fifty_sets_and_a_reason_for_each_other() -> None:
    assert len(LISTED) >= 50
    assert all(len(about.get("levels", [])) == 2 or about["refused"] for about in SETS.values())
    assert all(len(levels) == 2 and levels[0] != levels[1] for levels in LISTED.values())
    assert all(min(about["different"]) >= 1_000 for about in SETS.values() if "levels" in about)
    assert all("data" not in about or about["data"] for about in SETS.values())


# --- the allow-list


@gym
@pytest.mark.parametrize("name", LISTED)
def test_gold_earns_one_and_near_misses_nothing(name: str) -> None:
    for level in LISTED[name]:
        task, train, test = first(name, level)
        assert not {p.prompt for p in train} & {p.prompt for p in test}
        for problem in train[:2] + test:
            gold = task.verify(problem, f"Some words first.\n{task.write(problem.answer)}")
            assert (gold.reward, gold.status) == (1.0, "ok"), problem
            for text in task.wrong_texts(problem):
                wrong = task.verify(problem, text)
                assert wrong.reward == 0.0 and wrong.status in ("wrong", "unparseable"), text
                assert wrong.feedback.isprintable() and wrong.feedback != gold.feedback
                assert (task.hint in wrong.feedback) == ("\n" not in text.strip())


PROBLEMS = """
import json
from fst_bench.tasks import load_task
from fst_bench.tasks.reasoning_gym import allow_list
sets = allow_list()["sets"].items()
found = []
for name, about in reversed(sets):
    for level in reversed(about.get("levels", [])):
        problems = load_task(f"reasoning-gym/{name}", **level).problems("train", 0, 2)
        found.append([name, level, [[p.id, p.prompt, p.answer] for p in problems]])
print(json.dumps(found))
"""


@gym
def test_another_process_draws_the_same_problems() -> None:
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    done = subprocess.run([sys.executable, "-c", PROBLEMS], env=environment, capture_output=True, text=True, check=True)
    there = json.loads(done.stdout)  # so no set prints
    assert len(there) == 2 * len(LISTED)
    for name, level, problems in there:
        here = load_task(f"reasoning-gym/{name}", **level).problems("train", 0, 2)
        assert [[p.id, p.prompt, p.answer] for p in here] == problems, name


@gym
@pytest.mark.parametrize("name", ["chain_sum", "arc_1d", "mini_sudoku", "calendar_arithmetic", "word_sorting"])
@settings(deadline=None, derandomize=True, max_examples=60)
@given(inside=st.text(st.characters(exclude_categories=())) | st.text("0123456789eE+-.,[]()<>/ \n", max_size=500))
def test_any_text_is_a_verdict(name: str, inside: str) -> None:
    task = load_task(f"reasoning-gym/{name}")
    problem = task.problem("test", 0, 0)
    for text in (inside, task.write(inside), task.write(f"{problem.answer} 0 {inside}")):
        score = task.verify(problem, text)
        assert score.reward == 0.0 or problem.answer.strip() in text
        for line in (score.feedback, score.answer or ""):
            assert line.isprintable() and len(line) < 1_000
            line.encode()


@gym
def test_limits_refuse_what_would_be_slow() -> None:
    task = load_task("reasoning-gym/chain_sum")
    problem = task.problem("test", 0, 0)
    for text in ("1e999999999", "[" * 40, "9" * 1_000, "x" * 30_000):
        score = task.verify(problem, task.write(text))
        assert score.status == "unparseable" and "far more than an answer" in score.feedback
    assert task.verify(problem, "<answer>" * 100_000).status == "unparseable"
    assert task.verify(problem, task.write("1") + "\n" + task.write(problem.answer)).reward == 1.0


@gym
def test_partial_scores_are_kept_where_that_is_asked_for() -> None:
    for partial in (False, True):
        task = load_task("reasoning-gym/chain_sum", partial_credit=partial)
        problem = task.problem("train", 0, 0)
        score = task.verify(problem, task.write(f"{problem.answer} or so"))
        assert (0 < score.reward < 1) == partial and score.status == "wrong"


# --- names and parameters


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("reasoning-gym/chain_sun", ["unknown data set of reasoning-gym", "did you mean chain_sum?", "caesar_cipher"]),
        ("reasoning-gym/codeio", ["reasoning-gym/codeio is not on the allow-list", "exec"]),
        ("reasoning-gim/chain_sum", ["unknown task 'reasoning-gim/chain_sum'", "There are codeio, hover"]),
    ],
)
def test_an_unknown_name_is_one_line(name: str, parts: list[str]) -> None:
    with pytest.raises(ValueError) as raised:
        find_task(name)
    assert "\n" not in str(raised.value) and all(part in str(raised.value) for part in parts), str(raised.value)


@gym
@pytest.mark.parametrize(
    ("difficulty", "part"),
    [
        ({"max_term": 3}, "unknown key 'max_term': did you mean max_terms?"),
        ({"max_terms": "3"}, "max_terms: Input should be a valid integer (got 3)"),
        ({"min_terms": 7}, "difficulty of reasoning-gym/chain_sum: max_terms must be >= min_terms"),
        ({"seed": 1}, "unknown key 'seed'"),
        ({"partial_credit": 1}, "partial_credit"),
    ],
)
def test_a_wrong_parameter_is_one_line(difficulty: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError) as raised:
        load_task("reasoning-gym/chain_sum", **difficulty)
    assert "\n" not in str(raised.value) and part in str(raised.value), str(raised.value)


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    reasoning_gym.find_set.cache_clear()
    monkeypatch.setattr(TASK_REGISTRY, "loaded", {})
    monkeypatch.setattr(reasoning_gym, "version", lambda: None)
    with pytest.raises(ValueError, match=re.escape("pip install 'fst-bench[gym]'")):
        load_task("reasoning-gym/chain_sum")
    assert main(["run", "--stream", "gym-8", "--method", "base", "--dry-run"]) == 2
    assert "requires the package reasoning-gym" in capsys.readouterr().err
    monkeypatch.setattr(reasoning_gym, "version", lambda: "0.0.1")
    with pytest.raises(ValueError, match=r"were surveyed, 0\.0\.1 is installed"):
        load_task("reasoning-gym/chain_sum")


def test_the_list_of_tasks_names_every_set_without_the_package() -> None:
    code = (
        "import sys; from fst_bench.cli import main; main(['list', 'tasks']); sys.exit('reasoning_gym' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert sum(line.strip().startswith("reasoning-gym/") for line in lines) == len(LISTED)
    assert not any("/" in name for name in TASKS)


@gym
def test_a_set_is_shown_with_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "task", "reasoning-gym/chain_sum"]) == 0
    out = capsys.readouterr().out
    assert "--set difficulty.reasoning-gym/chain_sum.max_terms=6    int" in out and "<answer>" in out
    own = {"difficulty.reasoning-gym/chain_sum.max_terms": 3}
    config, _ = resolve("gym-curriculum", "base", "smoke", 0, own)
    assert config.difficulty["reasoning-gym/chain_sum"] == {"max_terms": 3}


# --- streams and runs


@gym
@pytest.mark.parametrize("name", [name for name in stream_files() if of_package(name)])
def test_streams_hold_different_problems(name: str) -> None:
    stream = Stream(load_spec(name), 0, {})
    for task in stream.held_out().values():
        assert len({problem.id for problem in task.problems("test", n=20)}) > 15
    assert [stream.problem(stage.start) for stage in stream.stages]


STREAM = """
name: two-sets
version: 1
description: Two sets.
stages:
  - {task: reasoning-gym/chain_sum, problems: 16, difficulty: {max_terms: 2, max_digits: 1}}
  - {mixture: {words, reasoning-gym/count_bits}, problems: 16}
variants:
  words: {task: reasoning-gym/word_sorting, difficulty: {max_words: 3}}
"""


@gym
def test_a_run_records_the_package_and_resumes_with_it_alone(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(STREAM.replace("{words, reasoning-gym/count_bits}", MIXTURE))
    run = fst_bench.run(str(tmp_path / "two.yaml"), "rl", tmp_path / "runs", preset="smoke", **SHORT)
    page = (run.path / "report.html").read_text()
    assert "reasoning-gym/chain_sum" in page and "reasoning-gym/count_bits" in page
    assert main(["validate", "run", str(run.path)]) == 0
    code = Store(run.path).read("config")["config"]["code"]
    for key in ("tasks/reasoning-gym/chain_sum", "tasks/reasoning-gym/word_sorting", "tasks/reasoning-gym/count_bits"):
        assert code[key] == {"package": f"reasoning-gym {reasoning_gym.version()}", "sha256": reasoning_gym.digest()}

    again = tmp_path / "again"
    shutil.copytree(run.path, again)
    (again / "manifest.json").unlink()
    for checkpoint in Store(again).checkpoints()[3:]:
        shutil.rmtree(checkpoint)
    resumed = fst_bench.resume(again)
    for file in ("evals", "answers", "rollouts"):
        assert (resumed.path / f"{file}.jsonl").read_bytes() == (run.path / f"{file}.jsonl").read_bytes()

    (again / "manifest.json").unlink()
    saved, package = (again / "config.json").read_text(), f"reasoning-gym {reasoning_gym.version()}"
    (again / "config.json").write_text(saved.replace(package, "reasoning-gym 0.1.24"))
    with pytest.raises(ValueError, match=r"with the task reasoning-gym/\w+ of reasoning-gym 0\.1\.24 .* installed is"):
        fst_bench.resume(again)


MIXTURE = "{words: 0.5, reasoning-gym/count_bits: 0.5}"
SHORT: dict[str, Any] = {
    "stage_problems": 8,
    "policy": {"max_tokens": 16},
    "slow": {"group_size": 2},
    "evaluation": {"boundary": 2, "small": 2, "interval": 16},
    "checkpoint": {"every": 1, "keep": 9, "stages": False},
}
