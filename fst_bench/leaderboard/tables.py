"""The board's tables for readers, papers and programs: Markdown, LaTeX and CSV of each league, and a short one of all.

They are made of the records of `site`: plain texts, rounded numbers. Every text of an entry is untrusted and is escaped
by its format's own rules.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fst_bench.analysis.writers import csv_table, escape_latex, escape_markdown, latex_table, markdown_table
from fst_bench.leaderboard.standings import COLUMNS

ASIDE = ("anytime", "rollouts", "seconds", "preset")
"""Columns that the index shows only when asked, and that tables for papers leave out."""
SHORT = ("seed", "kl", "rollouts")
"""Columns of the short table that are not ranked."""
CAPTION = (
    "Means over seeds with 95 % t-intervals. A place is an interval: entries whose paired difference holds zero in its "
    "95 % interval share places."
)
LONGEST = 60
"""Characters of a text in a table; the whole is on the entry's page."""
Record = dict[str, Any]
"""An entry as data.json has it."""


def number(x: float | None, digits: int, sign: str = "") -> str:
    return "–" if x is None else f"{x:{sign},.{digits}f}"


def interval(x: Record, digits: int, sign: str = "") -> str:
    return "–" if x["low"] is None else f"{number(x['low'], digits, sign)} to {number(x['high'], digits, sign)}"


def place_text(place: Record | None) -> str:
    if place is None:
        return "–"
    first, last = place["first"], place["last"]
    return f"{first}" if first == last else f"{first}–{last}"


def league_files(entries: list[Record]) -> dict[str, tuple[str, ...]]:
    """Return each league by the stem of its tables' files, in the order of the entries."""
    names: dict[str, tuple[str, ...]] = {}
    for league in dict.fromkeys(tuple(entry["league"].values()) for entry in entries):
        name = re.sub("[^a-z0-9.]+", "-", "-".join(league).lower()).strip("-.")[:100]
        while name in names:  # two leagues that differ in what a file's name can't hold
            name += "-2"
        names[name] = league
    return names


def cells(entry: Record) -> dict[str, str]:
    """Return one row of a table to read, by column, nothing in it escaped."""
    row = {name: cut(entry[name]) for name in ("name", "organisation", "method")}
    row = {"entry": row.pop("name")} | row | {"seeds": str(len(entry["seeds"]))}
    for column in COLUMNS:
        if column.ranked:
            row[f"place: {column.label}"] = place_text(entry["places"].get(column.key))
        if column.key not in ASIDE:
            x = entry["values"][column.key]
            around = "" if x["low"] is None or not column.digits else f" ({interval(x, column.digits)})"
            row[column.label] = number(x["value"], column.digits) + around
    remarks = ["verified"] if entry["verified"] else []
    if entry["unranked"] is not None:
        remarks.append(f"unranked: {cut(entry['unranked'])}")
    return row | {"remarks": ", ".join(remarks)}


UNTRUSTED = ("entry", "organisation", "method", "remarks")
"""Columns of `cells` with texts of a submission."""


def cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def markdown(league: Sequence[str], entries: list[Record]) -> str:
    """Return a league's table for readers, each entry linked to its page."""
    rows = []
    for entry in entries:
        row = {name: escape_markdown(text) if name in UNTRUSTED else text for name, text in cells(entry).items()}
        row["entry"] = f"[{row['entry']}](../{entry['page']})"
        rows.append(list(row.values()))
    head = list(cells(entries[0]))
    return f"**{escape_markdown(' · '.join(league))}.** {CAPTION}\n\n{markdown_table(head, rows)}\n"


def latex(league: Sequence[str], entries: list[Record]) -> str:
    """Return a league's table for papers, as wide as the page."""
    head = [escape_latex(name) for name in cells(entries[0])]
    rows = [[escape_latex(text) for text in cells(entry).values()] for entry in entries]
    alignment = f"lll{'r' * (len(head) - 4)}l"
    return latex_table(head, rows, escape_latex(f"{' · '.join(league)}. {CAPTION}"), alignment) + "\n"


def spreadsheet(entries: list[Record]) -> str:
    """Return a league's table for programs: every column and both ends of its interval."""
    return csv_table([spread(entry) for entry in entries])


def spread(entry: Record) -> dict[str, str | float | None]:
    """Return one row of the CSV."""
    row: dict[str, str | float | None] = {"id": entry["id"]} | entry["league"]
    row |= {name: entry[name] for name in ("name", "organisation", "method")} | {"seeds": len(entry["seeds"])}
    for key in (column.key for column in COLUMNS if column.ranked):
        row |= {f"{key}_place_{end}": entry["places"].get(key, {}).get(end) for end in ("first", "last")}
    for key, x in entry["values"].items():
        row |= {key: x["value"], f"{key}_low": x["low"], f"{key}_high": x["high"]}
    verified = "yes" if entry["verified"] else "no"
    return row | {"verified": verified, "unranked": entry["unranked"] or "", "bundle": entry["bundle"]}


def summary(leagues: Mapping[str, Sequence[str]], entries: list[Record]) -> str:
    """Return every entry in one short Markdown table."""
    rows = [short_cells(e) for league in leagues.values() for e in entries if tuple(e["league"].values()) == league]
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows]) + "\n"


def short_cells(entry: Record) -> dict[str, str]:
    """Return one row of the short table by column, escaped for Markdown."""
    row = {
        "league": escape_markdown(f"{entry['league']['stream']}, {entry['league']['division']}"),
        "entry": escape_markdown(cut(entry["name"])),
    }
    for column in COLUMNS:
        if column.ranked:
            row[f"place: {column.label}"] = place_text(entry["places"].get(column.key))
        if column.ranked or column.key in SHORT:
            x = entry["values"][column.key]
            half = "" if x["half"] is None or not column.digits else f" ± {x['half']:.{column.digits}f}"
            row[column.label] = number(x["value"], column.digits) + half
    return row
