"""`data get codeio`: what the sandbox makes of a package's generators and functions, and what is dropped and why."""

import gzip
import hashlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fst_bench.cli import main
from fst_bench.tasks.data import load, task_from
from fst_bench.tasks.data.codeio import CodeioRows
from fst_bench.tasks.data.get import FILE, Conversion, convert, installed

SEEDED = "return {'a': rng.randint(0, 10**6)}"


def row(body: str, generator: str = SEEDED, before: str = "") -> dict[str, Any]:
    """A row of the package: the body of `main_solution(a)`, and that of its generator."""
    return {
        "task_description": "What is it?",
        "input_output_spec": "Input:\n  `a` (int): a number.\n\nOutput:\n  `return` (int): another.",
        "code_sample": f"{before}\ndef main_solution(a):\n    " + body.replace("\n", "\n    "),
        "input_generator": "def generate_inputs(rng: Random) -> dict:\n    " + generator.replace("\n", "\n    "),
    }


def adding(n: int) -> list[dict[str, Any]]:
    return [row(f"return {{'sum': a + {i}, 'half': a / 2}}") for i in range(n)]


def converted(rows: Sequence[dict[str, Any]], workers: int = 2) -> Conversion:
    return convert(rows, workers, lambda done, rows: None)


NO_INPUT = "a generator without an answer within the limits"
NO_ANSWER = "a function without an answer within the limits"
RAISES = "a function that raises, or gives what JSON does not hold"
DROPPED: dict[str, tuple[dict[str, Any], str]] = {
    "random without the seed": (
        row("return a", "return {'a': random.random()}", before="import random"),
        "a generator that contradicts itself",
    ),
    "the order of a set": (row("return list({'a', 'b', 'c', 'd', 'e', str(a)})"), "a function that contradicts itself"),
    "the time": (row("return time.time()", before="import time"), "a function that contradicts itself"),
    "the calls before": (
        row("seen.append(a)\nreturn len(seen)", before="seen = []"),
        "a function that contradicts itself",
    ),
    "a loop without an end": (row("while True: a += 1"), NO_ANSWER),
    "a generator without an end": (
        row("return a", "a = 0\nwhile True: a += 1"),
        NO_INPUT,
    ),
    "a module without an end": (
        row("return a", before="n = 0\nwhile True: n += 1"),
        NO_INPUT,
    ),
    "a loop that catches its end": (
        row("try:\n    for i in range(10**6): a += i\nexcept BaseException: return 0\nreturn a"),
        NO_ANSWER,
    ),
    "too much memory": (row("return len(bytearray(10**9))"), NO_ANSWER),
    "a long output": (row("return 'x' * 1_100"), "a function that gives more than 1,024 characters"),
    "a huge output": (row("return 'x' * 10**6"), NO_ANSWER),
    "a long input": (row("return 1", "return {'a': 'x' * 1_100}"), "a generator that gives more than 1,024 characters"),
    "the end of the process": (row("os._exit(0)", before="import os"), NO_ANSWER),
    "a module that is not there": (row("return numpy.pi", before="import numpy"), "requires numpy"),
    "one of the generator": (row("return a", "import sympy\n" + SEEDED), "requires sympy"),
    "a name that nobody defines": (row("return b"), "uses a name that it does not define"),
    "no Python": (row("return ("), "refcode that is not Python"),
    "an error": (row("return a / 0"), RAISES),
    "NaN": (row("return [float('nan')]"), RAISES),
    "a set": (row("return {a}"), RAISES),
    "another program": (row("import subprocess\nreturn subprocess.run(['true']).returncode"), RAISES),
    "a list for the arguments": (
        row("return [a]", "return [1]"),
        "a generator whose input is not a mapping of arguments",
    ),
    "other arguments": (row("return -a", "return {'b': 1}"), RAISES),
    "no generator": ({**row("return a + 1"), "input_generator": None}, "input_generator is missing or empty"),
    "another name": (
        {**row("return a"), "code_sample": "def solution(a):\n    return a"},
        NO_ANSWER,
    ),
    "no def": ({**row("return a"), "code_sample": "main_solution = lambda a: a"}, "no such function in refcode"),
    "deep values": (row("b = 0\nfor _ in range(40): b = [b]\nreturn b"), "an output too large to be read in an answer"),
}


@pytest.fixture(scope="module")
def odd() -> Conversion:
    """The conversion of every row above, in one go."""
    return converted([made for made, _ in DROPPED.values()])


def test_nothing_is_kept_that_has_no_one_answer(odd: Conversion) -> None:
    assert odd.rows == [] and odd.functions.total() == len(DROPPED)
    assert odd.functions == {
        reason: sum(why == reason for _, why in DROPPED.values()) for _, reason in DROPPED.values()
    }
    assert not odd.pairs  # those of dropped functions are not counted a second time


