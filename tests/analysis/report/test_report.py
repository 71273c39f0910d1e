"""The page of a run: self-contained, deterministic, safe with adversarial text, there at any time of a run."""

import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlparse

import pytest

from fst_bench.analysis.report import summary, write_report
from fst_bench.harness.run import Run
from fst_bench.harness.store import Store

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Tags, attributes, ids and visible text of a page; well-formedness of its nesting."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.note(tag, attrs)

    def note(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)

    def values(self, *names: str) -> list[str]:
        return [value for name, value in self.attributes if name in names]


def page(run_dir: Path) -> Page:
    return Page(write_report(run_dir).read_text("utf-8"))


@pytest.fixture(scope="module")
def finished_page(finished_run) -> Page:
    return page(finished_run)


@pytest.fixture
def prompts_only(make_run):
    """A run without figures, which take most of a page's time."""
    run = make_run()
    (run / "evals.jsonl").unlink()
    (run / "events.jsonl").unlink()
    return run


def test_the_page_is_in_the_run_directory(make_run):
    run = make_run(tasks=["math"])
    assert write_report(run) == run / "report.html"
    assert sorted(path.name for path in run.iterdir()) == sorted(
        [
            "config.json",
            "env.json",
            "evals.jsonl",
            "events.jsonl",
            "prompts.jsonl",
            "ledger.json",
            "metrics.json",
            "manifest.json",
            "report.html",
        ]
    )


def test_the_page_needs_nothing_else(finished_run, finished_page):
    run, found = finished_run, finished_page
    links = found.values("src", "href", "xlink:href", "data", "srcset", "action", "poster")
    assert links
    assert [link for link in links if not link.startswith("#")] == []
    assert not found.tags.keys() & {"script", "link", "iframe", "object", "embed", "img", "base"}
    assert not any(name.startswith("on") for name, _ in found.attributes)
    html = (run / "report.html").read_text("utf-8")
    assert "@import" not in html
    assert all(target.startswith("#") for target in html.split("url(")[1:])


def test_ids_are_unique_and_every_reference_has_its_target(finished_run, finished_page):
    run, found = finished_run, finished_page
    ids = found.values("id")
    assert [name for name, times in Counter(ids).items() if times > 1] == []
    references = [link[1:] for link in found.values("xlink:href")]
    references += [part.split(")")[0][1:] for part in (run / "report.html").read_text("utf-8").split("url(")[1:]]
    assert references and set(references) <= set(ids)


def test_it_shows_tasks_stages_prompts_costs_and_settings(finished_page):
    found, text = finished_page, finished_page.text
    for i, task in enumerate(["math", "codeio", "hover", "star-graph"], start=1):
        assert text.count(f"{i} {task}") >= 3, "the table, the accuracy figure, the reward figure"
    assert "continual-4@1 · fst" in text and "fst-tiny-qwen3-3M" in text and "seed 0" in text
    assert "1,234,567" in text and "151.2" in text, "the ledger"
    assert "problems_to_0.8" in text and "0.6123" in text, "metrics"
    assert "2.13.0+cpu" in text and "temperature" in text, "environment and configuration"
    assert "64 problems a point (192 before learning and at stage ends), one answer each at T = 1" in text
    assert found.tags["svg"] == found.tags["figcaption"] == 3
    assert len(found.values("aria-label")) == 3 and all(found.values("aria-label"))
    assert found.tags["ins"] > 1 and found.tags["del"] > 1 and found.tags["details"] > 2
    assert "not finished" not in text


def test_same_inputs_same_bytes(make_run):
    run = make_run()
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


@pytest.mark.parametrize("method", ["base", "rl", "gepa"])
def test_methods_without_prompts_or_without_training(make_run, method):
    found = page(make_run(method=method))
    assert ("No evolved prompts" in found.text) == (method != "gepa")
    assert ("Training reward" in found.text) == (method == "rl")
    assert "not finished" not in found.text


@pytest.mark.parametrize("steps", [0, 20, 33])
def test_an_unfinished_run(make_run, steps):
    found = page(make_run(steps=steps))
    assert f"not finished: {1 if steps >= 20 else 0} of 4 stages" in found.text
    assert "No ledger has been written yet" in found.text


