"""Tables as Markdown, LaTeX and CSV: their shape, and untrusted text in each."""

import csv
import io
import math

import pytest

from fst_bench.analysis.writers import (
    csv_table,
    escape_csv,
    escape_latex,
    escape_markdown,
    latex_table,
    markdown_table,
)


def test_a_markdown_table() -> None:
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_latex_table() -> None:
    lines = latex_table(["a", "b"], [["1", "2"]], "Words.", "lr").splitlines()
    assert lines == [
        r"\begin{table*}",
        r"\centering\scriptsize",
        r"\caption{Words.}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"a & b \\",
        r"\midrule",
        r"1 & 2 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table*}",
    ]
    narrow = latex_table(["a", "b"], [["1", "2"]], "", "lr", float="table", groups={"more": [["3", "4"]]})
    assert narrow.startswith("\\begin{table}\n\\centering\n") and narrow.endswith(r"\end{table}")
    assert "\\midrule\n\\multicolumn{2}{l}{more} \\\\\n3 & 4 \\\\\n\\bottomrule" in narrow


def test_a_csv_table() -> None:
    rows = [{"a": "x, y", "b": 0.1 + 0.2, "c": None}, {"a": "=1+1", "b": math.nan, "c": 3}]
    text = csv_table(rows)
    assert text == '"a","b","c"\n"x, y",0.30000000000000004,""\n"\'=1+1","",3\n'
    first, second = csv.DictReader(io.StringIO(text))
    assert (first["a"], float(first["b"]), first["c"]) == ("x, y", 0.1 + 0.2, "") and second["a"] == "'=1+1"
    assert csv_table([]) == ""
    with pytest.raises(ValueError, match="fields not in fieldnames"):
        csv_table([{"a": 1}, {"a": 1, "b": 2}])


@pytest.mark.parametrize(
    ("text", "markdown", "latex", "spreadsheet"),
    [
        ("plain – text", "plain – text", "plain -- text", "plain – text"),
        ("a|b <i>", r"a\|b \<i\>", r"a\textbar{}b \textless{}i\textgreater{}", "a|b <i>"),
        ("[x](http://y)", r"\[x\]\(http\://y\)", "{[}x{]}(http://y)", "[x](http://y)"),
        (r"\input{x}", r"\\input\{x\}", r"\textbackslash{}input\{x\}", r"\input{x}"),
        ("=HYPERLINK(1)", r"=HYPERLINK\(1\)", "=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("＠mention_", "＠mention\\_", "＠mention\\_", "'＠mention_"),
        ("50 % ± 1", "50 % ± 1", r"50 \% $\pm$ 1", "50 % ± 1"),
    ],
)
def test_untrusted_text_is_only_text(text: str, markdown: str, latex: str, spreadsheet: str) -> None:
    assert (escape_markdown(text), escape_latex(text), escape_csv(text)) == (markdown, latex, spreadsheet)
