"""The pages in a browser, opened from the disk: the table by mouse and by keyboard, in light and dark, on a phone."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from board_entries import GONE, HARM, board, harmful
from playwright.sync_api import Browser, Dialog, Locator, Page, expect, sync_playwright

from fst_bench.leaderboard.site import build_site
from fst_bench.leaderboard.standings import standings

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
ARGS = (
    "--no-sandbox --disable-dev-shm-usage --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
)
FST = "continual-4-2-fst"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_site(board(), GONE, tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def adversarial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_site(
        standings([*(s.entry for s in board()[:2]), *map(harmful, range(len(HARM)))]),
        GONE,
        tmp_path_factory.mktemp("adversarial"),
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS.split())
        yield browser
        browser.close()


Opened = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    """Open an address in a window of its own. At the end nothing went wrong, and nothing but files was asked for."""
    wrong: list[str] = []
    contexts = []

    def dismiss(dialog: Dialog) -> None:
        wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open_page(address: str, width: int = 1600, dark: bool = False, script: bool = True) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", dismiss)
        page.on(
            "request",
            lambda request: None if request.url.startswith("file:") else wrong.append(f"asked for {request.url}"),
        )
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def rows(page: Page) -> list[str]:
    """Return the pages of the entries shown, in order."""
    return [
        Path(address).stem
        for address in page.locator("#board tbody th a").evaluate_all("links => links.map(a => a.getAttribute('href'))")
    ]


def column(page: Page, label: str) -> list[str]:
    labels = page.locator("#board thead th").all_inner_texts()
    at = [" ".join(text.split()) for text in labels].index(label)
    return [text.split()[0] for text in page.locator(f"#board tbody tr > :nth-child({at + 1})").all_inner_texts()]


def header(page: Page, name: str) -> str:
    """Return a column's order as a screen reader has it."""
    return page.locator(f"#board th[data-name={name}]").get_attribute("aria-sort") or ""


def choice(page: Page, facet: str) -> Locator:
    return page.locator(f"select[name={facet}]")


def box(page: Page, name: str) -> Locator:
    return page.locator(f"[name=column][value={name}]")


def sort(page: Page, label: str) -> None:
    before = page.url
    page.locator("#board thead").get_by_role("button", name=re.compile(f"^{re.escape(label)}:")).click()
    page.wait_for_function("before => location.href !== before", arg=before)  # DataTables takes its time


def test_without_script_the_table_is_whole_and_in_order(site: Path, opened: Opened) -> None:
    page = opened(site.as_uri(), script=False)
    assert page.locator("#front").is_hidden()
    assert rows(page) == [s.entry.id for s in board()]
    assert column(page, "place: end of stream") == ["1–2", "1–2", "3", "–", "1", "2"]
    assert (
        page.locator("form#view").is_hidden()
        and page.get_by_text("unranked: its division asks for 10 seeds").is_visible()
    )
    assert page.locator("#board").get_by_text("verified", exact=True).count() == 2


def test_sort(site: Path, opened: Opened) -> None:
    page = opened(site.as_uri())
    assert rows(page) == [s.entry.id for s in board()], "the board's own order comes first"
    sort(page, "end of stream")
    shown = [float(x) for x in column(page, "end of stream")]
    assert shown == sorted(shown, reverse=True) and header(page, "end") == "descending", "more is better: best first"
    sort(page, "end of stream")
    assert [float(x) for x in column(page, "end of stream")] == sorted(shown) and header(page, "end") == "ascending"
    sort(page, "sampled tokens")
    tokens = [int(x.replace(",", "")) for x in column(page, "sampled tokens")]
    assert tokens == sorted(tokens), "by number, and less is better"
    for _ in range(2):  # ascending, descending
        sort(page, "place: end of stream")
        assert rows(page)[-1] == "continual-4-2-gepa", "the unranked one is last both ways"
    assert column(page, "place: end of stream")[:2] == ["3", "2"]


def test_filter_and_search(site: Path, opened: Opened) -> None:
    page = opened(site.as_uri())
    choice(page, "stream").select_option("paper-3@2")
    assert rows(page) == ["paper-3-2-rl", "paper-3-2-fst"]
    expect(page.locator("#status")).to_have_text("2 of 6 entries are shown.")
    choice(page, "method").select_option("fst")
    assert rows(page) == ["paper-3-2-fst"]
    choice(page, "stream").select_option("")
    assert rows(page) == ["continual-4-2-fst", "paper-3-2-fst"]
    page.get_by_label("search").fill("continual")
    assert rows(page) == ["continual-4-2-fst"]
    page.get_by_label("search").fill("nobody's")
    assert rows(page) == [] and page.get_by_text("No entry matches.").is_visible()
    page.get_by_role("link", name="Back to the first view").click()
    expect(page.locator("#status")).to_have_text("All 6 entries are shown.")
    assert page.get_by_label("search").input_value() == ""


def drawn(page: Page) -> int:
    """Return how many pixels of the chart are not transparent."""
    return page.locator("#front canvas").evaluate(
        "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data"
        ".filter((part, i) => i % 4 === 3 && part > 0).length"
    )


