"""Run all checks of the GPU, or those that are named, each in its own process; figures are printed and written at once.

    python tests/gpu/run.py --out gpu-checks.jsonl            # under eight minutes on an H100
    python tests/gpu/run.py --device cpu kernels sleep        # the same code on a CPU

Exit code 1 where any failed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

CHECKS = Path(__file__).with_name("checks.py")
ORDER = (
    "kernels",
    "agreement-zero2",
    "agreement-zero3",
    "sync-bfloat16",
    "run-vllm-deepspeed",
    "bfloat16-zero3-positions",
    "torch-float32",
    "sleep",
    "broken-syncs",
    "kill-and-resume",
    "sync-float32",
    "torch-bfloat16",
    "run-torch",
)
"""The most valuable checks come first, in case the machine's time ends."""
LAUNCHED = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""Variables that a launcher, or another test's policy, leaves in the environment: a check is one rank on its own."""
LIMIT = 150
"""Seconds for one check."""


@dataclass(frozen=True)
class Result:
    """A check and its figures."""

    check: str
    device: str
    passed: bool
    seconds: float
    figures: dict[str, Any]
    error: str
    """The end of its standard error, where it failed."""


def alone() -> dict[str, str]:
    """Return the environment of a process that belongs to no other ranks."""
    return {name: value for name, value in os.environ.items() if name not in LAUNCHED}


def run(name: str, device: str) -> Result:
    start = time.perf_counter()
    try:
        command = [sys.executable, str(CHECKS), name, "--device", device]
        done = subprocess.run(command, env=alone(), capture_output=True, text=True, timeout=LIMIT, check=False)
        passed, output, error = done.returncode == 0, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        passed, output, error = False, "", f"more than {LIMIT} s\n{(late.stderr or b'').decode(errors='replace')}"
    return Result(
        check=name,
        device=device,
        passed=passed,
        seconds=round(time.perf_counter() - start, 1),
        figures=json.loads(output.strip().splitlines()[-1]) if passed else {},
        error="" if passed else error[-3000:],
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="checks (default: all)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, help="a file for the results, one line each")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no GPU here: nothing was checked")
        return 1
    failed = 0
    for name in arguments.names or ORDER:
        result = run(name, arguments.device)
        failed += not result.passed
        outcome, found = ("passed", json.dumps(result.figures)) if result.passed else ("FAILED", result.error)
        print(f"{outcome} {name} in {result.seconds} s {found}", flush=True)
        if arguments.out:
            with arguments.out.open("a") as out:
                out.write(json.dumps(asdict(result)) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
