"""The leaderboard's pages: an index that opens offline, a page for each entry, the data, and tables for each league.

`build_site` writes the same bytes for the same standings on any machine: numbers are rounded before they are written,
and nothing is dated or names a place. Every text of an entry is untrusted: it is cleaned once (`plain`) where the
record of an entry is made, of which everything else is made, and escaped by each format's own rules. Nothing is
fetched; the index runs four scripts, all inside it and named by their hash in its policy.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from fst_bench.analysis.curves import curve_of
from fst_bench.analysis.figure_parts import evidence
from fst_bench.analysis.figures import continual
from fst_bench.analysis.report import environment
from fst_bench.analysis.report.figures import kl_accuracy, to_svg
from fst_bench.analysis.report.prompts import Cycle, cycles
from fst_bench.analysis.report.tables import number as count
from fst_bench.harness.rows import PopulationRow, label
from fst_bench.harness.run import Run
from fst_bench.harness.store import write_atomic
from fst_bench.leaderboard.standings import COLUMNS, Column, Entry, League, Standing
from fst_bench.leaderboard.tables import (
    ASIDE,
    Record,
    interval,
    latex,
    league_files,
    markdown,
    number,
    place_text,
    spreadsheet,
    summary,
)
from fst_bench.metrics import Estimate

FORMAT = 2
"""Version of data.json: another one has other keys."""
FACETS = (*League._fields, "method")
"""Fields that the index can be filtered by."""


@dataclass(frozen=True)
class Removed:
    """An entry that was taken off the board; it stays named, with the reason."""

    name: str
    organisation: str
    stream: str
    date: str
    reason: str


def build_site(standings: Sequence[Standing], removed: Sequence[Removed], out: Path) -> Path:
    """Write the site into `out` and return its index.

    It is index.html, entries/ID.html, data.json, tables/LEAGUE.md, .csv and .tex, and tables/summary.md; pages of
    entries and leagues that are gone are deleted. `standings` are in the order to show.
    """
    entries, gone = [record(standing) for standing in standings], [line(asdict(r)) for r in removed]
    env = templates()
    columns = [
        {name: getattr(c, name) for name in ("key", "label", "note", "digits", "better", "ranked")} for c in COLUMNS
    ]
    files = {"data.json": as_json({"format": FORMAT, "columns": columns, "entries": entries, "removed": gone})}
    leagues = league_files(entries)
    for name, league in leagues.items():
        members = [e for e in entries if tuple(e["league"].values()) == league]
        files |= {
            f"tables/{name}.md": markdown(league, members),
            f"tables/{name}.csv": spreadsheet(members),
            f"tables/{name}.tex": latex(league, members),
        }
    for standing, entry in zip(standings, entries, strict=True):
        files[entry["page"]] = entry_page(env, standing.entry, entry, entries)
    if entries:
        files["tables/summary.md"] = summary(leagues, entries)
    files["index.html"] = index_page(env, entries, gone, leagues)
    for folder in (out / "entries", out / "tables"):
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if f"{folder.name}/{path.name}" not in files and path.suffix in (".html", ".md", ".csv", ".tex"):
                path.unlink()
    for name, text in files.items():
        write_atomic(out / name, text)
    return out / "index.html"


# --- from a standing to what is published of it


UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufffe\uffff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
"""Control characters, those that turn or hide the text around them, halves of characters."""


def plain(value: Any) -> Any:
    """Return an untrusted value with its texts, keys too, safe to write anywhere once they are escaped; NaN is None."""
    if isinstance(value, str):
        return UNSEEN.sub("\ufffd", value.replace("\r\n", "\n"))
    if isinstance(value, dict):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def line(value: Any) -> Any:
    """Return `plain(value)`, each text on one line."""
    if isinstance(value, dict):
        return {key: line(item) for key, item in value.items()}
    return " ".join(plain(value).split())


def rounded(x: float, digits: int) -> float | None:
    """Return the rounded number, None for NaN.

    It is rounded twice, so that the last bits of a machine's arithmetic can't turn an exact half either way.
    """
    if not math.isfinite(x):
        return None
    return round(round(float(x), 9), digits) + 0.0 if digits else round(round(float(x), 6))


def record(standing: Standing) -> Record:
    """Return an entry as data.json has it: texts plain, numbers rounded."""
    entry, values = standing.entry, standing.entry.values
    assert re.fullmatch("[a-z0-9-]+", entry.id), entry.id

    def around(x: Estimate, digits: int) -> Record:
        return {name: rounded(getattr(x, name), digits) for name in ("value", "low", "high")}

    def over_seeds(column: Column) -> Record:
        mean, seeds = values[column.key], [rounded(column.of(run), column.digits) for run in entry.runs]
        return around(mean, column.digits) | {"half": rounded(mean.half, column.digits), "seeds": seeds}

    return {
        "id": entry.id,
        "page": f"entries/{entry.id}.html",
        "league": line(entry.league._asdict()),
        "name": line(entry.name) or entry.id,
        **{name: line(getattr(entry, name)) for name in ("organisation", "method", "code", "bundle")},
        **{name: plain(getattr(entry, name)) for name in ("note", "command", "settings")},
        "seeds": [run.seed for run in entry.runs],
        "places": {key: {"first": place.first, "last": place.last} for key, place in standing.places.items()},
        "values": {column.key: over_seeds(column) for column in COLUMNS},
        "differences": {
            column.key: {other: around(d, column.digits) for other, d in standing.differences[column.key].items()}
            for column in COLUMNS
            if column.key in standing.differences
        },
        "verified": [line(found) for found in entry.verified],
        "unranked": None if entry.unranked is None else line(entry.unranked),
    }


def facet(entry: Record, name: str) -> str:
    return entry["method"] if name == "method" else entry["league"][name]


def as_json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


# --- the pages


def with_interval(x: Record, digits: int) -> Markup:
    value = number(x["value"], digits)
    if x["low"] is None or not digits:
        return Markup(value)
    return Markup(f'{value} <span class="range">{interval(x, digits)}</span>')


def difference(x: Record, digits: int) -> Markup:
    value = number(x["value"], digits, "+")
    clear = x["low"] is not None and (x["low"] > 0 or x["high"] < 0)
    strong = f"<strong>{value}</strong>" if clear else value
    return Markup(f'{strong} <span class="range">{interval(x, digits, "+")}</span>')


def templates() -> jinja2.Environment:
    env = environment(__package__)
    env.globals |= {"own_style": Markup(asset("board.css")), "columns": COLUMNS}
    env.filters |= {
        "facet": facet,
        "shown": number,
        "interval": interval,
        "with_interval": with_interval,
        "difference": difference,
        "place": place_text,
        "count": count,
    }
    return env


def asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def heads() -> list[Record]:
    """Return the index's columns, in order."""
    made: list[Record] = [
        {"name": "entry", "label": "entry", "note": "Its name, and whose it is."},
        {"name": "stream", "label": "stream", "note": "Name and version."},
    ]
    for c in COLUMNS:
        if c.ranked:
            place = {"label": f"place: {c.label}", "note": f"Among the entries of its league, by {c.label}."}
            made.append({"name": f"place-{c.key}", "place": c.key, "kind": "number"} | place)
        made.append({"name": c.key, "label": c.label, "note": c.note, "column": c, "kind": f"number {c.better}"})
    made.append({"name": "seeds", "label": "seeds", "note": "How many runs.", "kind": "number"})
    made += [{"name": name, "label": name, "note": ""} for name in ("method", "model", "preset", "division")]
    return [{"kind": "text", "place": "", "column": None} | head | {"aside": head["name"] in ASIDE} for head in made]


