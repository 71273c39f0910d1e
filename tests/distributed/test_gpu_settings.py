"""Behaviour of the backend on a GPU that a CPU can show."""

import subprocess
import sys

import pytest

from fst_bench.policy import PolicySettings
from fst_bench.policy.distributed.sampler import Sampler

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
