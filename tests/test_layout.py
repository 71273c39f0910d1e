"""The package's layout: which rooms may import which, and what is installed."""

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fst_bench.method
from fst_bench import methods
from fst_bench.method.registry import METHODS

# --- The layout shows the architecture: few rooms, imports that only lead down, no circle


ROOT = Path(__file__).parents[1]
LAYERS = (
    {"core"},
    {"metrics", "policy", "tasks"},
    {"method"},
    {"slow", "fast"},
    {"methods", "harness"},
    {"analysis", "embedded"},
    {"leaderboard", "fst_bench"},
    {"cli"},
    {"__main__"},
)
"""Rooms from the ground up: a room imports from lower layers only. `fst_bench` is the package's own file."""
Graph = dict[str, set[str]]


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, methods/ and streams/ under their installed names."""
    found = {}
    installed = {"fst_bench": "fst_bench", "methods": "fst_bench.methods", "streams": "fst_bench.streams"}
    for folder, package in installed.items():
        for path in (ROOT / folder).rglob("*.py"):
            if "templates" in path.parts and path.parent.name != "templates":
                continue  # files that `fst-bench new` copies: they import like a user's
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


def imports(name: str, path: Path, known: Iterable[str]) -> Iterator[str]:
    """The modules of the package that a module imports, wherever the statement is."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                if whole in known or base in known:
                    yield whole if whole in known else base


@cache
def graph() -> Graph:
    """Module -> the modules that it imports."""
    known = modules()
    return {name: set(imports(name, path, known)) - {name} for name, path in known.items()}


def room(module: str) -> str:
    """The entry of fst_bench/ that a module is in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "fst_bench"


def rooms() -> Graph:
    """Room -> the rooms that it imports."""
    found: Graph = {}
    for module, imported in graph().items():
        found.setdefault(room(module), set()).update(room(other) for other in imported if room(other) != room(module))
    return found


def circle(edges: Graph) -> list[str]:
    try:
        tuple(TopologicalSorter(edges).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def floors(edges: Graph) -> int:
    """The longest chain of imports, in rooms."""

    @cache
    def floor(name: str) -> int:
        return 1 + max((floor(other) for other in edges[name]), default=0)

    return max(map(floor, edges))


def test_at_most_fourteen_entries() -> None:
    entries = [path.name for path in (ROOT / "fst_bench").iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 14, sorted(entries)


def test_at_most_nine_floors_and_no_circle_of_rooms_or_files() -> None:
    assert circle(rooms()) == [] and circle(graph()) == []
    assert floors(rooms()) <= 9


def test_imports_lead_down() -> None:
    level = {name: i for i, layer in enumerate(LAYERS) for name in layer} | {"streams": 0}
    assert set(rooms()) <= set(level)
    upward = [f"{a} -> {b}" for a, imported in rooms().items() for b in imported if level[b] >= level[a]]
    assert upward == []


def test_a_circle_and_an_upward_import_would_be_seen() -> None:
    assert circle({"a": {"b"}, "b": {"a"}}) and floors({"a": {"b"}, "b": {"c"}, "c": set()}) == 3
    assert "fst_bench.method.lab" in graph()["fst_bench.slow.learn"] and "harness" in rooms()["analysis"]


# --- What is installed is what is here: an editable install would hide a forgotten room


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


# --- a method file imports the parts it is made of, other methods, and nothing else of the suite

PARTS = ("fst_bench.slow", "fst_bench.fast")
"""Packages whose modules a method may import; of fst_bench.method only the names that it exports."""
FILES = sorted(path for path in Path(methods.__path__[0]).glob("*.py") if path.stem != "__init__")


def forbidden(text: str) -> list[str]:
    """Return the imports of a method file that the rule does not allow."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.partition(".")[0] == "fst_bench"]
        elif isinstance(node, ast.ImportFrom) and node.level:
            siblings = {path.stem for path in FILES}
            found += ["." * node.level + (node.module or "")] if node.level > 1 or node.module not in siblings else []
        elif isinstance(node, ast.ImportFrom) and node.module == "fst_bench.method":
            found += [name.name for name in node.names if name.name not in fst_bench.method.__all__]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "fst_bench":
            found += [node.module] if not f"{node.module}.".startswith(tuple(f"{part}." for part in PARTS)) else []
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_method_imports_its_parts_only(path: Path) -> None:
    assert forbidden(path.read_text()) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from fst_bench.method import Lab, Method", []),
        ("from fst_bench.method import Counted", ["Counted"]),
        ("from fst_bench.method.lab import Lab", ["fst_bench.method.lab"]),
        ("from fst_bench.slow import learn", []),
        ("from fst_bench.slow.losses import nll", []),
        ("from fst_bench.slower import learn", ["fst_bench.slower"]),
        ("from fst_bench.core.types import Rollout", ["fst_bench.core.types"]),
        ("import fst_bench.fast", ["fst_bench.fast"]),
        ("from fst_bench import method", ["fst_bench"]),
        ("from .fst import FST", []),
        ("from .no_such import FST", [".no_such"]),
        ("from ..fst import FST", ["..fst"]),
        ("import math\nfrom pydantic import Field", []),
    ],
)
def test_the_rule_finds_what_it_forbids(line: str, expected: list[str]) -> None:
    assert forbidden(line) == expected


def test_the_files_are_the_methods() -> None:
    assert [path.stem.replace("_", "-") for path in FILES] == list(METHODS) and "fst" in METHODS
