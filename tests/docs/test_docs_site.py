"""The documentation site builds strictly and works in a browser: from the disk, phone and desktop, light and dark."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect, sync_playwright

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
