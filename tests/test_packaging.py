"""What is installed is what is here: an editable install would hide a forgotten room."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_room_is_in_the_wheel() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    rooms = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "fst_bench").rglob("__init__.py")}
    assert set(setup["packages"]) == rooms | {"fst_bench.methods", "fst_bench.streams"}
