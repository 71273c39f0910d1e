"""`fst-bench new`: its files are clean, have the new name, overwrite nothing. docs/test_pages.py runs their tests."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

from fst_bench.cli import main
from fst_bench.method.registry import find_method
from fst_bench.tasks import find_task
from fst_bench.tasks.stream import load_spec

ROOT = Path(__file__).parents[2]


def test_what_is_written_is_clean_and_has_the_name(tmp_path: Path) -> None:
    for kind, name in (("method", "my-bandit"), ("task", "my-letters"), ("stream", "two-things")):
        assert main(["new", kind, name, "--out", str(tmp_path / "new")]) == 0
    files = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert files == [
        "my_bandit.py",
        "my_letters.py",
        "test_my_bandit.py",
        "test_my_letters.py",
        "test_two_things.py",
        "two_things.yaml",
    ]
    assert not [path for path in (tmp_path / "new").iterdir() if "tarter" in path.read_text()]
    assert find_method(str(tmp_path / "new" / "my_bandit.py")).__name__ == "MyBandit"
    assert find_task(str(tmp_path / "new" / "my_letters.py")).name == "my-letters"
    assert load_spec(str(tmp_path / "new" / "two_things.yaml")).name == "two-things"


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="ruff is not installed")
def test_what_is_written_passes_lint(tmp_path: Path) -> None:
    from ruff.__main__ import find_ruff_bin  # type: ignore[import-untyped]

    for kind in ("method", "task", "stream"):
        assert main(["new", kind, f"my-{kind}", "--out", str(tmp_path)]) == 0
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [find_ruff_bin(), *command, "--no-cache", "--config", ROOT / "pyproject.toml", "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("method", "fst", "a method named fst is shipped"),
        ("task", "math", "a task named math is shipped"),
        ("stream", "paper-3", "a stream named paper-3 is shipped"),
        ("method", "My Method", "a-z, 0-9"),
        ("task", "4s", "begins with a letter"),
        ("method", "class", "begins with a letter"),
    ],
)
def test_a_name_that_will_not_do(
    kind: str, name: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", kind, name, "--out", str(tmp_path / "new")]) == 2
    err = capsys.readouterr().err
    assert expected in err and err.count("\n") == 1 and not (tmp_path / "new").exists()


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_mine.py").write_text("precious")
    assert main(["new", "method", "mine", "--out", str(tmp_path)]) == 2
    assert "test_mine.py exists already: nothing was written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
    assert (tmp_path / "test_mine.py").read_text() == "precious"
