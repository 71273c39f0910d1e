"""The pages of docs/ that a user follows do what they say: every command block, in order, in an empty folder."""

import csv
import re
from pathlib import Path

import pytest
from following import ROOT, SHORT, blocks, follow, shortened

from fst_bench.cli import main
from fst_bench.policy.packaged import missing
from fst_bench.tasks import TASKS

DOCS = ROOT / "docs"
LEAVES = {
    "add-a-method": "page/compare.html runs/*/*/*/probes/*.jsonl",
    "add-a-stream": "page/compare.html runs/*/*/*/probes/*.jsonl",
    "add-a-task": "page/compare.html runs/*/*/*/probes/*.jsonl",
    "leaderboard": "leaderboard/index.html leaderboard/entries/continual-4-fst-*.html",
    "methods": "",
    "small-real-model": "runs/small-3@*/rl/smollm2-135m-*/report.html",
    "quickstart": "page/compare.html runs/*/fst/*/report.html runs/single-math@*/rl/*/report.html",
    "streams-and-tasks": "",
}
"""Page -> files that its commands leave."""
REAL = (
    "--set stage_problems=16 --set policy.max_tokens=12 --set slow.group_size=4 --set fast.max_metric_calls=40 "
    "--set fast.valset_size=4 --set fast.population_size=1 --set evaluation.boundary=4 --set evaluation.interval=16"
)
"""Settings in place of the preset smoke, which has a model of its own."""
PRIVATE = (
    r"(wants?|anew|goes on|stands|told|hostile|stranger|dice|rungs?|knobs?|weights only|recalled"
    r"|stages' ends|within stages'|beside|nobody|reckons?|alien)"
)
"""Words of our own for things that have a name in the field."""
ERROR = re.compile(r"^```console\n\$ (fst-bench .*)\n(.*)\n```$", re.MULTILINE)
FORGETFUL = """
from fst_bench.method import Method, RolloutRequest
from fst_bench.slow import learn


class Forgetful(Method):
    name = "forgetful"
    trains = True

    def __init__(self, lab, config):
        super().__init__(lab, config)
        self.count = 0

    def step(self, batch):
        self.count += 1
        return learn(self.lab, self.lab.sample([RolloutRequest(p, "", 4) for p in batch], "train"), self.config.slow)
"""


def test_what_is_long_is_shortened() -> None:
    assert f"--seeds 0 {SHORT}\n" in shortened("fst-bench sweep --stream continual-4 --methods rl --seeds 0-4\n")


def test_every_page_with_commands_is_followed() -> None:
    found = {path.stem for path in DOCS.glob("*.md") if re.search(r"^```bash( long)?$", path.read_text(), re.MULTILINE)}
    assert found - {"several-machines"} == set(LEAVES), "several-machines: tests/distributed/test_recipe.py"


@pytest.mark.parametrize("page", LEAVES)
def test_a_page(page: str, tmp_path: Path) -> None:
    text = (DOCS / f"{page}.md").read_text()
    if page == "leaderboard":  # its rules require a preset as it is, and in the closed division a tree without changes
        commands = [block.replace("--division closed", "--division open") for block in blocks(text, "--preset smoke")]
    elif page == "small-real-model":
        if reason := missing("smollm2-135m"):
            pytest.skip(reason)
        commands = blocks(text, REAL)
    else:
        commands = blocks(text)
    folder, _ = follow(commands, tmp_path)
    for pattern in LEAVES[page].split():
        assert list(folder.glob(pattern)), pattern


def test_every_method_stream_and_task_is_on_its_page() -> None:
    methods = (DOCS / "methods.md").read_text()
    assert [
        path.stem for path in (ROOT / "methods").glob("*.py") if f"`{path.stem.replace('_', '-')}`" not in methods
    ] == ["__init__"]
    page = (DOCS / "streams-and-tasks.md").read_text()
    names = [path.stem for path in (ROOT / "streams").glob("*.yaml")] + list(TASKS)
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_levels_of_the_small_streams_are_the_measured_ones() -> None:
    page = (DOCS / "small-real-model.md").read_text()
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in csv.DictReader((ROOT / "results" / "levels.csv").open()):
        accuracy, low, high = (f"{float(row[name]):.2f}" for name in ("accuracy", "low", "high"))
        rows.setdefault((row["stream"], row["task"]), {})[row["context"]] = f"{accuracy} ({low} to {high})"
    contexts = ("seed prompt", "own examples", "rl-prompted")
    for names, found in rows.items():
        assert f"| {' | '.join([*names, *(found.get(context, '–') for context in contexts)])} |\n" in page


def errors() -> list[tuple[str, str]]:
    return ERROR.findall((DOCS / "faq.md").read_text())


def test_the_page_of_errors_is_read_whole() -> None:
    assert len(errors()) == (DOCS / "faq.md").read_text().count("```console") >= 10


@pytest.mark.parametrize(("command", "line"), errors(), ids=lambda text: text[:60])
def test_an_error_is_what_the_page_says(
    command: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`...` on the page stands for anything."""
    (tmp_path / "forgetful.py").write_text(FORGETFUL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    try:
        code = main(command.split()[1:])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    assert code in (2, 3)
    printed = capsys.readouterr().err
    pattern = ".*".join(re.escape(part) for part in line.split("..."))
    assert re.fullmatch(pattern, printed.strip().splitlines()[-1]), printed


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda path: path.stem)
def test_words_are_the_fields_own(path: Path) -> None:
    text = path.read_text().replace("continual-4-told", "")
    assert re.findall(PRIVATE, text) == []
