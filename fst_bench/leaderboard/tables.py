"""The board's tables for readers, papers and programs: Markdown, LaTeX and CSV, one for each league, and a short one of all.

They are made of the records of `site`: plain texts, rounded numbers. Every text of an entry is escaped by its format's own rules.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fst_bench.leaderboard.standings import COLUMNS

ASIDE = ("anytime", "rollouts", "seconds", "preset")
"""Columns that the index shows only when asked, and that tables for papers leave out."""
Record = dict[str, Any]


def said(x: float | None, digits: int, sign: str = "") -> str:
    return "–" if x is None else f"{x:{sign},.{digits}f}"


def interval(x: Record, digits: int, sign: str = "") -> str:
    return "–" if x["low"] is None else f"{said(x['low'], digits, sign)} to {said(x['high'], digits, sign)}"


def place_text(place: Record | None) -> str:
    return (
        "–"
        if place is None
        else f"{place['first']}"
        if place["first"] == place["last"]
        else f"{place['first']}–{place['last']}"
    )


def tabled(entries: list[Record]) -> dict[str, tuple[str, ...]]:
    """Name of its files -> league, in the order of the entries."""
    names: dict[str, tuple[str, ...]] = {}
    for league in dict.fromkeys(tuple(entry["league"].values()) for entry in entries):
        name = re.sub("[^a-z0-9.]+", "-", "-".join(league).lower()).strip("-.")[:100]
        while name in names:  # two leagues that differ in what a file's name can't hold
            name += "-2"
        names[name] = league
    return names


def cells(entry: Record) -> list[tuple[str, str, bool]]:
    """(column, cell, whether a stranger wrote it) of one row, for tables to read; long texts are cut, they are whole on the entry's page."""
    row = [
        ("entry", cut(entry["name"]), True),
        ("organisation", cut(entry["organisation"]), True),
        ("method", cut(entry["method"]), True),
    ]
    row.append(("seeds", str(len(entry["seeds"])), False))
    for c in COLUMNS:
        if c.ranked:
            row.append((f"place: {c.label}", place_text(entry["places"].get(c.key)), False))
        if c.key not in ASIDE:
            x = entry["values"][c.key]
            around = "" if x["low"] is None or not c.digits else f" ({interval(x, c.digits)})"
            row.append((c.label, said(x["value"], c.digits) + around, False))
    remarks = ["verified"] * bool(entry["verified"]) + (
        [] if entry["unranked"] is None else [f"unranked: {cut(entry['unranked'])}"]
    )
    return [*row, ("remarks", ", ".join(remarks), True)]


def cut(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"


CAPTION = "Means over seeds with 95 % t-intervals. A place is an interval: entries whose paired difference holds zero in its 95 % interval share places."


def markdown(league: Sequence[str], entries: list[Record]) -> str:
    rows = [[in_markdown(text) if foreign else text for _, text, foreign in cells(entry)] for entry in entries]
    for entry, row in zip(entries, rows, strict=True):
        row[0] = f"[{row[0]}](../{entry['page']})"
    head = [name for name, _, _ in cells(entries[0])]
    body = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join([f"**{in_markdown(' · '.join(league))}.** {CAPTION}", "", *body, ""])


def in_markdown(text: str) -> str:
    """No sign of Markdown or HTML is left, nor what GitHub makes links of by itself: addresses, www., mail and names."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|~&$@:.])", r"\\\1", text)


def latex(league: Sequence[str], entries: list[Record]) -> str:
    """A booktabs tabular in a table float as wide as the page."""
    head = [name for name, _, _ in cells(entries[0])]
    lines = [
        r"\begin{table*}",
        r"\centering\scriptsize",
        rf"\caption{{{in_latex(' · '.join(league) + '. ' + CAPTION)}}}",
        rf"\begin{{tabular}}{{lll{'r' * (len(head) - 4)}l}}",
        r"\toprule",
        " & ".join(map(in_latex, head)) + r" \\",
        r"\midrule",
        *(" & ".join(in_latex(text) for _, text, _ in cells(entry)) + r" \\" for entry in entries),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table*}",
    ]
    return "\n".join([*lines, ""])


SIGNS = {sign: "\\" + sign for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
}
SIGNS |= {
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "·": r"\textperiodcentered{}",
    "…": r"\dots{}",
}
SIGNS |= {"[": "{[}", "]": "{]}", "*": "{*}"}  # the last three would be read as options of the line break before them


def in_latex(text: str) -> str:
    return "".join(SIGNS.get(sign, sign) for sign in text)


def spreadsheet(entries: list[Record]) -> str:
    """CSV, a row an entry; every text in quotes, none of them a formula, no number as an empty cell."""
    out = io.StringIO()
    rows = [spread(entry) for entry in entries]
    write = csv.DictWriter(out, list(rows[0]), quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    write.writeheader()
    write.writerows(rows)
    return out.getvalue()


def spread(entry: Record) -> dict[str, str | float]:
    row: dict[str, Any] = (
        {"id": entry["id"]} | entry["league"] | {name: entry[name] for name in ("name", "organisation", "method")}
    )
    row["seeds"] = len(entry["seeds"])
    for key in [c.key for c in COLUMNS if c.ranked]:
        row |= {f"{key}_place_{end}": entry["places"].get(key, {}).get(end) for end in ("first", "last")}
    for key, x in entry["values"].items():
        row |= {key: x["value"], f"{key}_low": x["low"], f"{key}_high": x["high"]}
    row |= {
        "verified": "yes" if entry["verified"] else "no",
        "unranked": entry["unranked"] or "",
        "bundle": entry["bundle"],
    }
    return {
        name: in_csv(value) if isinstance(value, str) else "" if value is None else value for name, value in row.items()
    }


def in_csv(text: str) -> str:
    """What a spreadsheet would take for a formula, behind an apostrophe."""
    return "'" + text if text.startswith(tuple("=+-@＝＋－＠")) else text


SHORT = ("weights", "kl", "rollouts")
"""Of the columns that are not ranked, those of the short table."""


def summary(leagues: Mapping[str, Sequence[str]], entries: list[Record]) -> str:
    """Every entry in one short table, as a README has room for."""
    head = ["league", "entry"]
    for c in COLUMNS:
        head += [f"place: {c.label}"] * c.ranked + [c.label] * (c.ranked or c.key in SHORT)
    rows = []
    for league in leagues.values():
        for entry in (e for e in entries if tuple(e["league"].values()) == league):
            row = [
                in_markdown(f"{entry['league']['stream']}, {entry['league']['division']}"),
                in_markdown(cut(entry["name"])),
            ]
            for c in COLUMNS:
                x = entry["values"][c.key]
                half = "" if x["half"] is None or not c.digits else f" ± {x['half']:.{c.digits}f}"
                row += [place_text(entry["places"].get(c.key))] * c.ranked + [said(x["value"], c.digits) + half] * (
                    c.ranked or c.key in SHORT
                )
            rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]) + "\n"
