"""Small files with exactly the columns of the real data sets, written by the tests."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tables import codeio, hover, physics, polaris

Write = Callable[[str, Sequence[Any]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return `write(stem, rows)`, which writes FOLDER/stem.jsonl and returns FOLDER; rows of text are written as is."""

    def made(stem: str, rows: Sequence[Any]) -> Path:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / f"{stem}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return tmp_path

    return made


@pytest.fixture
def folder(write: Write) -> Path:
    """A folder with a file for each task, enough rows for every split."""
    for stem, rows in (
        ("polaris", polaris(200)),
        ("hover", hover(300)),
        ("codeio", codeio(80)),
        ("physics", physics(150)),
    ):
        write(stem, rows)
    return write("polaris", polaris(200))
