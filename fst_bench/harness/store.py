"""The run directory: records that are only appended to, atomic checkpoints, and what a resume needs.

    <out>/<stream>@<version>/<method>/<run_id>/
      config.json env.json                    what was run, and on what
      events.jsonl rollouts.jsonl             each step; each answer that learning saw
      evals.jsonl answers.jsonl               the rows every metric comes from; each answer behind them
      prompts.jsonl                           each cycle's population
      checkpoints/step-NNNNNN/
      pending/step-NNNNNN/                    snapshots that are not evaluated yet, see `evaluator`
      trackers.json tensorboard/ wandb/       where it is tracked: the run's id there, and their own files
      metrics.json ledger.json manifest.json  at the end; the manifest last
      report.html                             made from the records, at any time
      lock                                    the process that works on it; empty where none does

A record is a whole line. A checkpoint holds the length that each record file had when it was taken; `rewind` cuts the
files back to that, so a torn last line or an unsaved step is work to do again, never an error.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from fst_bench.core.errors import RunError, Taken, Unwritable

RECORDS = ("events", "rollouts", "evals", "answers", "prompts")
"""Record files, by their stems; their rows are in `fst_bench.harness.rows`."""
MARKER = "COMPLETE.json"
"""Written last into a checkpoint: the sha256 of each of its files."""
LOCK = "lock"
"""Locked by the process that works on the run, whose host and number it holds."""
PENDING = "pending"
"""Snapshots that wait for their evaluation, in a run that is evaluated in a process of its own."""
UNSEALED = ("checkpoints", PENDING, "tensorboard", "wandb", "report.html", LOCK)
"""Files and folders that may change or go once a run is finished."""
BUSY = (errno.EAGAIN, errno.EACCES)
"""What `flock` fails with where another process has the lock; the second one over NFS."""
UNLOCKABLE = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What `flock` fails with on a file system without locks, as Lustre may be: runs have to do without there."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a write fails with on a full disk."""
PATIENCE = 1.0
"""Seconds until a lock counts as another's: a mere look holds it for an instant."""


