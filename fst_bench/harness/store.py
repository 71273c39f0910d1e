"""The run directory: records that are only appended to, atomic checkpoints, and what a resume needs.

    <out>/<stream>@<version>/<method>/<run_id>/
      config.json env.json                    what was run, and on what
      events.jsonl rollouts.jsonl             each step; each answer that learning saw
      evals.jsonl answers.jsonl               the rows every metric comes from; each answer behind them
      prompts.jsonl                           each cycle's population
      checkpoints/step-NNNNNN/
      trackers.json tensorboard/ wandb/       where it is tracked: the run's id there, and their own files
      metrics.json ledger.json manifest.json  at the end; the manifest last
      report.html                             made of the records, at any time

A record is a whole line. A checkpoint says how long each record file was when it was taken; `rewind` cuts the files
back to that, so a torn last line or an unsaved step is work owed, never an error.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

RECORDS = ("events", "rollouts", "evals", "answers", "prompts")
MARKER = "COMPLETE.json"
UNSEALED = ("checkpoints", "tensorboard", "wandb", "report.html")
"""Files and folders that may change or go once a run is finished."""


class Store:
    """One run directory. Every method leaves it readable whatever happens in between."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(cls, out: Path, parts: tuple[str, str, str]) -> "Store":
        """A new directory under `out`; a number is added to the last part where one is there already."""
        for number in range(1, 10_000):
            path = out.joinpath(*parts[:-1], parts[-1] if number == 1 else f"{parts[-1]}-{number}")
            try:
                path.mkdir(parents=True)
                return cls(path)
            except FileExistsError:
                if not path.is_dir():
                    raise ValueError(f"cannot write to {path}: it is a file") from None
            except OSError as error:
                raise ValueError(f"cannot write to {out}: {error.strerror}") from None
        raise ValueError(f"{out} holds too many runs of {'/'.join(parts)}")

    @property
    def finished(self) -> bool:
        """Whether the run has ended: its manifest is written last."""
        return (self.path / "manifest.json").exists()

    def file(self, name: str) -> Path:
        return self.path / f"{name}.jsonl"

    def append(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Append whole lines to a record file."""
        assert name in RECORDS, name
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with self.file(name).open("ab") as f:
            f.write(text.encode("utf-8", "backslashreplace"))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The whole records of a file; a torn last line is left out."""
        return records(self.file(name))

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file atomically."""
        write_atomic(self.path / f"{name}.json", json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def read(self, name: str) -> Any:
        """A JSON file of the run, a mapping. ValueError in one line where it is missing or broken."""
        try:
            value = json.loads((self.path / f"{name}.json").read_text())
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self.path} is no run: {name}.json: {getattr(error, 'strerror', None) or 'not JSON'}"
            ) from None
        if not isinstance(value, dict):
            raise ValueError(f"{self.path} is no run: {name}.json holds no mapping")
        return value

    def checkpoint(
        self,
        step: int,
        state: dict[str, Any],
        save_policy: Callable[[Path], None],
        keep: int,
        stay: Collection[int] = (),
    ) -> None:
        """Save everything a resume needs, the marker last, and drop all but the last `keep` checkpoints and those of the steps that `stay`."""
        final = self.path / "checkpoints" / f"step-{step:06d}"
        temporary = final.with_suffix(".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_policy(temporary)
        lengths = {name: self.file(name).stat().st_size if self.file(name).exists() else 0 for name in RECORDS}
        (temporary / "state.json").write_text(json.dumps(state | {"step": step, "records": lengths}))
        hashes = {
            str(path.relative_to(temporary)): sha256(path)
            for path in sorted(p for p in temporary.rglob("*") if p.is_file())
        }
        write_atomic(temporary / MARKER, json.dumps(hashes))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        for old in self.checkpoints()[:-keep]:
            if step_of(old) not in stay:
                shutil.rmtree(old)

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(
            path.parent for path in (self.path / "checkpoints").glob(f"step-*/{MARKER}") if path.parent.suffix != ".tmp"
        )

    def at(self, step: int) -> Path:
        """The complete checkpoint of a step. ValueError where there is none."""
        for folder in self.checkpoints():
            if step_of(folder) == step:
                return folder
        raise ValueError(
            f"{self.path} has no checkpoint of step {step}: there are {', '.join(str(step_of(f)) for f in self.checkpoints()) or 'none'}"
        )

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """(folder, state) of the newest checkpoint, its files checked. ValueError where one of them is damaged."""
        if not (there := self.checkpoints()):
            return None
        folder = there[-1]
        damaged = ValueError(
            f"checkpoint {folder} is damaged; nothing was changed: remove that folder to resume from the one before it"
        )
        try:
            hashes = json.loads((folder / MARKER).read_text())
            if not isinstance(hashes, dict) or any(
                not (folder / name).is_file() or sha256(folder / name) != digest for name, digest in hashes.items()
            ):
                raise damaged
            return folder, json.loads((folder / "state.json").read_text())
        except (OSError, ValueError):
            raise damaged from None

    def rewind(self, lengths: dict[str, int]) -> None:
        """Cut the record files back to a checkpoint's lengths. ValueError where one is shorter than that."""
        for name in RECORDS:
            there = self.file(name).stat().st_size if self.file(name).exists() else 0
            if there < lengths.get(name, 0):
                raise ValueError(
                    f"{self.file(name)} is shorter than the checkpoint says: the run cannot be resumed from it"
                )
        for name in RECORDS:
            if self.file(name).exists():
                os.truncate(self.file(name), lengths.get(name, 0))

    def seal(self) -> None:
        """manifest.json: the sha256 of every file of the finished run but its checkpoints and its trackers' own; written last."""
        files = {
            p.relative_to(self.path): p
            for p in sorted(self.path.rglob("*"))
            if p.is_file() and p.name != "manifest.json"
        }
        self.write("manifest", {str(name): sha256(p) for name, p in files.items() if name.parts[0] not in UNSEALED})

    def broken(self) -> list[str]:
        """What in the directory disagrees with its manifest."""
        manifest = self.read("manifest")
        return [
            name
            for name, digest in manifest.items()
            if not (self.path / name).is_file() or sha256(self.path / name) != digest
        ]


def complete(checkpoint: Path) -> Path:
    """The checkpoint folder itself. ValueError where it is none, or not whole."""
    if not (checkpoint / MARKER).is_file():
        raise ValueError(f"{checkpoint} is no checkpoint: it has no {MARKER}")
    return checkpoint


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def records(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a record file; none where there is no file."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return list(
        json.loads(b"[" + b",".join(line for line in lines if line) + b"]")
    )  # one call: half the time of one a line


def write_atomic(path: Path, text: str) -> None:
    """All of the text or none of it, also when the machine stops."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    os.replace(temporary, path)


def sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