@pytest.mark.parametrize(("width", "dark"), [(1600, False), (400, True)])
def test_the_chart_has_the_entries_of_the_table_and_their_fronts(
    site: Path, opened: Opened, width: int, dark: bool
) -> None:
    page = opened(site.as_uri(), width=width, dark=dark)
    entries = [s.entry for s in board()]
    fronts = page.locator("#front li")
    # of each league those that no other beats with as few tokens, by hand
    expected = {}
    for e in sorted(entries, key=lambda e: (e.values["tokens"].value, -e.values["end"].value)):
        kept = expected.setdefault(" · ".join(e.league), [])
        if not kept or e.values["end"].value > kept[-1].values["end"].value:
            kept.append(e)
    texts = dict(text.split(": ", 1) for text in fronts.all_inner_texts())
    assert texts == {league: ", ".join(e.name for e in kept) for league, kept in expected.items()}
    assert len(texts) == 2 and drawn(page) > 1000
    box = page.locator("#front canvas").bounding_box()
    assert box and box["width"] > 0.8 * min(width, 1000) - 40 and box["height"] > 300
    assert page.evaluate("document.documentElement.scrollWidth") == width

    choice(page, "stream").select_option("paper-3@2")
    expect(fronts).to_have_count(1)
    before = page.locator("#front canvas").evaluate("c => c.toDataURL()")
    page.locator("#front select").select_option("online")
    assert page.locator("#front canvas").evaluate("c => c.toDataURL()") != before
    page.get_by_label("search").fill("nobody's")
    expect(fronts).to_have_count(0)


def test_columns_and_intervals(site: Path, opened: Opened) -> None:
    page = opened(site.as_uri())
    kl = box(page, "kl")
    assert not kl.is_visible() and page.get_by_role("columnheader", name="KL to the base").count() == 1
    page.get_by_text("Choose columns").click()
    kl.uncheck()
    box(page, "seconds").check()
    assert page.get_by_role("columnheader", name="KL to the base").count() == 0
    assert column(page, "seconds")[0] == "238"
    interval = page.locator("#board .range").first
    assert interval.is_visible()
    page.get_by_role("checkbox", name="intervals").uncheck()
    assert not interval.is_visible()


def test_a_link_opens_the_same_view(site: Path, opened: Opened) -> None:
    page = opened(site.as_uri())
    assert "=" not in page.url, "the first view needs no words"
    choice(page, "division").select_option("open")
    page.get_by_label("search").fill("shipped")
    sort(page, "KL to the base")
    page.get_by_text("Choose columns").click()
    box(page, "forgetting").uncheck()
    box(page, "preset").check()
    page.get_by_role("checkbox", name="intervals").uncheck()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#status")).to_have_text("The link is copied.")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url == page.get_by_label("the link").input_value() and link.startswith("file://")

    again = opened(link)
    assert again.url == link
    for view in (page, again):
        assert (
            choice(view, "division").input_value() == "open" and view.get_by_label("search").input_value() == "shipped"
        )
    assert again.locator("#board").inner_text() == page.locator("#board").inner_text()
    assert header(again, "kl") == "ascending" and not again.locator("#board .range").first.is_visible()

    again.locator("#board tbody a").first.click()
    again.wait_for_url("**/entries/*.html")
    again.go_back()
    assert again.url == link and again.locator("#board").inner_text() == page.locator("#board").inner_text()

    again.evaluate(
        "location.hash = 'sort=end:asc&stream=paper-3%402'"
    )  # an address typed by hand, while the page is open
    expect(again.locator("#status")).to_have_text("2 of 6 entries are shown.")
    assert rows(again)[0] == "paper-3-2-fst" and again.get_by_role("checkbox", name="intervals").is_checked()


def test_without_a_clipboard_the_link_is_selected(site: Path, opened: Opened) -> None:
    page = opened(site.as_uri())
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#status")).to_have_text("The link is selected, copy it.")
    assert page.evaluate("getSelection().toString()") == page.url


@pytest.mark.parametrize(
    "view",
    [
        "sort=no:desc&columns=&stream=nowhere",
        "sort=end:up,:,__proto__:asc&q=%00%E2%80%AE",
        "%%%&&==#<script>",
        "columns=" + "x," * 999,
    ],
)
def test_any_address_opens(site: Path, opened: Opened, view: str) -> None:
    page = opened(f"{site.as_uri()}#{view}")
    assert page.locator("#status").inner_text().endswith("entries are shown.")
    assert choice(page, "stream").input_value() == ""