def index_page(
    env: jinja2.Environment, entries: list[Record], removed: list[Record], leagues: dict[str, tuple[str, ...]]
) -> str:
    scripts = [asset(name) for name in ("assets/dataTables.min.js", "assets/chart.min.js", "board.js", "front.js")]
    for script in scripts:
        assert "</script" not in script and "\r" not in script, "it would end early, or have another hash"
    hashes = [Markup(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'") for s in scripts]
    return env.get_template("index.html.jinja").render(
        entries=entries,
        removed=removed,
        leagues=leagues,
        heads=heads(),
        facets={name: sorted({facet(entry, name) for entry in entries}) for name in FACETS},
        hashes=hashes,
        scripts=[Markup(s) for s in scripts],
    )


def entry_page(env: jinja2.Environment, entry: Entry, shown: Record, entries: list[Record]) -> str:
    league = [other for other in entries if other["league"] == shown["league"] and other["unranked"] is None]
    spent = [ledger(run) for run in entry.runs]
    return env.get_template("entry.html.jinja").render(
        entry=shown,
        view=urlencode(shown["league"]),
        competing=len(league),
        others=[other for other in league if other["id"] != entry.id] if shown["differences"] else [],
        figures=figures(entry.runs),
        prompts={run.seed: cycles_of(run) for run in entry.runs if run.populations},
        ledger={name: [s.get(name) for s in spent] for name in dict.fromkeys(name for s in spent for name in s)},
        environment=plain(entry.runs[0].env),
    )


def ledger(run: Run) -> Record:
    """Return what was spent, one level deep: 'rollouts: train'."""
    parts = {name: value if isinstance(value, dict) else {"": value} for name, value in plain(run.ledger).items()}
    return {
        (f"{name}: {part}" if part else name).replace("_", " "): value
        for name, values in parts.items()
        for part, value in values.items()
    }


def cycles_of(run: Run) -> list[Cycle]:
    """Return the best prompt of every cycle, as changes to the one before."""
    rows = [PopulationRow.model_validate(plain(row.model_dump())) for row in run.populations]
    return cycles(rows, run.saved["seed_prompt"], {stage.stage: label(stage.tasks) for stage in run.stages})


OWN = "under the method's own prompt"


def figures(runs: Sequence[Run]) -> dict[str, Record]:
    """Return SVG and caption of both figures. No text of a submission is in them."""
    drawn_runs = tuple(replace(run, label=OWN) for run in runs)
    stages = drawn_runs[0].stages
    tasks = list(dict.fromkeys(task for stage in stages for task in stage.tasks))
    drawn = continual(drawn_runs)
    ends = [float(np.mean([run.stages[i].end for run in drawn_runs])) for i in range(len(stages))]
    points = []
    for task in tasks:
        curve = curve_of(drawn_runs, OWN, task)
        stage = np.where(curve.problems > 0, np.searchsorted(ends, curve.problems) + 1, 0)
        points.append(
            pd.DataFrame({"task": task, "stage": stage, "kl": curve.kl.mean(0), "accuracy": curve.accuracy.mean(0)})
        )
    path = kl_accuracy(pd.concat(points, ignore_index=True).dropna(), stages, tasks)
    last = ", ".join(f"{task} {rows['accuracy'].iloc[-1]:.2f}" for task, rows in zip(tasks, points, strict=True))
    rests_on = evidence(drawn_runs).replace("means and 95 % t-intervals", "means")
    caption = (
        "How far the model moved for what it gained: a point an evaluation under the method's own prompt, joined in "
        "time order up to the ring; x the mean KL to the base in nats per token of its own answers, y the accuracy; "
        f"filled points are in the task's own stage; {rests_on}."
    )
    over_problems = to_svg(drawn.figure, "continual", f"Accuracy over problems seen, a line a task. Last: {last}.")
    over_drift = to_svg(path, "drift", "Accuracy against KL to the base, a panel a task.")
    return {
        "continual": {"svg": Markup(over_problems), "caption": drawn.caption},
        "drift": {"svg": Markup(over_drift), "caption": caption},
    }