class Store:
    """One run directory. It stays readable wherever a call is interrupted."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(cls, out: Path, parts: tuple[str, str, str]) -> "Store":
        """Make a new directory under `out`, with a number after its name where that exists already.

        Raises ValueError where it cannot be made.
        """
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
    def begun(self) -> bool:
        """Return whether the directory is a run: its config.json is the first thing that a resume needs."""
        return (self.path / "config.json").exists()

    @property
    def finished(self) -> bool:
        """Return whether the run has ended: its manifest is written last."""
        return (self.path / "manifest.json").exists()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Own the directory, against other processes and threads, for as long as the context or the process lasts.

        Raises Taken where another one owns it. Over NFS it holds between machines, as far as its server has locks.
        """
        with written(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / LOCK).open("a+b", buffering=0)
        with lock:
            end = time.monotonic() + PATIENCE
            while not acquired(lock, fcntl.LOCK_EX):
                if time.monotonic() > end:
                    raise Taken(f"{self.path} is in use by {owner(lock)}: wait until that has ended")
                time.sleep(0.05)
            with written(self.path):
                lock.truncate(0)
                lock.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            try:
                yield
            finally:
                with suppress(OSError):  # the file system may be read-only by now
                    lock.truncate(0)  # a finished run holds no host

    def holder(self) -> str | None:
        """Return who owns the directory, if another process or thread does."""
        try:
            lock = (self.path / LOCK).open("rb")
        except OSError:
            return None
        with lock:
            return None if acquired(lock, fcntl.LOCK_SH) else owner(lock)

    def file(self, name: str) -> Path:
        """Return the path of a record file."""
        return self.path / f"{name}.jsonl"

    def append(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Append whole lines to a record file."""
        assert name in RECORDS, name
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "backslashreplace")
        with written(self.file(name), len(text)), self.file(name).open("ab") as f:
            f.write(text)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the whole records of a file; a torn last line is left out."""
        return records(self.file(name))

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file atomically."""
        write_atomic(self.path / f"{name}.json", json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def read(self, name: str) -> Any:
        """Return a JSON file of the run, a mapping. Raises ValueError in one line where it is missing or broken."""
        try:
            value = json.loads((self.path / f"{name}.json").read_text())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not JSON"
            kind = "a finished run" if name in ("metrics", "ledger", "manifest") else "a run"
            raise ValueError(f"{self.path} is not {kind}: {name}.json: {reason}") from None
        if not isinstance(value, dict):
            raise ValueError(f"{self.path} is not a run: {name}.json does not hold a mapping")
        return value

    def checkpoint(
        self,
        step: int,
        state: dict[str, Any],
        save_policy: Callable[[Path], None],
        keep: int,
        stay: Collection[int] = (),
    ) -> None:
        """Save everything that a resume needs, the marker last.

        The last `keep` checkpoints and those of the steps `stay` are kept; all others are removed.
        """
        final = self.path / "checkpoints" / f"step-{step:06d}"
        temporary = final.with_suffix(".tmp")
        lengths = {name: self.file(name).stat().st_size if self.file(name).exists() else 0 for name in RECORDS}
        shutil.rmtree(temporary, ignore_errors=True)
        usual = sum(size for folder in self.checkpoints()[-1:] for size in sizes(folder).values())
        with written(final, usual):
            try:
                temporary.mkdir(parents=True)
                save_policy(temporary)
                (temporary / "state.json").write_text(json.dumps(state | {"step": step, "records": lengths}))
                hashes = {str(path.relative_to(temporary)): sha256(path) for path in sizes(temporary)}
                write_atomic(temporary / MARKER, json.dumps(hashes))
            except (OSError, RunError):
                shutil.rmtree(temporary, ignore_errors=True)  # half a checkpoint takes room that is needed
                raise
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
            for old in self.checkpoints()[:-keep]:
                if step_of(old) not in stay:
                    shutil.rmtree(old)

    def checkpoints(self) -> list[Path]:
        """Return the folders of the complete checkpoints, oldest first."""
        folders = [marker.parent for marker in (self.path / "checkpoints").glob(f"step-*/{MARKER}")]
        return sorted(folder for folder in folders if folder.suffix != ".tmp")

    def at(self, step: int) -> Path:
        """Return the folder of the complete checkpoint of a step. Raises ValueError where none exists."""
        for folder in self.checkpoints():
            if step_of(folder) == step:
                return folder
        found = ", ".join(str(step_of(folder)) for folder in self.checkpoints()) or "none"
        raise ValueError(f"{self.path} has no checkpoint of step {step}: there are {found}")

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """Return the folder and the state of the newest checkpoint, its files checked; None where none exists.

        Raises ValueError where one of its files is damaged.
        """
        folders = self.checkpoints()
        if not folders:
            return None
        folder = folders[-1]
        damaged = ValueError(
            f"checkpoint {folder} is damaged; nothing was changed: remove that folder to resume from the one before it"
        )
        try:
            hashes = json.loads((folder / MARKER).read_text())
            if not isinstance(hashes, dict) or changed(folder, hashes):
                raise damaged
            return folder, json.loads((folder / "state.json").read_text())
        except (OSError, ValueError):
            raise damaged from None

    def rewind(self, lengths: dict[str, int]) -> None:
        """Cut the record files back to a checkpoint's lengths. Raises ValueError where one is shorter than that."""
        for name in RECORDS:
            length = self.file(name).stat().st_size if self.file(name).exists() else 0
            if length < lengths.get(name, 0):
                raise ValueError(
                    f"{self.file(name)} is shorter than the checkpoint says: the run cannot be resumed from it"
                )
        for name in RECORDS:
            if self.file(name).exists():
                with written(self.file(name)):
                    os.truncate(self.file(name), lengths.get(name, 0))

    def seal(self) -> None:
        """Write manifest.json: the sha256 of each file of the finished run, without checkpoints and trackers' files."""
        files = {
            p.relative_to(self.path): p
            for p in sizes(self.path)
            if p.name != "manifest.json" and p.suffix != ".tmp"  # left where a write was cut off: overwritten or unused
        }
        self.write("manifest", {str(name): sha256(p) for name, p in files.items() if name.parts[0] not in UNSEALED})

    def broken(self) -> list[str]:
        """Return the files of the directory that disagree with its manifest."""
        return changed(self.path, self.read("manifest"))


def changed(folder: Path, hashes: dict[str, str]) -> list[str]:
    """Return the files of a folder that are missing or have another sha256."""
    return [name for name, digest in hashes.items() if not (folder / name).is_file() or sha256(folder / name) != digest]


def complete(checkpoint: Path) -> Path:
    """Return the checkpoint folder itself. Raises ValueError where it is not a whole one."""
    if not (checkpoint / MARKER).is_file():
        raise ValueError(f"{checkpoint} is not a checkpoint: it has no {MARKER}")
    return checkpoint


def step_of(checkpoint: Path) -> int:
    """Return the step of a checkpoint folder, step-NNNNNN."""
    return int(checkpoint.name.removeprefix("step-"))


def records(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a record file; none where the file does not exist."""
    if not path.exists():
        return []
    lines = [line for line in path.read_bytes().split(b"\n")[:-1] if line]
    return list(json.loads(b"[" + b",".join(lines) + b"]"))  # one call: half the time of one a line


def sizes(folder: Path) -> dict[Path, int]:
    """Return the bytes of each file in and below a folder, in order."""
    return {path: path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}


def write_atomic(path: Path, text: str) -> None:
    """Write all of the text or none of it, also where the machine stops. Raises Unwritable where that fails."""
    temporary = path.with_name(path.name + ".tmp")
    with written(path, len(text.encode())):
        with temporary.open("w", encoding="utf-8", newline="\n") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)


@contextmanager
def written(path: Path, size: int = 0) -> Iterator[None]:
    """Turn an OSError of what writes a file or folder into Unwritable: one line, with what is needed and what is free.

    `size` is the bytes that are needed, where they are known.
    """
    try:
        yield
    except OSError as error:
        reason = f"cannot write {path}: {error.strerror or error}"
        if error.errno in FULL:
            free = shutil.disk_usage(next(folder for folder in path.parents if folder.is_dir())).free
            needed = f"at least {amount(size)} needed" if size else "more needed"
            reason += f": {needed}, {amount(free)} free"
        raise Unwritable(reason) from None


def amount(size: float) -> str:
    """Return bytes as a text: '8.0 MB'."""
    for unit in ("kB", "MB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} GB"


def acquired(lock: BinaryIO, mode: int) -> bool:
    """Return whether `flock` gave the lock, or the file system has none."""
    try:
        fcntl.flock(lock, mode | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (*BUSY, *UNLOCKABLE):
            raise
        return error.errno in UNLOCKABLE
    return True


def owner(lock: BinaryIO) -> str:
    """Return what a lock's file says of its owner."""
    lock.seek(0)
    return lock.read().decode() or "another process"


def sha256(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
