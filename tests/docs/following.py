"""Follow a page: run its command blocks in order, as a reader in an empty folder would.

A block marked `long` runs with the preset `smoke`, one seed and a handful of problems; everything else runs as it is
written. A block of Python that begins with "# NAME.py" is saved under that name, any other is run. `pip install` goes
to a folder of the test's, and builds with what is installed instead of asking the index.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(bash|python)( long)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHORT = "--preset smoke --set stage_problems=8 --set evaluation.boundary=4 --set policy.max_tokens=32"


def blocks(text: str, short: str = SHORT) -> list[str]:
    """Return the page's blocks as bash, the long ones shortened."""
    found = BLOCK.findall(text)
    assert len(found) == text.count("\n```bash") + text.count("\n```python")
    return [shortened(code, short) if long else code if kind == "bash" else python(code) for kind, long, code in found]


def shortened(block: str, short: str = SHORT) -> str:
    """Return commands that mean the same and take seconds."""
    block = re.sub(r"^(fst-bench (?:run|sweep) .*)$", rf"\1 {short}", block, flags=re.MULTILINE)
    return re.sub(r"^(fst-bench probe .*)$", r"\1 --n 4", block, flags=re.MULTILINE).replace("--seeds 0-4", "--seeds 0")


def python(code: str) -> str:
    """Return bash that saves the code, or runs it."""
    name = re.match(r"# ([\w-]+\.py)\n", code)
    return f"printf %s {shlex.quote(code)} > {name[1]}" if name else f"python -c {shlex.quote(code)}"


def environment(site: Path) -> dict[str, str]:
    """Return the environment of a reader whose `pip install` goes to `site`."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1",
        "PIP_TARGET": str(site),
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads 0 as "not isolated" there
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def follow(commands: list[str], tmp_path: Path) -> tuple[Path, str]:
    """Run the blocks; return the reader's folder and all output. Raises AssertionError for a block that fails."""
    folder = tmp_path / "mine"
    folder.mkdir()
    printed = ""
    for block in commands:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=folder,
            env=environment(tmp_path / "site"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        printed += done.stdout
    return folder, printed
