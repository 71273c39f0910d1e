"""README.md and docs/results.md say what the committed runs say, and the README's commands run."""

import re
import subprocess
import sys
from pathlib import Path

import committed_tables
from following import ROOT, blocks, follow

from fst_bench.analysis.paper import write_page

README = (ROOT / "README.md").read_text()


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 170


def test_the_table_is_what_compare_says_of_the_committed_runs() -> None:
    assert committed_tables.readme(README) == README
    for row in committed_tables.readme_rows():
        assert row in README


def test_the_bullets_say_what_compare_says() -> None:
    hidden, given = committed_tables.cells("continual-4@2"), committed_tables.cells("continual-4-formats-given@1")
    text = " ".join(README.split())
    lead, end = hidden["fst - rl", "online accuracy"], hidden["fst - rl", "end, own prompt"]
    assert f"It leads rl by {lead.removeprefix('+')} in online accuracy" in text
    assert (
        f"{hidden['fst', 'end, own prompt']} against {hidden['rl', 'end, own prompt']} (difference {end}, not clear)"
        in text
    )
    assert f"answer {hidden['fst', 'end, seed prompt']}, rl's {hidden['rl', 'end, seed prompt']}" in text
    assert f"({hidden['rl', '2 codeio']} at the end of the stage, fst {hidden['fst', '2 codeio']})" in text
    assert f"online lead is {given['fst - rl', 'online accuracy'].removeprefix('+')}: not clear" in text


def test_the_results_page_is_what_compare_says_of_the_committed_runs() -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    assert page.count("<!-- compare results/") == 7
    assert committed_tables.results_page(page) == page


def test_the_figure_is_what_the_committed_runs_say(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "docs" / "assets" / "make_figures.py", tmp_path], check=True)
    for name in ("continual-light.svg", "continual-dark.svg"):
        assert name in README
        drawn, committed = ((folder / name).read_text() for folder in (tmp_path, ROOT / "docs" / "assets"))
        now, then = points(drawn), points(committed)
        assert len(now) == len(then), f"{name}: python docs/assets/make_figures.py"
        assert max(abs(x - y) for x, y in zip(now, then, strict=True)) < 1.0, (
            f"{name}: python docs/assets/make_figures.py"
        )


def points(svg: str) -> list[float]:
    """Return every coordinate of every path, in order."""
    paths = re.findall(r'<path [^>]*?\bd="([^"]*)"', svg)
    return [float(number) for path in paths for number in re.findall(r"-?\d+(?:\.\d+)?", path)]


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)", README) + re.findall(r'(?:src|srcset)="([^"]+)"', README):
        assert (ROOT / link).exists(), link


def test_its_layout_is_the_folders() -> None:
    layout = README[README.index("## Repository layout") :]
    rooms = set(re.findall(r"^  (\w+)/ ", layout, re.MULTILINE))
    assert rooms == {path.name for path in (ROOT / "fst_bench").iterdir() if any(path.glob("*.py"))}
    for folder in re.findall(r"^(\w+)/ ", layout, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder


def test_its_commands_run_and_print_what_it_shows(tmp_path: Path) -> None:
    folder, printed = follow(blocks(README), tmp_path)
    assert list(folder.glob("runs/continual-4@*/fst/*/report.html"))
    shown = re.search(r"```text\n(fst on .*?)```", README, re.DOTALL)
    assert shown
    shapes = set(map(shape, printed.splitlines()))
    missing = [line for line in shown[1].splitlines() if line != "..." and shape(line) not in shapes]
    assert missing == [], "output has another form now"


def shape(line: str) -> str:
    """Return a line without its numbers and its preset."""
    return " ".join(re.sub(r"-?\d+(?:[.:]\d+)*", "#", line.replace("preset tiny", "preset smoke")).split())


def test_the_papers_page_is_what_the_committed_runs_say(tmp_path: Path) -> None:
    write_page(ROOT / "results", tmp_path)
    assert (tmp_path / "paper.md").read_text() == (ROOT / "results" / "paper" / "paper.md").read_text()


def test_the_ablations_page_is_what_the_committed_runs_say() -> None:
    printed = subprocess.run(
        [sys.executable, "-c", "import ablations; print(ablations.page(), end='')"],
        cwd=ROOT / "results",
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout == (ROOT / "results" / "ablations.md").read_text()