def test_only_the_configuration_is_needed(make_run):
    run = make_run(steps=3)
    for name in ["env.json", "events.jsonl", "evals.jsonl", "prompts.jsonl"]:
        (run / name).unlink()
    found = page(run)
    assert "No evaluation has been recorded yet" in found.text and found.tags["svg"] == 0
    (run / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json"):
        write_report(run)


def test_a_torn_last_line_is_left_out(make_run):
    run = make_run(tasks=["math"], steps=11)
    whole = write_report(run).read_bytes()
    for name in ["events.jsonl", "evals.jsonl", "prompts.jsonl"]:
        with (run / name).open("a") as file:
            file.write('{"kind": "step", "st')
    assert write_report(run).read_bytes() == whole


ADVERSARIAL = (
    '</div></pre><script>alert("x")</script><img src=x onerror=alert(1)> {{ 7 * 7 }} & \'"` \u202e '
    "$\\frac{1}$ \ud800 \x00"
)


@pytest.mark.parametrize("prompt", [ADVERSARIAL, "<b>" * 3333 + "!", "word. " * 2000], ids=["markup", "tags", "long"])
def test_adversarial_prompts_are_only_text(prompts_only, prompt):
    run = prompts_only
    plain = page(run).tags
    rows = [json.loads(line) for line in (run / "prompts.jsonl").read_text().splitlines()]
    rows[0]["population"][0]["prompt"] = prompt
    rows[2]["population"][1]["prompt"] = prompt
    (run / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = page(run)
    assert {**found.tags, "ins": 0, "del": 0, "p": 0} == {**plain, "ins": 0, "del": 0, "p": 0}
    assert not any(name.startswith("on") for name, _ in found.attributes)
    assert prompt.replace("\ud800", "?").replace("\x00", "\ufffd") in found.text.replace("\x00", "\ufffd")


def test_adversarial_names_and_settings_are_only_text(make_run):
    tasks = ["<b>math</b>", "a\"b'$x$ & co"]
    run = make_run(tasks=tasks)
    config = json.loads((run / "config.json").read_text())
    config["model"] = config["seed_prompt"] = "<script src='https://example.org/x.js'></script>"
    (run / "config.json").write_text(json.dumps(config))
    (run / "env.json").write_text(json.dumps({"<i>": "<script>"}))
    found = page(run)
    assert not found.tags.keys() & {"script", "b", "i"}
    assert all(task in found.text for task in tasks)
    assert [urlparse(link).netloc for link in found.values("src", "href")] == []


def test_reflection_that_always_fails_is_said(prompts_only):
    run = prompts_only
    assert "reflection calls failed" not in page(run).text
    path = run / "prompts.jsonl"
    path.write_text(path.read_text().replace('"reflection_failures": 1', '"reflection_failures": 12'))
    assert "reflection calls failed" in page(run).text


def test_the_summary_takes_the_right_rows(make_run):
    run = Run(Store(make_run(tasks=["math", "codeio", "math"])))
    evals = [
        json.loads(line)
        for line in (make_run(tasks=["math", "codeio", "math"]) / "evals.jsonl").read_text().splitlines()
    ]

    def only(task, mode, step):
        (row,) = [row for row in evals if (row["task"], row["prompt_mode"], row["step"]) == (task, mode, step)]
        return row

    rows = summary(run)
    assert [row["task"] for row in rows] == ["math", "codeio", "math"]
    for row, end in zip(rows, [20, 41, 63], strict=True):
        assert row["base"]["accuracy"] == only(row["task"], "system", 0)["accuracy"]
        assert row["end"]["accuracy"] == only(row["task"], "system", end)["accuracy"]
        assert row["end"]["kl"] == only(row["task"], "system", end)["kl"]
        assert row["end"]["n"] == 192
        assert row["final"]["accuracy"] == only(row["task"], "system", 63)["accuracy"]
        assert row["seed"]["accuracy"] == only(row["task"], "seed", 63)["accuracy"]
        assert row["end"]["low"] < row["end"]["accuracy"] < row["end"]["high"]


def test_a_stage_not_reached_has_no_numbers_of_its_end(make_run):
    rows = summary(Run(Store(make_run(steps=33))))
    assert [row["end"] is None for row in rows] == [False, True, True, True]
