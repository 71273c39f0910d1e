"""docs/several-machines.md: its blocks for CPUs do what the text around them promises."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_the_recipe_runs_as_it_is_written(tmp_path: Path) -> None:
    """Two machines in one, three times: a whole run, one that is killed, and that one resumed to the same numbers."""
    recipe = (REPOSITORY / "docs" / "several-machines.md").read_text()
    script = "\n".join(re.findall(r"^```bash test\n(.*?)^```$", recipe, re.MULTILINE | re.DOTALL))
    assert {"deepspeed", "torchrun", "hostfile", "kill", "resume", "cmp"} <= set(re.findall(r"\w+", script))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    found = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "PORT": port,
        "OMP_NUM_THREADS": "1",
    }
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=os.environ | found,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        output, _ = shell.communicate(timeout=1500)
    finally:
        with contextlib.suppress(ProcessLookupError):  # the launchers it left behind, which end their ranks
            os.killpg(shell.pid, signal.SIGTERM)
    logs = "".join(f"\n{log.name}:\n{log.read_text()[-2000:]}" for log in tmp_path.glob("*.log"))
    assert shell.returncode == 0, output[-3000:] + logs
    assert "machine-b ended with 1" in output and output.count("report: ") == 2
    assert len(list(tmp_path.rglob("manifest.json"))) == len(list(tmp_path.rglob("config.json"))) == 2
