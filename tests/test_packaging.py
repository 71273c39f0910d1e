"""What is installed is what is here: an editable install would hide a forgotten room."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def test_every_room_is_in_the_wheel() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    rooms = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "fst_bench").rglob("__init__.py")}
    assert set(setup["packages"]) == rooms | {"fst_bench.methods", "fst_bench.streams"}


def test_the_gpu_lock_is_exact_and_covers_what_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "requirements-gpu.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+!]*", line)] == []
    locked = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    assert len(locked) == len(lines)
    asked = [Requirement(line) for line in (*project["dependencies"], *project["optional-dependencies"]["gpu"])]
    assert {canonicalize_name(one.name) for one in asked} <= set(locked)
    assert [str(one) for one in asked if not one.specifier.contains(locked[canonicalize_name(one.name)])] == []
    assert {one.name: str(one.specifier) for one in asked if one.name in ("vllm", "deepspeed")} == {
        name: "==" + locked[name] for name in ("vllm", "deepspeed")
    }