def test_keyboard_alone(site: Path, opened: Opened) -> None:
    page = opened(site.as_uri())

    def tab_to(found: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            with suppress(TypeError):
                if page.evaluate("selector => document.activeElement.matches(selector)", found):
                    assert page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2, (
                        "where one is can be seen"
                    )
                    return
        raise AssertionError(f"no way to {found} by Tab")

    tab_to("[name=q]")
    page.keyboard.type("fst")
    tab_to("select[name=stream]")
    page.keyboard.press("ArrowDown")
    tab_to("[name=intervals]")
    page.keyboard.press("Space")
    tab_to("summary")
    page.keyboard.press("Enter")
    tab_to("[name=column][value=kl]")
    page.keyboard.press("Space")
    tab_to("[role=region]")
    tab_to("[data-name=online] *")
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash.includes('sort=online')")
    assert choice(page, "stream").input_value() == "continual-4@2" and header(page, "online") == "descending"
    assert (
        not page.get_by_role("checkbox", name="intervals").is_checked()
        and page.get_by_role("columnheader", name="KL to the base").count() == 0
    )
    tab_to("#board tbody a")
    page.keyboard.press("Enter")
    page.wait_for_url("**/entries/*.html")
    tab_to("nav a")
    page.keyboard.press("Enter")
    page.wait_for_url("**/index.html*")


def test_an_entrys_page_leads_to_its_league(site: Path, opened: Opened) -> None:
    page = opened((site.parent / f"entries/{FST}.html").as_uri())
    assert page.locator("svg[role=img]").count() == 2
    page.get_by_text("Seed 0: 20 cycles").click()
    assert page.locator("ins:visible").count() > 5
    page.get_by_role("link", name="rl as shipped").click()
    page.wait_for_url("**/continual-4-2-rl.html")
    page.get_by_role("link", name="Its league").click()
    page.wait_for_url("**/index.html#*")
    expect(page.locator("#status")).to_have_text("4 of 6 entries are shown.")
    assert choice(page, "model").input_value() == "embedded:tiny"


@pytest.mark.parametrize("name", ["index.html", f"entries/{FST}.html"])
def test_on_a_phone(site: Path, opened: Opened, name: str) -> None:
    page = opened((site.parent / name).as_uri(), width=400)
    assert page.evaluate("document.documentElement.scrollWidth") == 400, (
        "the page does not scroll sideways, its tables do"
    )
    region = page.get_by_role("region").first
    assert region.evaluate("box => box.scrollWidth > box.clientWidth")
    region.evaluate("box => { box.scrollLeft = 200 }")
    if name == "index.html":
        assert 0 <= page.locator("#board tbody th").first.evaluate("cell => cell.getBoundingClientRect().left") < 40, (
            "the names stay"
        )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["index.html", f"entries/{FST}.html"])
def test_accessible(site: Path, opened: Opened, name: str, dark: bool) -> None:
    page = opened((site.parent / name).as_uri(), dark=dark)
    light = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(part => part > 128)")
    assert light != dark
    if name == "index.html":
        page.get_by_text("Choose columns").click()
        sort(page, "end of stream")
    else:
        page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true })")
    result = Axe().run(page, options={"resultTypes": ["violations"]})
    assert result.violations_count == 0, result.generate_report()


def odd(elements: str) -> str:
    """Return JavaScript that counts elements and handlers that no page of ours has; 1000 where one has run."""
    found = f"document.querySelectorAll('{elements}, [onmouseover], [onerror], [onload]').length"
    return f"{found} + (window.hacked === undefined ? 0 : 1000)"


def test_adversarial_texts_do_nothing(adversarial: Path, opened: Opened) -> None:
    page = opened(adversarial.as_uri())
    allowed = page.evaluate("document.querySelectorAll('script').length")
    assert allowed == 4
    shown = page.locator("#board tbody tr").count()
    assert shown == 2 + len(HARM)
    for text in ("<script>", "&lt;img", "onmouseover", "🙂", "\\"):  # searching reads every cell again
        page.get_by_label("search").fill(text)
    page.get_by_label("search").fill("&lt;img")
    assert rows(page) == ["harm-1"]
    page.get_by_label("search").fill("")
    choice(page, "method").select_option(index=1)
    assert page.locator("#board tbody tr").count() == 1
    choice(page, "method").select_option("")
    for label in ("entry", "method"):
        sort(page, label)
    page.get_by_text("Choose columns").click()
    box(page, "method").uncheck()
    box(page, "method").check()
    page.mouse.move(100, 500)
    page.wait_for_timeout(200)
    assert page.evaluate(odd("img, iframe, svg, object, embed")) == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 1600
    tall = page.locator("#board tbody tr").evaluate_all("rows => Math.max(...rows.map(row => row.offsetHeight))")
    assert tall < 400, "a long text does not make a row long"


@pytest.mark.parametrize("i", range(len(HARM)))
def test_adversarial_texts_do_nothing_on_their_page(adversarial: Path, opened: Opened, i: int) -> None:
    page = opened((adversarial.parent / f"entries/harm-{i}.html").as_uri(), width=400)
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true })")
    assert page.evaluate(odd("script, img, iframe, object, embed")) == 0 and page.locator("svg").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert page.locator("h1").evaluate("heading => heading.offsetHeight") < 300
    assert page.locator("footer, #view").count() == 0 and page.locator("h2").last.inner_text() == "Run it again", (
        "nothing was closed early"
    )
