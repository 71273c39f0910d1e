"""The README's figures are those of the committed runs."""

import subprocess
import sys
from pathlib import Path

from fst_bench.analysis import load, markdown, tables
from fst_bench.analysis.paper import write_page

HOUSE = Path(__file__).parent.parent


def test_the_readmes_tables_are_what_compare_says_of_the_committed_runs() -> None:
    readme = (HOUSE / "README.md").read_text()
    for stream, titles in (
        ("continual-4@2", ("Learning",)),
        ("continual-4-formats-given@1", ("Learning",)),
        ("paper-3@2", ("Learning",)),
    ):
        for table in tables(load([HOUSE / "results" / stream / method for method in ("base", "gepa", "rl", "fst")])):
            if table.title in titles:
                rows = [line for line in markdown(table).splitlines() if line.startswith("|")]
                assert "\n".join(rows[: len(table.rows) + 2]) in readme, (stream, table.title)
                assert "\n".join(rows[len(table.rows) + 2 :]) in readme, (stream, table.title)
                assert {row.seeds for row in table.rows} == {5}


def test_the_papers_page_is_what_the_committed_runs_say(tmp_path: Path) -> None:
    write_page(HOUSE / "results", tmp_path)
    assert (tmp_path / "paper.md").read_text() == (HOUSE / "results" / "paper" / "paper.md").read_text()


def test_the_ablations_page_is_what_the_committed_runs_say() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import ablations; print(ablations.page(), end='')"],
        cwd=HOUSE / "results",
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == (HOUSE / "results" / "ablations.md").read_text()
