"""The leaderboard's pages: an index that opens offline, a page for each entry, the data, and a table for each league.

`build_site` writes the same bytes for the same standings on any machine: numbers are rounded before they are written, and there is no date
and no path. Every text of an entry is a stranger's: it is cleaned once (`plain`) where the record of an entry is made, of which everything else is
made, and escaped by each format's own rules. Nothing is fetched; the index runs two scripts, both inside it and named by their hash in its policy.
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
from fst_bench.analysis.figures import continual, evidence
from fst_bench.analysis.report import environment
from fst_bench.analysis.report.figures import kl_accuracy, to_svg
from fst_bench.analysis.report.prompts import cycles
from fst_bench.analysis.report.tables import number as count
from fst_bench.analysis.runs import Finished, Runs
from fst_bench.harness.store import write_atomic
from fst_bench.leaderboard.standings import COLUMNS, Entry, League, Standing
from fst_bench.leaderboard.tables import (
    ASIDE,
    Record,
    interval,
    latex,
    markdown,
    place_text,
    said,
    spreadsheet,
    summary,
    tabled,
)
from fst_bench.metrics.transfer import trained

FACETS = (*League._fields, "method")


@dataclass(frozen=True)
class Removed:
    """An entry that was taken off the board; it stays named, with the reason."""

    name: str
    organisation: str
    stream: str
    date: str
    reason: str


def build_site(standings: Sequence[Standing], removed: Sequence[Removed], out: Path) -> Path:
    """Into `out`: index.html, entries/ID.html, data.json, tables/LEAGUE.md, .csv and .tex, tables/summary.md; pages of entries and leagues that are gone are deleted.

    Returns the index. `standings` in the order to show.
    """
    entries, gone = [record(standing) for standing in standings], [line(asdict(r)) for r in removed]
    env = templates()
    columns = [
        {name: getattr(c, name) for name in ("key", "label", "note", "digits", "better", "ranked")} for c in COLUMNS
    ]
    files = {"data.json": as_json({"format": 1, "columns": columns, "entries": entries, "removed": gone})}
    leagues = tabled(entries)
    for name, league in leagues.items():
        mine = [e for e in entries if tuple(e["league"].values()) == league]
        files |= {
            f"tables/{name}.md": markdown(league, mine),
            f"tables/{name}.csv": spreadsheet(mine),
            f"tables/{name}.tex": latex(league, mine),
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
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control characters, what turns or hides the text around it, halves of characters."""


def plain(value: Any) -> Any:
    """A stranger's value with its texts, keys too, made safe to write anywhere once they are escaped; what is no number becomes None."""
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
    """`plain`, each text on one line."""
    return (
        {key: line(item) for key, item in value.items()} if isinstance(value, dict) else " ".join(plain(value).split())
    )


def rounded(x: float, digits: int) -> float | None:
    """None for NaN. Rounded twice, so that the last bits of a machine's arithmetic can't turn an exact half either way."""
    if not math.isfinite(x):
        return None
    return round(round(float(x), 9), digits) + 0.0 if digits else round(round(float(x), 6))


def record(standing: Standing) -> Record:
    """An entry as data.json has it: texts plain, numbers rounded."""
    entry, values = standing.entry, standing.entry.values
    assert re.fullmatch("[a-z0-9-]+", entry.id), entry.id
    runs = in_order(entry)

    def around(x: Any, digits: int) -> Record:
        return {name: rounded(getattr(x, name), digits) for name in ("value", "low", "high")}

    return {
        "id": entry.id,
        "page": f"entries/{entry.id}.html",
        "league": line(entry.league._asdict()),
        "name": line(entry.name) or entry.id,
        **{name: line(getattr(entry, name)) for name in ("organisation", "method", "code", "bundle")},
        **{name: plain(getattr(entry, name)) for name in ("note", "command", "settings")},
        "seeds": [run.seed for run in runs],
        "places": {key: {"first": place.first, "last": place.last} for key, place in standing.places.items()},
        "values": {
            c.key: around(values[c.key], c.digits)
            | {
                "half": rounded((values[c.key].high - values[c.key].low) / 2, c.digits),
                "seeds": [rounded(c.of(run), c.digits) for run in runs],
            }
            for c in COLUMNS
        },
        "differences": {
            c.key: {other: around(d, c.digits) for other, d in standing.differences[c.key].items()}
            for c in COLUMNS
            if c.key in standing.differences
        },
        "verified": [line(found) for found in entry.verified],
        "unranked": None if entry.unranked is None else line(entry.unranked),
    }


def in_order(entry: Entry) -> Runs:
    return tuple(sorted(entry.runs, key=lambda run: run.seed))


def facet(entry: Record, name: str) -> str:
    return entry["method"] if name == "method" else entry["league"][name]


def as_json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


# --- the pages


def with_interval(x: Record, digits: int) -> Markup:
    value = said(x["value"], digits)
    return Markup(
        value if x["low"] is None or not digits else f'{value} <span class="range">{interval(x, digits)}</span>'
    )


def difference(x: Record, digits: int) -> Markup:
    value = said(x["value"], digits, "+")
    clear = x["low"] is not None and (x["low"] > 0 or x["high"] < 0)
    return Markup(
        f'{f"<strong>{value}</strong>" if clear else value} <span class="range">{interval(x, digits, "+")}</span>'
    )


