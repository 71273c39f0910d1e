"""The page of a comparison: tables and figures in a file that opens offline, and their data alongside."""

from pathlib import Path

from markupsafe import Markup

from fst_bench.analysis.figure_parts import Drawn
from fst_bench.analysis.figures import draw
from fst_bench.analysis.report import environment
from fst_bench.analysis.report.figures import to_svg
from fst_bench.analysis.runs import Runs, same_of
from fst_bench.analysis.tables import Table, latex, markdown, spreadsheet, tables
from fst_bench.harness.rows import label
from fst_bench.harness.store import write_atomic


def write_page(runs: Runs, out: Path, reference: str = "rl") -> Path:
    """Write a comparison into a folder and return its page, compare.html.

    The others are tables.md, tables.csv, tables.tex, and for each figure figures/NAME.svg and NAME.csv.
    """
    made = tables(runs, reference)
    stages = runs[0].stages
    drawn = draw({label(stages[0].tasks) if len(stages) == 1 else "continual": runs}, reference)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "tables.md", "\n\n".join(map(markdown, made)) + "\n")
    write_atomic(out / "tables.tex", "\n\n".join(map(latex, made)) + "\n")
    write_atomic(out / "tables.csv", spreadsheet(made))
    path = out / "compare.html"
    write_atomic(path, render(runs, made, save(drawn, out / "figures")))
    return path


def save(drawn: list[Drawn], folder: Path) -> dict[str, dict[str, str]]:
    """Write each figure and its data; return the SVG and the caption that a page shows, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = {}
    for d in drawn:
        svg = to_svg(d.figure, d.name, d.label)
        write_atomic(folder / f"{d.name}.svg", svg)
        write_atomic(folder / f"{d.name}.csv", d.data.to_csv(index=False))
        shown[d.name] = {"svg": Markup(svg), "caption": d.caption}
    return shown


def render(runs: Runs, made: list[Table], figures: dict[str, dict[str, str]]) -> str:
    """Return the page's HTML."""
    sources = [(run.method, run.seed, run.path) for run in sorted(runs, key=lambda r: (r.method, r.seed))]
    page = environment(__package__).get_template("page.html.jinja")
    return page.render(same=same_of(runs[0]), tables=made, figures=figures, sources=sources)
