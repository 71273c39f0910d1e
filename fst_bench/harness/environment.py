"""env.json: on what a run ran. No host name, user, path or key."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fst_bench.tasks.sandbox import sandbox_kind

PACKAGES = ("fst-bench", "torch", "transformers", "tokenizers", "gepa", "math-verify", "numpy", "pandas")


def environment(threads: int) -> dict[str, str]:
    """Versions, CPU and code of this run."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu(),
        "threads": str(threads),
        "sandbox": sandbox_kind(),
        "code": commit(),
    } | {name: installed(name) for name in PACKAGES}


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or "unknown"


def commit() -> str:
    """The git commit of the code, with + where the tree has changes; the package may be installed without git."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no git"
    return head + ("+" if dirty else "")
