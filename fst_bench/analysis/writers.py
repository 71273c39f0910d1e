"""The one writer of tables as Markdown, LaTeX and CSV, for comparisons and for the leaderboard.

Cells of Markdown and LaTeX are written as they are, so that a caller can set one in bold or make a link of it: text
that a model, a user or a submission wrote goes through `escape_markdown` or `escape_latex` first. `csv_table` escapes
by itself.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence

Rows = Sequence[Sequence[str]]

LATEX = {sign: "\\" + sign for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "±": r"$\pm$",
    "·": r"\textperiodcentered{}",
    "…": r"\dots{}",
    # these three would be read as options of the line break before them
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
}
"""Character -> how LaTeX is given it in running text."""
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""Beginnings of a text that a spreadsheet would take for a formula."""


def markdown_table(head: Sequence[str], rows: Rows) -> str:
    """Return a Markdown table, without a line break at its end."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def latex_table(
    head: Sequence[str],
    rows: Rows,
    caption: str,
    alignment: str,
    float: str = "table*",
    groups: Mapping[str, Rows] | None = None,
) -> str:
    r"""Return a booktabs tabular in a table float, without a line break at its end.

    `alignment` is the argument of tabular, such as lrr. `float` is table, or table* for one as wide as the page, in
    small print. `groups` are further rows by heading, each group below a rule.
    """
    lines = [
        rf"\begin{{{float}}}",
        r"\centering\scriptsize" if float == "table*" else r"\centering",
        rf"\caption{{{caption}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        latex_row(head),
        r"\midrule",
        *map(latex_row, rows),
    ]
    for heading, more in (groups or {}).items():
        lines += [r"\midrule", rf"\multicolumn{{{len(head)}}}{{l}}{{{heading}}} \\", *map(latex_row, more)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", rf"\end{{{float}}}"])


def latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def csv_table(rows: Sequence[Mapping[str, str | float | None]]) -> str:
    """Return CSV with a line a row, below the keys of the first row.

    Texts are escaped and in quotes, numbers are in full precision, and None or NaN is an empty cell. No rows are an
    empty text.
    """
    if not rows:
        return ""
    out = io.StringIO()
    write = csv.DictWriter(out, list(rows[0]), quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    write.writeheader()
    write.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def csv_cell(value: str | float | None) -> str | float:
    if isinstance(value, str):
        return escape_csv(value)
    return "" if value is None or value != value else value


def escape_markdown(text: str) -> str:
    """Return text without a sign of Markdown or HTML, nor what GitHub links by itself: addresses, mail and names."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|~&$@:.])", r"\\\1", text)


def escape_latex(text: str) -> str:
    """Return text as LaTeX prints it."""
    return "".join(LATEX.get(sign, sign) for sign in text)


def escape_csv(text: str) -> str:
    """Return text that no spreadsheet takes for a formula: an apostrophe goes before one."""
    return "'" + text if text.startswith(FORMULA) else text
