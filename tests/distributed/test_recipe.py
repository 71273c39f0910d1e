"""docs/several-machines.md: its blocks for CPUs do what the text around them promises."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fst_bench.policy import PolicySettings
from fst_bench.policy.distributed.sampler import Sampler

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


# --- behaviour of the backend on a GPU that a CPU can show

IMPORTED = """
import os, sys
from importlib.abc import MetaPathFinder

class Watch(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "vllm":
            print("imported with", os.environ.get("TRITON_F32_DEFAULT"))

sys.meta_path.insert(0, Watch())
from fst_bench.policy import PolicySettings, load_policy
try:
    load_policy("embedded:tiny", PolicySettings(device="cuda", dtype=sys.argv[1]), "vllm-deepspeed")
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize(("dtype", "value"), [("float32", "ieee"), ("bfloat16", "None")])
def test_float32_attention_is_not_tf32(dtype: str, value: str) -> None:
    """vLLM attends in float32 by Triton kernels, which round to TF32 unless a variable is set before their import."""
    command = [sys.executable, "-c", IMPORTED, dtype]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    imports = [line for line in output.splitlines() if line.startswith("imported with")]
    assert imports[0] == f"imported with {value}" and "torch sees no GPU here" in output


def test_a_second_engine_that_sleeps_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sampler, "sleeper", True)
    with pytest.raises(ValueError, match="one engine a process to sleep: use another process"):
        Sampler("nowhere", PolicySettings(device="cuda"), {1}, 1)
