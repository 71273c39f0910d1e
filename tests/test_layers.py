"""The layout shows the architecture: few rooms, imports that only lead down, no circle.

Type-only and lazy imports count.
"""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

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
