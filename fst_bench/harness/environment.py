"""The contents of env.json: versions and the machine. It holds no host name, user, path or key."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fst_bench.tasks.sandbox import sandbox_kind

PACKAGES = ("fst-bench", "torch", "transformers", "tokenizers", "gepa", "math-verify", "numpy", "pandas")


def environment(threads: int) -> dict[str, str]:
    """Return the versions, the CPU and the code of this run."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu(),
        "threads": str(threads),
        "sandbox": sandbox_kind(),
        "code": commit(),
    } | {name: installed(name) for name in PACKAGES}


def installed(package: str) -> str:
    """Return the version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def cpu() -> str:
    """Return the name of the CPU."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def commit() -> str:
    """Return the git commit of the code, with + where files were changed; the package may be installed without git."""
    try:
        head = git("rev-parse", "--short", "HEAD")
        changed = git("status", "--porcelain", "-uno")
    except (OSError, subprocess.CalledProcessError):
        return "no git"
    return head + ("+" if changed else "")


def git(*arguments: str) -> str:
    """Return the output of a git command in the folder of this file."""
    here = Path(__file__).parent
    done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True)
    return done.stdout.strip()
