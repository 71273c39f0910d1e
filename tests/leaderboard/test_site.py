"""The site's files: the same bytes anywhere, rounded numbers, and untrusted texts that stay texts in every format."""

import base64
import csv
import hashlib
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from board_entries import GONE, HARM, Other, board, entry, harmful
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import fst_bench.leaderboard
from fst_bench.analysis.writers import escape_csv, escape_latex, escape_markdown
from fst_bench.harness.run import Run
from fst_bench.leaderboard.site import Removed, asset, build_site, line, plain, rounded
from fst_bench.leaderboard.standings import COLUMNS, standings
from fst_bench.leaderboard.tables import cut, league_files

LEAGUE = "continual-4-2-embedded-tiny-tiny-open"


class Parsed(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.inside = ""
        self.feed(path.read_bytes().decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self.inside == "script" and data.strip():
            self.scripts.append(data)
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_site(board(), GONE, tmp_path_factory.mktemp("site")).parent


@pytest.fixture(scope="module")
def adversarial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    entries = [entry("continual-4@2", "gepa", seeds=2), *map(harmful, range(len(HARM)))]
    gone = [Removed(text, text, text, text, text) for text in HARM]
    return build_site(standings(entries), gone, tmp_path_factory.mktemp("adversarial")).parent


def data(out: Path) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads((out / "data.json").read_text("ascii"), parse_constant=refuse)


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_which_files_there_are(out: Path) -> None:
    tables = [
        f"tables/{name}.{kind}"
        for name in (LEAGUE, "paper-3-2-embedded-tiny-tiny-open")
        for kind in ("csv", "md", "tex")
    ]
    assert sorted(files(out)) == sorted(
        ["index.html", "data.json", "tables/summary.md", *tables, *(f"entries/{s.entry.id}.html" for s in board())]
    )


def test_every_link_has_its_target_and_nothing_is_fetched(out: Path) -> None:
    for path in out.rglob("*.html"):
        page = Parsed(path)
        for link in (link for link in page.values("href") if not link.startswith("#")):
            target = (path.parent / link.split("#")[0]).resolve()
            assert target.is_file() or target == (out / "../docs/leaderboard.md").resolve(), link
        assert not page.tags.keys() & {"link", "img", "iframe", "object", "embed", "base", "image"} and not page.values(
            "src"
        )
        assert all(link.startswith("#") for link in page.values("xlink:href"))
        assert (
            page.tags["script"] == (4 if path.name == "index.html" else 0)
            and "@import" not in path.read_text().split("<script>")[0]
        )


def test_the_policy_names_the_scripts_by_their_hash(out: Path) -> None:
    page = Parsed(out / "index.html")
    (policy,) = [value for value in page.values("content") if "default-src" in value]
    hashes = [
        "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts
    ]
    assert (
        policy.startswith("default-src 'none';")
        and re.findall(r"'(sha256-[^']+)'", policy) == hashes
        and len(hashes) == 4
    )
    assert (
        "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
        and "connect-src" not in policy
        and "img-src" not in policy
    )


@pytest.mark.parametrize(("file", "name"), [("dataTables.min.js", "DataTables "), ("chart.min.js", "Chart.js v")])
def test_a_vendored_file_is_the_one_its_readme_names(file: str, name: str) -> None:
    text, (line,) = (
        asset(f"assets/{file}"),
        [line for line in asset("assets/README.md").splitlines() if f"`{file}`" in line],
    )
    version = re.search(rf"{name}(\S+)", text)
    assert version and f"| {version[1]} |" in line and hashlib.sha256(text.encode()).hexdigest() in line
    assert len(asset("board.js").splitlines()) < 120


BUILD = """
import locale, sys, time
from pathlib import Path
locale.setlocale(locale.LC_ALL, "")
time.tzset()
from board_entries import GONE, entry, harmful
from fst_bench.leaderboard.site import build_site
from fst_bench.leaderboard.standings import standings
entries = [entry("continual-4@2", "fst", 2), entry("continual-4@2", "rl", 2), harmful(4)]
build_site(standings(entries), GONE, Path(sys.argv[1]))
"""


def test_the_same_bytes_elsewhere(tmp_path: Path) -> None:
    elsewhere = [
        {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONHASHSEED": "1"},
        {"TZ": "America/St_Johns", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2"},
    ]
    made = []
    for i, change in enumerate(elsewhere):
        room = tmp_path / f"room {i}"
        room.mkdir()
        env = (
            os.environ
            | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])}
            | change
        )
        subprocess.run([sys.executable, "-c", BUILD, str(room / "site")], check=True, env=env, cwd=room)
        made.append(files(room / "site"))
    assert list(made[0]) == list(made[1]) and len(made[0]) == 9
    assert [name for name in made[0] if made[0][name] != made[1][name]] == []
    for name, content in made[0].items():
        assert b"room 0" not in content and str(tmp_path).encode() not in content, name


def test_built_again_over_another_one_only_its_own_is_there(tmp_path: Path) -> None:
    one, two = entry("continual-4@2", "rl", 2), entry("paper-3@2", "rl", 2)
    build_site(standings([one, two]), GONE, tmp_path)
    (tmp_path / "CNAME").write_text("board.example.org")
    build_site(standings([one]), [], tmp_path)
    again = files(tmp_path)
    assert sorted(again) == [
        "CNAME",
        "data.json",
        "entries/continual-4-2-rl.html",
        "index.html",
        *(f"tables/{LEAGUE}.{kind}" for kind in ("csv", "md", "tex")),
        "tables/summary.md",
    ]
    assert b"Removed entries" not in again["index.html"] and b"paper-3" not in again["index.html"]
    fresh = tmp_path / "fresh"
    build_site(standings([one]), [], fresh)
    assert files(fresh) == {name: content for name, content in again.items() if name != "CNAME"}


def test_a_board_without_entries(tmp_path: Path) -> None:
    build_site([], [], tmp_path)
    assert data(tmp_path)["entries"] == [] and sorted(files(tmp_path)) == ["data.json", "index.html"]


def test_data(out: Path) -> None:
    made = data(out)
    assert list(made) == ["columns", "entries", "format", "removed"] and made["format"] == 2
    assert [c["key"] for c in made["columns"]] == [c.key for c in COLUMNS] and made["columns"][0]["ranked"] is True
    (gone,) = made["removed"]
    assert (gone["name"], gone["organisation"], gone["stream"]) == ("Too good", "Somebody", "paper-3@2")
    assert (gone["date"], gone["reason"]) == ("2026-05-01", "its runs could not be made again")
    assert [e["id"] for e in made["entries"]] == [s.entry.id for s in board()]
    fst = next(e for e in made["entries"] if e["id"] == "continual-4-2-fst")
    runs = entry("continual-4@2", "fst").runs
    end = fst["values"]["end"]
    assert end["seeds"] == [round(run.metrics["final_average"]["system"], 3) for run in runs] and fst["seeds"] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert end["value"] == pytest.approx(sum(end["seeds"]) / 5, abs=0.001) and end["low"] < end["value"] < end["high"]
    assert (fst["places"]["end"], fst["places"]["online"]) == ({"first": 1, "last": 2}, {"first": 1, "last": 1})
    assert (
        fst["differences"]["end"]["continual-4-2-rl"]["low"] < 0 < fst["differences"]["end"]["continual-4-2-rl"]["high"]
    )
    assert (out / fst["page"]).is_file() and fst["verified"] and fst["unranked"] is None
    assert fst["league"] == {"stream": "continual-4@2", "model": "embedded:tiny", "preset": "tiny", "division": "open"}
    gepa = next(e for e in made["entries"] if e["id"] == "continual-4-2-gepa")
    assert gepa["places"] == gepa["differences"] == {} and "10 seeds" in gepa["unranked"]


def test_numbers_are_rounded_before_they_are_written(out: Path) -> None:
    digits = {c.key: c.digits for c in COLUMNS}

    def check(value: Any, key: str) -> None:
        if isinstance(value, dict):
            for item in value.values():
                check(item, key)
        elif isinstance(value, list):
            for item in value:
                check(item, key)
        elif value is None:
            assert key in ("greedy", "forgetting"), key  # not measured, or not defined
        elif digits[key] == 0:
            assert isinstance(value, int), (key, value)
        else:
            assert (
                value == round(value, digits[key])
                and digits[key] <= 4
                and not (value == 0 and math.copysign(1, value) < 0)
            )

    for made in data(out)["entries"]:
        for part in ("values", "differences"):
            for key, value in made[part].items():
                check(value, key)
    written = (
        (out / f"tables/{LEAGUE}.csv").read_text()
        + Parsed(out / "index.html").text
        + " ".join(Parsed(out / "index.html").values("data-order"))
    )
    assert not re.search(r"\d\.\d{5}", written)


@given(st.integers(-4000, 4000))
def test_an_exact_half_is_rounded_alike_on_every_machine(n: int) -> None:
    half = (n + 0.5) / 1000
    assert rounded(half * (1 + 3e-16), 3) == rounded(half * (1 - 3e-16), 3) == rounded(half, 3)


def test_rounded() -> None:
    assert (rounded(0.12345, 3), rounded(1234.5678, 0), rounded(math.nan, 3), rounded(math.inf, 0)) == (
        0.123,
        1235,
        None,
        None,
    )
    assert math.copysign(1, rounded(-0.0001, 3) or 0.0) == 1


class WithoutOracle(Other):
    """A run without evaluations under the oracle prompt."""

    def read(self, name: str) -> dict[str, Any]:
        return self.source.read(name) | ({"final_average": {"system": 0.5}} if name == "metrics" else {})


def test_no_number_is_null_in_data_and_a_dash_on_pages(tmp_path: Path) -> None:
    rl = entry("continual-4@2", "rl", 1)
    rl = replace(rl, runs=tuple(Run(WithoutOracle(run.source)) for run in rl.runs))
    build_site(standings([rl, entry("continual-4@2", "fst", 1)]), [], tmp_path)
    shown = next(e for e in data(tmp_path)["entries"] if e["method"] == "rl")
    assert shown["values"]["oracle"] == {"value": None, "low": None, "high": None, "half": None, "seeds": [None]}
    assert shown["values"]["end"] == {"value": 0.5, "low": None, "high": None, "half": None, "seeds": [0.5]}
    for name in ("index.html", shown["page"]):
        text = Parsed(tmp_path / name).text
        assert "–" in text and not re.search(r"\bnan\b|\bNone\b", text)
    (row,) = [row for row in csv.DictReader((tmp_path / f"tables/{LEAGUE}.csv").open()) if row["method"] == "rl"]
    assert (row["oracle"], row["end"], row["end_low"]) == ("", "0.5", "")
    assert (
        "| – |" in (tmp_path / f"tables/{LEAGUE}.md").read_text()
        and "nan" not in (tmp_path / f"tables/{LEAGUE}.tex").read_text()
    )


def test_an_entrys_page(out: Path) -> None:
    page = Parsed(out / "entries/continual-4-2-fst.html")
    text = " ".join(page.text.split())
    places = "Place 2 by “tasks so far”, 1–2 by “end of stream” and 1 by “online accuracy”, of 3 ranked in its league."
    assert places in text
    assert "Reference runs of the paper's method." in text and "the same numbers, bit for bit" in text
    assert "fst-bench run --stream continual-4 --method fst --seed 0" in text and "ab" * 32 in text
    assert "slow.ratio_clip_max5" in text.replace(" ", "") and "AMD EPYC" in text and "rollouts: train" in text
    for run in entry("continual-4@2", "fst").runs:
        assert f"{run.metrics['final_average']['system']:.3f}" in text and f"{run.ledger['sampled_tokens']:,}" in text
    assert {"continual-4-2-rl.html", "continual-4-2-base.html"} <= set(
        page.values("href")
    ) and "continual-4-2-gepa.html" not in page.values("href")
    assert page.tags["svg"] == page.tags["figcaption"] == 2 and all(page.values("aria-label")) and page.tags["ins"] > 20
    unranked = Parsed(out / "entries/continual-4-2-gepa.html").text
    assert (
        "It has no place: its division asks for 10 seeds, it has 5" in unranked and "Against the others" not in unranked
    )
    base = Parsed(out / "entries/continual-4-2-base.html").text
    assert "This method evolves no prompts." in base and "no seed of it was run again" in base


# --- untrusted texts


@given(st.text())
def test_plain_text_can_be_written_anywhere(text: str) -> None:
    for made in (plain(text), line(text)):
        made.encode()
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", made)
    assert "\n" not in line(text) and plain(plain(text)) == plain(text)


def test_plain_keeps_what_is_said() -> None:
    assert plain("Prüfung שלום 好 🙂\n\tx") == "Prüfung שלום 好 🙂\n\tx" and line(" a\r\n b ") == "a b"
    assert plain("a\u202eb\x00\ud800") == "a�b��"
    assert plain({"k\x00": [math.nan, 1.5, None, True]}) == {"k�": [None, 1.5, None, True]}


@pytest.mark.parametrize("i", range(len(HARM)))
def test_harm_is_only_text_on_pages(adversarial: Path, i: int) -> None:
    plain_tags = Parsed(adversarial / "entries/continual-4-2-gepa.html").tags
    page = Parsed(adversarial / f"entries/harm-{i}.html")
    assert page.tags.keys() <= plain_tags.keys() | {
        "details",
        "summary",
        "div",
        "bdi",
        "h3",
        "ins",
        "del",
        "li",
        "ul",
        "span",
        "dl",
    }
    assert not any(name.startswith("on") for name, _ in page.attributes)
    words = " ".join(plain(HARM[i]).split())
    assert " ".join(page.text.split()).count(words) >= 8, (
        "name, organisation, method, note, command, settings, environment, prompts: whole"
    )


def test_harm_is_only_text_on_the_index(adversarial: Path, out: Path) -> None:
    page = Parsed(adversarial / "index.html")
    assert (
        page.tags.keys() <= Parsed(out / "index.html").tags.keys()
        and page.tags["script"] == 4
        and page.tags["tr"] == 2 + 1 + 2 * len(HARM)
    )
    assert not any(name.startswith("on") for name, _ in page.attributes)
    cells = re.findall(r"<t[dh](?: [^>]*)?>", (adversarial / "index.html").read_text().split("<tbody>")[1])
    assert all(re.fullmatch(r'<t[dh]( (class|data-order|scope)="[\w .-]*")*>', cell) for cell in cells), (
        "no text of theirs in a cell's attribute"
    )


def test_harm_is_data(adversarial: Path) -> None:
    made = {e["id"]: e for e in data(adversarial)["entries"]}
    for i, text in enumerate(HARM):
        entry = made[f"harm-{i}"]
        assert (
            entry["name"] == line(text)
            and entry["note"] == plain(text)
            and entry["settings"] == {plain(text): plain(text), "a": [plain(text)]}
        )


def test_harm_is_only_text_escape_markdown(adversarial: Path) -> None:
    written = (adversarial / f"tables/{LEAGUE}.md").read_text()
    html = MarkdownIt("commonmark").enable("table").render(written)
    (adversarial / "rendered.html").write_text(html)
    page = Parsed(adversarial / "rendered.html")
    assert (
        set(page.tags) == {"p", "strong", "table", "thead", "tbody", "tr", "th", "td", "a"} and page.tags["strong"] == 1
    )
    assert page.tags["tr"] == 1 + 1 + len(HARM) and page.tags["td"] == page.tags["th"] * (1 + len(HARM))
    assert page.values("href") == [f"../{e['page']}" for e in data(adversarial)["entries"]]
    for text in HARM:
        assert cut(line(text)) in page.text
    assert not re.search(r"https?://|www\.|(?<!\\)@\w", written), "GitHub makes links of these by itself"


@given(st.text())
def test_markdown_shows_any_text_as_it_is(text: str) -> None:
    made = MarkdownIt("commonmark").enable("table").renderInline(escape_markdown(line("x" + text + "x")))
    assert "<" not in made, "no element"


@given(st.text(st.sampled_from('\\{}%#^~$&_[]*|<>"ab 1é–\n'), max_size=30))
def test_latex_has_no_sign_of_its_own_left(text: str) -> None:
    written = escape_latex(line(text))
    words = re.sub(
        r"\\(text(backslash|asciicircum|asciitilde|less|greater|bar|quotedbl|periodcentered)|dots)\{\}|\\[&%$#_{}]",
        "",
        written,
    )
    assert not set(re.sub(r"\{[\[\]*]\}", "", words)) & set('\\{}%#^~$&_[]*|<>"')


def test_harm_is_only_text_escape_latex(adversarial: Path) -> None:
    lines = (adversarial / f"tables/{LEAGUE}.tex").read_text().splitlines()
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert len(body) == 1 + len(HARM) and all(row.endswith(r" \\") for row in body)
    assert {len(re.findall(r"(?<!\\)&", row)) for row in body} == {
        len(re.findall("&", lines[lines.index(r"\toprule") + 1]))
    }
    commands = set(re.findall(r"\\([a-zA-Z]+)", "\n".join(body)))
    assert commands <= {
        "textbackslash",
        "textasciicircum",
        "textasciitilde",
        "textless",
        "textgreater",
        "textbar",
        "textquotedbl",
        "dots",
    }
    assert escape_latex("[1cm]*") == "{[}1cm{]}{*}", "neither is an option of the line break before it"


def test_harm_is_only_text_in_a_spreadsheet(adversarial: Path) -> None:
    rows = {row["id"]: row for row in csv.DictReader((adversarial / f"tables/{LEAGUE}.csv").open(newline=""))}
    assert len(rows) == 1 + len(HARM)
    for i, text in enumerate(HARM):
        for name in ("name", "organisation", "method", "unranked"):
            cell = rows[f"harm-{i}"][name]
            assert cell.removeprefix("'") == line(text) and cell[0] not in "=+-@"
    assert [escape_csv(text) for text in ("=1", "+1", "-1", "@a", "＝1", "a=1", "")] == [
        "'=1",
        "'+1",
        "'-1",
        "'@a",
        "'＝1",
        "a=1",
        "",
    ]
    first = (adversarial / f"tables/{LEAGUE}.csv").read_text().splitlines()[1]
    assert re.match(r'("[^"]*",){8}\d+,', first), "texts in quotes, numbers not"


def test_names_of_files_are_safe_and_each_its_own() -> None:
    def of(**league: str) -> dict[str, Any]:
        return {"league": {"stream": "s@1", "model": "m", "preset": "p", "division": "d"} | league}

    names = league_files(
        [of(model="Org/Model"), of(model="org-model"), of(model="../../x"), of(model="Org/Model"), of(stream="." * 300)]
    )
    assert len(names) == 4 and all(re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name) and len(name) < 110 for name in names)


def test_what_the_site_is_made_of_ships() -> None:
    folder = Path(fst_bench.leaderboard.__file__).parent
    assert {"index.html.jinja", "entry.html.jinja", "board.css", "board.js", "front.js"} <= {
        path.name for path in folder.iterdir()
    }
    assert {path.name for path in (folder / "assets").iterdir()} == {
        "README.md",
        "dataTables.min.js",
        "LICENSES.txt",
        "chart.min.js",
    }


def test_the_short_table_has_every_entry_with_its_places(out: Path) -> None:
    lines = (out / "tables" / "summary.md").read_text().splitlines()
    assert len(lines) == 2 + len(board()) and len({line.count("|") - line.count("\\|") for line in lines}) == 1
    (fst,) = (line for line in lines if "fst as shipped" in line and "continual-4" in line)
    values = entry("continual-4@2", "fst").values
    for key in ("end", "online", "seed", "kl"):
        assert f"| {values[key].value:.3f} ± {(values[key].high - values[key].low) / 2:.3f} |" in fst