def templates() -> jinja2.Environment:
    env = environment(__package__)
    env.globals |= {"own_style": Markup(asset("board.css")), "columns": COLUMNS}
    env.filters |= {
        "facet": facet,
        "said": said,
        "interval": interval,
        "number": with_interval,
        "difference": difference,
        "place": place_text,
    }
    env.filters |= {"count": count}
    return env


def asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def heads() -> list[Record]:
    """The index's columns, in order."""
    made: list[Record] = [{"name": "entry", "label": "entry", "note": "Its name, and whose it is."}]
    made.append({"name": "stream", "label": "stream", "note": "Name and version."})
    for c in COLUMNS:
        if c.ranked:
            note = f"Among the entries of its league, by {c.label}."
            made.append(
                {"name": f"place-{c.key}", "label": f"place: {c.label}", "note": note, "place": c.key, "kind": "number"}
            )
        made.append({"name": c.key, "label": c.label, "note": c.note, "column": c, "kind": f"number {c.better}"})
    made.append({"name": "seeds", "label": "seeds", "note": "How many runs.", "kind": "number"})
    made += [{"name": name, "label": name, "note": ""} for name in ("method", "model", "preset", "division")]
    return [{"kind": "text", "place": "", "column": None} | head | {"aside": head["name"] in ASIDE} for head in made]


def index_page(
    env: jinja2.Environment, entries: list[Record], removed: list[Record], leagues: dict[str, tuple[str, ...]]
) -> str:
    scripts = [asset("assets/dataTables.min.js"), asset("board.js")]
    assert not any("</script" in script or "\r" in script for script in scripts), (
        "they would end early, or hash otherwise"
    )
    hashes = [Markup(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'") for s in scripts]
    facets = {name: sorted({facet(entry, name) for entry in entries}) for name in FACETS}
    return env.get_template("index.html.jinja").render(
        entries=entries,
        removed=removed,
        leagues=leagues,
        heads=heads(),
        facets=facets,
        hashes=hashes,
        scripts=[Markup(s) for s in scripts],
    )


def entry_page(env: jinja2.Environment, entry: Entry, shown: Record, entries: list[Record]) -> str:
    runs = in_order(entry)
    league = [other for other in entries if other["league"] == shown["league"] and other["unranked"] is None]
    spent = [ledger(run) for run in runs]
    return env.get_template("entry.html.jinja").render(
        entry=shown,
        view=urlencode(shown["league"]),
        competing=len(league),
        others=[other for other in league if other["id"] != entry.id] if shown["differences"] else [],
        figures=figures(runs),
        prompts={seed: told(entry.prompts[seed], runs) for seed in sorted(entry.prompts) if entry.prompts[seed]},
        ledger={name: [s.get(name) for s in spent] for name in dict.fromkeys(name for s in spent for name in s)},
        environment=plain(entry.environment),
    )


def ledger(run: Finished) -> Record:
    """What was spent, one level deep: 'rollouts: train'."""
    parts = {name: value if isinstance(value, dict) else {"": value} for name, value in plain(run.ledger).items()}
    return {
        (f"{name}: {part}" if part else name).replace("_", " "): value
        for name, values in parts.items()
        for part, value in values.items()
    }


def told(rows: list[Record], runs: Runs) -> list[Record]:
    """The best prompt of every cycle, as changes to the one before."""
    tasks, seed_prompt = {stage["stage"]: stage["task"] for stage in runs[0].stages}, runs[0].same["seed_prompt"]
    return [
        {
            "problems": c["row"]["problems"],
            "stage": c["row"]["stage"],
            "task": c["task"],
            "score": c["best"]["score"],
            "changes": c["changes"],
        }
        for c in cycles(plain(rows), seed_prompt, tasks)
    ]


OWN = "under the method's own prompt"


def figures(runs: Runs) -> dict[str, Record]:
    """SVG and caption of both figures. No text of a stranger is in them."""
    runs = tuple(replace(run, method=OWN) for run in runs)
    tasks = list(dict.fromkeys(task for stage in runs[0].stages for task in trained(stage["task"])))
    drawn = continual(runs)
    edges = [float(np.mean([run.stages[i]["end"] for run in runs])) for i in range(len(runs[0].stages))]
    points = []
    for task in tasks:
        curve = curve_of(runs, OWN, task)
        stage = np.where(curve.problems > 0, np.searchsorted(edges, curve.problems) + 1, 0)
        points.append(
            pd.DataFrame({"task": task, "stage": stage, "kl": curve.kl.mean(0), "accuracy": curve.accuracy.mean(0)})
        )
    stages = pd.DataFrame([{"stage": i + 1, "task": s["task"]} for i, s in enumerate(runs[0].stages)])
    path = kl_accuracy(pd.concat(points, ignore_index=True).dropna(), stages, tasks)
    last = ", ".join(f"{task} {rows['accuracy'].iloc[-1]:.2f}" for task, rows in zip(tasks, points, strict=True))
    caption = (
        "How far the model moved for what it gained: a point an evaluation under the method's own prompt, joined in time order up to the ring; x the mean KL to the base in nats "
        f"per token of its own answers, y the accuracy; filled points are in the task's own stage; {evidence(runs).replace('means and 95 % t-intervals', 'means')}."
    )
    return {
        "continual": {
            "svg": Markup(
                to_svg(drawn.figure, "continual", f"Accuracy over problems seen, a line a task. Last: {last}.")
            ),
            "caption": drawn.caption,
        },
        "drift": {
            "svg": Markup(to_svg(path, "drift", "Accuracy against KL to the base, a panel a task.")),
            "caption": caption,
        },
    }
