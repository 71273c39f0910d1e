"""README.md and docs/results.md say what the committed runs say, and the README's commands run."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import committed_tables
import pytest
import yaml
from following import ROOT, blocks, follow
from playwright.sync_api import Browser, Page, expect, sync_playwright

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
    seen = [committed_tables.cells(name)["fst - rl", "anytime"] for name in ("continual-4@2", "paper-3@2")]
    assert f"it is behind: {seen[0]} here, {seen[1]} on `paper-3`" in text
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


# --- the documentation site builds strictly and works in a browser: from the disk, phone and desktop, light and dark

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGS = (
    "--no-sandbox --disable-dev-shm-usage --disable-gpu --disable-background-networking "
    "--disable-component-update --disable-sync --no-first-run"
)
LOCAL = ("file:", "data:", "blob:")
PAGES = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it: any warning fails."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS.split())
        yield browser
        browser.close()


Opened = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    """Open a file in a window of its own. At the end: no console error, and only files were requested."""
    wrong: list[str] = []
    contexts = []

    def open_page(path: Path, width: int = 1440, dark: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else wrong.append(request.url),
        )
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def test_every_page_is_in_the_navigation() -> None:
    nav = str(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert [page for page in PAGES if f"{page}.md" not in nav] == []


def test_it_builds_strictly_and_links_to_no_host_for_its_parts(site: Path) -> None:
    assert {path.stem for path in site.glob("*.html")} == {*PAGES, "404"}
    assert (site / "search" / "search_index.js").stat().st_size > 10_000
    api = (site / "api.html").read_text()
    for name in ("Method", "Lab", "learn", "evolve", "ProblemHandle", "SlowSettings", "transfer"):
        assert f">{name}<" in api, name


@in_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440], ids=["phone", "desktop"])
def test_every_page_opens(site: Path, opened: Opened, width: int, dark: bool) -> None:
    page = opened(site / "index.html", width, dark)
    for name in PAGES:
        page.goto((site / f"{name}.html").as_uri())
        assert page.locator("h1").first.is_visible(), name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} scrolls sideways"
        seen = "[...document.querySelectorAll('article img')].filter(img => img.offsetParent !== null)"
        assert page.evaluate(f"{seen}.every(img => img.complete && img.naturalWidth > 0 && img.alt)"), name
        light = page.evaluate(
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(part => part > 128)"
        )
        assert light != dark, name
        if name == "index":
            assert page.evaluate(f"{seen}.map(img => img.src.includes('dark'))") == [dark], (
                "the figure of this scheme, and only that one"
            )


@in_chromium
@pytest.mark.parametrize("width", [390, 1440], ids=["phone", "desktop"])
def test_search_works_from_the_disk(site: Path, opened: Opened, width: int) -> None:
    page = opened(site / "index.html", width)
    page.keyboard.press("/")
    page.keyboard.type("max_metric_calls")
    found = page.locator(".md-search-result__link").first
    expect(found).to_be_visible()
    found.click()
    page.wait_for_url("**/*.html*")
    assert (
        page.locator("mark", has_text="max_metric_calls").first.is_visible()
        or "max_metric_calls" in page.locator("article").inner_text()
    )