def test_what_is_kept_is_what_the_function_gives_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = converted(
        [
            row("print('x' * 10**6)\nreturn a + 1"),
            row("return (a, {1: None})", "return {'a': (rng.randint(0, 9), 'é')}"),
            row("return 1 // (a - 5)", "return {'a': 5 if rng.random() > 0.8 else 1}"),
            row("a.append(1)\nreturn a", "return {'a': []}"),
            row("return helper(a)", "return {'a': helper(rng.random())}", before="def helper(x): return round(x, 2)"),
            row("seen.add(a)\nreturn a >= max(seen)", "return {'a': -rng.random()}", before="seen = set()"),
            row("open('file', 'w').write('x')\nreturn a"),
        ]
    )
    first, second, third, fourth, fifth, sixth = (row["ios"] for row in made.rows[:6])
    assert len(first) == 3 and all(pair["output"] == pair["input"]["a"] + 1 for pair in first)
    assert all(pair["output"] == [pair["input"]["a"], {"1": None}] for pair in second)
    assert third == [{"input": {"a": 1}, "output": -1}]  # the seeds 0 and 2 give 5
    assert fourth == [{"input": {"a": []}, "output": [1]}]
    assert [pair["output"] for pair in fifth] == [0.84, 0.13, 0.96]
    assert [pair["output"] for pair in sixth] == [True] * 3  # none knows of another's
    assert made.pairs == {RAISES: 2, "a repetition": 2}
    assert list(tmp_path.iterdir()) == []  # the last one wrote into a folder of its own, or was refused


def test_the_number_of_processes_changes_nothing() -> None:
    rows = [*adding(20), *adding(2), DROPPED["the time"][0]]
    one, three = converted(rows, workers=1), converted(rows, workers=3)
    assert one == three and json.dumps(one.rows) == json.dumps(three.rows)
    assert len(one.rows) == 20 and one.functions == {"a repetition": 2, "a function that contradicts itself": 1}


# --- the command ---


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package in the place of reasoning-gym."""
    site = tmp_path / "site"
    path = site / "reasoning_gym" / FILE
    path.parent.mkdir(parents=True)
    (site / "reasoning_gym" / "__init__.py").write_text("raise AssertionError('nothing imports the package')")
    lines = [json.dumps(made) for made in [*adding(40), DROPPED["the time"][0]]]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    about = site / "reasoning_gym-0.0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: reasoning-gym\nVersion: 0.0.1\nLicense-Expression: X-1.0\n"
    )
    monkeypatch.delitem(sys.modules, "reasoning_gym", raising=False)
    monkeypatch.syspath_prepend(str(site))
    return path


def test_a_folder_that_runs(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a cache"))
    assert main(["data", "get", "codeio", "--json"]) == 0
    *said, last = capsys.readouterr().out.splitlines()
    folder = tmp_path / "a cache/fst-bench/data/codeio"
    assert said == [
        "codeio from reasoning-gym 0.0.1, whose licence is X-1.0",
        "kept 40 of 41 functions, 120 problems each way",
        "dropped functions: 1 x a function that contradicts itself",
        f"folder: {folder}",
        f"its problems in a run: --data '{folder}'",
    ]
    record = json.loads((folder / "source.json").read_text())
    assert json.loads(last) == {"folder": str(folder), **record}
    assert record["sha256"] == hashlib.sha256((folder / "codeio.jsonl").read_bytes()).hexdigest()
    assert record["file_sha256"] == hashlib.sha256(package.read_bytes()).hexdigest()
    assert sorted(path.name for path in folder.iterdir()) == ["codeio.jsonl", "source.json"]

    assert main(["data", "get", "codeio", "--out", str(tmp_path / "again")]) == 0
    assert all((tmp_path / "again" / path.name).read_bytes() == path.read_bytes() for path in folder.iterdir())

    assert main(["validate", "data", str(folder)]) == 0
    command = f"run --stream single-codeio --method base --preset smoke --set stage_problems=8 --out {tmp_path}/runs"
    assert main([*command.split(), "--data", str(folder)]) == 0
    assert "codeio from codeio.jsonl: 120 problems, 0 skipped" in capsys.readouterr().out


def test_without_the_package_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    assert main(["data", "get", "codeio"]) == 2
    said = capsys.readouterr()
    wanted = "fst-bench: codeio requires the package reasoning-gym: pip install 'fst-bench[gym]'\n"
    assert (said.out, said.err) == ("", wanted)


@pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="requires reasoning-gym: pip install 'fst-bench[gym]'"
)
def test_the_first_rows_of_the_package(tmp_path: Path) -> None:
    with gzip.open(installed() / FILE) as file:
        made = converted([json.loads(next(file)) for _ in range(40)])
    assert len(made.rows) + made.functions.total() == 40 and made.functions["requires numpy"] >= 5
    assert len(made.rows) >= 20 and sum(len(row["ios"]) for row in made.rows) >= 60
    (tmp_path / "codeio.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made.rows))
    rows = load(CodeioRows, str(tmp_path))
    assert not rows.skipped and len(rows.items) == sum(len(row["ios"]) for row in made.rows)
    for direction in ("output", "input"):  # all of them, as the task's verifier sees it
        task = task_from(str(tmp_path), "codeio", {"direction": direction})
        for problem in task.problems("train", 0, 20):
            assert task.verify(problem, task.write(problem.answer)).reward == 1.0
