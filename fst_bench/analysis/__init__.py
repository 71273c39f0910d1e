"""Finished runs of one stream side by side: tables over seeds, figures with their data, one page.

Everything is read from what each run recorded. Runs that cannot be compared are refused with the reason.
"""

from fst_bench.analysis.page import write_page
from fst_bench.analysis.runs import load, methods_of
from fst_bench.analysis.tables import columns, latex, markdown, spreadsheet, tables, terminal

__all__ = [
    "columns",
    "latex",
    "load",
    "markdown",
    "methods_of",
    "spreadsheet",
    "tables",
    "terminal",
    "write_page",
]
