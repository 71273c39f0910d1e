"""A real submission: fst on a short stream, two seeds; and what it takes to tamper with one."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tampering import Files, unzipped

import fst_bench
from fst_bench.leaderboard.bundle import MANIFEST
from fst_bench.leaderboard.submit import submit


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs of fst with seeds 0 and 1 on single-math, smoke preset."""
    with pytest.MonkeyPatch.context() as patch:
        # a test runs on whatever tree there is
        patch.setattr("fst_bench.harness.environment.commit", lambda: "0123abc")
        out = tmp_path_factory.mktemp("runs")
        for seed in (0, 1):
            fst_bench.run("single-math", "fst", out, seed, "smoke")
    yield out


@pytest.fixture(scope="session")
def honest(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The submission of these runs."""
    path = tmp_path_factory.mktemp("submission") / "fst.zip"
    submit([made], "Fast and slow", "fst-bench", "closed", "As it is shipped.", path)
    return path


@pytest.fixture
def tampered(honest: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that changes the files of the submission; hashes fit unless `rehashed` is False."""

    def tamper(change: Callable[[Files], Any], rehashed: bool = True) -> Path:
        files = unzipped(honest)
        change(files)
        if rehashed and MANIFEST in files:
            manifest = json.loads(files[MANIFEST])
            manifest["files"] = {
                name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items()) if name != MANIFEST
            }
            files[MANIFEST] = json.dumps(manifest).encode()
        path = tmp_path / "tampered.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as packed:
            for name, data in files.items():
                packed.writestr(name, data)
        return path

    return tamper
