"""The pages of docs/ that a user follows do what they say: every command block, in order, in an empty folder.

A block marked `long` runs with the preset `smoke`, one seed and a handful of problems; everything else runs as it is written.
`pip install` goes to a folder of the test's, and builds with what is here instead of asking the index.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {
    "add-a-method": "page/compare.html runs/*/*/*/probes/*.jsonl", "add-a-stream": "page/compare.html runs/*/*/*/probes/*.jsonl",
    "add-a-task": "page/compare.html runs/*/*/*/probes/*.jsonl", "leaderboard": "leaderboard/index.html leaderboard/entries/continual-4-fst-*.html",
}  # fmt: skip
"""And what its commands leave."""
BLOCK = re.compile(r"^```bash( long)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHORT = "--preset smoke --set stage_problems=8 --set evaluation.boundary=4 --set policy.max_tokens=32"


def blocks(page: str) -> list[str]:
    text = (DOCS / f"{page}.md").read_text()
    found = BLOCK.findall(text)
    assert len(found) == text.count("\n```bash")
    if page == "leaderboard":  # its rules want a preset as it is, and in the closed division a tree without changes
        return [
            shortened(block, "--preset smoke").replace("--division closed", "--division open") for _, block in found
        ]
    return [shortened(block) if long else block for long, block in found]


def shortened(block: str, short: str = SHORT) -> str:
    block = re.sub(r"^(fst-bench (?:run|sweep) .*)$", rf"\1 {short}", block, flags=re.MULTILINE).replace(
        "--seeds 0-4", "--seeds 0"
    )
    return re.sub(r"^(fst-bench probe .*)$", r"\1 --n 4", block, flags=re.MULTILINE)


def test_what_is_long_is_shortened() -> None:
    assert f"--seeds 0 {SHORT}\n" in shortened("fst-bench sweep --stream continual-4 --methods rl --seeds 0-4\n")


@pytest.mark.parametrize("page", PAGES)
def test_a_page(page: str, tmp_path: Path) -> None:
    site = tmp_path / "site"
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1",
        "PIP_TARGET": str(site), "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }  # fmt: skip
    # pip reads 0 as "not isolated" there
    folder = tmp_path / "mine"
    folder.mkdir()
    found = blocks(page)
    assert len(found) >= 4
    for block in found:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    for pattern in PAGES[page].split():
        assert list(folder.glob(pattern)), pattern
