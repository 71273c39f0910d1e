"""The tables of README.md and docs/results.md, from the committed runs.

`python tests/docs/committed_tables.py` writes them again.
"""

import re
from functools import cache
from pathlib import Path

from fst_bench.analysis import load, markdown, tables

ROOT = Path(__file__).parents[2]
METHODS = ("base", "gepa", "rl", "fst")
PLACE = re.compile(r"(<!-- compare results/(\S+) (\w+) -->\n)(?:\n(?:\|.*\n)+)*")
"""A marker, and the tables under it."""
SHOWN = ("end-of-stage accuracy", "online accuracy", "end, own prompt", "end, seed prompt", "KL")
"""The columns of the README's table."""


@cache
def compared(stream: str) -> dict[str, str]:
    """Title -> its Markdown rows as `fst-bench compare` prints them: means, an empty line, differences to rl."""
    made = tables(load([ROOT / "results" / stream / method for method in METHODS]))
    return {
        table.title: "\n".join(line for line in markdown(table).splitlines() if not line.startswith("**")).strip()
        for table in made
    }


def results_page(text: str) -> str:
    """docs/results.md with the tables of the committed runs."""
    return PLACE.sub(lambda found: f"{found[1]}\n{compared(found[2])[found[3]]}\n", text)


@cache
def cells(stream: str) -> dict[tuple[str, str], str]:
    """(row, column) -> what `compare` writes in a cell; rows are methods and, of differences to rl, "fst - rl"."""
    found: dict[tuple[str, str], str] = {}
    for table in tables(load([ROOT / "results" / stream / method for method in METHODS])):
        for rows, ending in ((table.rows, ""), (table.differences, f" - {table.reference}")):
            for row in rows:
                found |= {
                    (row.label + ending, name): str(cell) for name, cell in zip(table.columns, row.cells, strict=True)
                }
    return found


def readme_rows() -> list[str]:
    """The rows of the README's table."""
    found = cells("continual-4@2")
    return [f"| {method} | {' | '.join(found[method, name] for name in SHOWN)} |" for method in METHODS]


def readme(text: str) -> str:
    """README.md with the table of the committed runs."""
    head = f"| method | {' | '.join(SHOWN)} |\n" + "|" + " --- |" * (len(SHOWN) + 1) + "\n"
    return re.sub(r"\| method \| end-of-stage.*\n(\|.*\n)+", lambda _: head + "\n".join(readme_rows()) + "\n", text)


if __name__ == "__main__":
    for path, written in ((ROOT / "README.md", readme), (ROOT / "docs" / "results.md", results_page)):
        path.write_text(written(path.read_text()))
