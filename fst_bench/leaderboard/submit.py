"""Making a submission of finished runs: private texts are left out or refused; what is written has passed its check."""

import json
import os
import re
import socket
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fst_bench.analysis.runs import load
from fst_bench.core.errors import explain
from fst_bench.harness.run import Run
from fst_bench.harness.store import Store
from fst_bench.leaderboard.bundle import (
    MANIFEST,
    RECORDS,
    SETTINGS,
    Bundle,
    Submission,
    place_of,
    private,
    read_bundle,
    run_of,
    sha256,
)
from fst_bench.leaderboard.check import sound
from fst_bench.leaderboard.rules import settings_of
from fst_bench.tasks.data import PROCEDURAL

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")


def submit(paths: Sequence[Path], name: str, organisation: str, division: str, note: str, out: Path) -> Bundle:
    """Write finished runs of one method on one stream, one a seed, into a submission's file.

    Raises ValueError in one line for what can't be submitted; then nothing is written.
    """
    runs = sorted(load(paths), key=lambda run: run.seed)
    if len(methods := sorted({run.method for run in runs})) > 1:
        raise ValueError(
            f"a submission is one method's, these runs are of {', '.join(methods)}: submit them one by one"
        )
    files: dict[str, bytes] = {}
    for run in runs:
        files |= files_of(run)
    first = run_of(runs[0].seed, files)
    config, spec = first.config, first.spec
    about = {
        "name": name,
        "organisation": organisation,
        "division": division,
        "note": note,
        "stream": f"{spec.name}@{spec.version}",
        "model": config.model,
        "preset": config.preset,
        "method": config.method,
        "seeds": [run.seed for run in runs],
        "settings": settings_of(config, spec),
        "code": config.code,
        "files": {name: sha256(data) for name, data in sorted(files.items())},
    }
    files[MANIFEST] = encoded(explain(Submission, about, "submission").model_dump(mode="json"))
    for file, data in files.items():
        search(file, data.decode("utf-8", "replace"), [run.path for run in runs])
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".tmp")
    with zipfile.ZipFile(temporary, "w") as packed:
        for file in [MANIFEST, *sorted(files.keys() - {MANIFEST})]:
            entry = zipfile.ZipInfo(file)  # dated 1980: the same runs are the same bytes on any day
            entry.compress_type = zipfile.ZIP_BZIP2  # a third of what deflate makes of answers
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, files[file], compresslevel=9)
    try:
        bundle = sound(read_bundle(temporary))
        os.replace(temporary, out)
    except ValueError as error:
        raise ValueError(f"{error}: nothing was written") from None
    finally:
        temporary.unlink(missing_ok=True)
    return bundle


def files_of(run: Run) -> dict[str, bytes]:
    """Return the files of a finished run that a submission takes, by their names there.

    Raises ValueError where one is missing.
    """
    store, where = run.source, f"runs/s{run.seed}"
    if not isinstance(store, Store):
        raise ValueError(f"{run.path} is a row of a table without answers: a submission is made of run directories")
    files: dict[str, bytes] = {}
    for part in SETTINGS:
        store.read(part)
        files[f"{where}/{part}.json"] = (store.path / f"{part}.json").read_bytes()
    files[f"{where}/config.json"] = encoded(public(run.saved, run.path))
    for part in RECORDS:
        files[f"{where}/{part}.jsonl"] = store.file(part).read_bytes() if store.file(part).exists() else b""
    for file in (store.path / "code" / "methods").glob("*.py"):
        files[f"code/methods/{file.name}"] = file.read_bytes()
    return files


def encoded(value: Any) -> bytes:
    """Return JSON for people to read."""
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def public(saved: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a config.json without places: of a local model or checkpoint its last name stays, of a server nothing.

    Raises ValueError where the problems were not procedural.
    """
    config = dict(saved["config"])
    if config.get("data", PROCEDURAL) != PROCEDURAL:
        raise ValueError(
            f"{path} learned from {config['data']}: a submission's problems have to be procedural, "
            "so that everybody can score its answers again"
        )
    for key in ("model", "init"):
        if config.get(key) and (Path(config[key]).is_absolute() or Path(config[key]).exists()):
            config[key] = Path(config[key]).name
    if (config.get("fast", {}).get("reflection") or {}).get("base_url"):
        config["fast"] = config["fast"] | {"reflection": config["fast"]["reflection"] | {"base_url": None}}
    return saved | {"model": config["model"], "config": config}


def search(file: str, text: str, runs: Iterable[Path]) -> None:
    """Raise ValueError where a text that is to be published holds a key, or a place or name of this machine."""
    known = {
        value: f"the value of the environment variable {name}"
        for name, value in os.environ.items()
        if SECRET_NAME.search(name) and len(value) >= 8
    }
    known |= {
        str(place): "a path of this machine"
        for place in (Path.home(), Path.cwd(), *(run.resolve() for run in runs))
        if len(place.parts) > 2
    }
    host = socket.gethostname()
    for found, what in known.items():
        if found in text:
            raise ValueError(f"{place_of(file, text, text.index(found))} holds {what}: nothing was written")
    if (
        len(host) > 3
        and (match := re.search(rf"(?<![\w-]){re.escape(host)}(?![\w-])", text))
        and not file.endswith(("answers.jsonl", "evals.jsonl"))
    ):
        raise ValueError(f"{place_of(file, text, match.start())} holds this machine's name: nothing was written")
    for complaint in private(file, text):
        raise ValueError(f"{complaint}: nothing was written")
