"""A submission: one zip file of settings, evaluation rows, stored answers and prompts of finished runs of one method.

    submission.json                     who, which division, what is disclosed, and the sha256 of every other file
    runs/sSEED/config.json env.json     what was run, and on what
    runs/sSEED/evals.jsonl answers.jsonl prompts.jsonl
    runs/sSEED/metrics.json ledger.json
    code/methods/NAME.py                the method's file, where it does not ship

No weights, no rollouts, no absolute path, no host, no key: what is written is searched for them, and refused with the
place. Reading an untrusted file is safe: nothing is unpacked to disk, only these names are read, sizes are bounded, and
everything but the code is JSON, text that nothing evaluates.
"""

import hashlib
import json
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fst_bench.core.errors import explain
from fst_bench.core.registry import NAME
from fst_bench.core.registry import Source as CodeSource
from fst_bench.harness.config import Config
from fst_bench.harness.rows import AnswerRow, EvaluationRow
from fst_bench.harness.run import Run
from fst_bench.tasks.stream import Stream, StreamSpec

SETTINGS, RECORDS = ("config", "env", "metrics", "ledger"), ("evals", "answers", "prompts")
SEED = r"(0|[1-9]\d{0,8})"
RUN = re.compile(rf"runs/s{SEED}/({'|'.join(SETTINGS)})\.json|runs/s{SEED}/({'|'.join(RECORDS)})\.jsonl")
CODE = re.compile(rf"code/methods/{NAME.pattern}\.py")
ADDED = re.compile(r"/\Z|\A__MACOSX/|(?:\A|/)(?:\.DS_Store|\._[^/]*)\Z")
"""Names in a zip file that a file manager adds."""
MANIFEST = "submission.json"
PACKED, UNPACKED, FILES = 50_000_000, 400_000_000, 200
"""Most bytes of a submission's file, most bytes of all that is in it, most files in it."""
KEYS = re.compile(
    r"\b(?:sk|rk)-[A-Za-z0-9_-]{16,}|\bhf_[A-Za-z0-9]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bAKIA[A-Z0-9]{16}\b"
    r"|\bAIza[\w-]{30,}|\bxox[abprs]-[\w-]{10,}|-----BEGIN [A-Z ]*PRIVATE KEY"
)
BEGUN = ("sk-", "rk-", "hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "AKIA", "AIza", "xox", "-----BEGIN ")
"""Beginnings of `KEYS`. A text without one of them holds no key: so megabytes of answers are searched in no time."""
PLACES = re.compile(
    r"(?<![\w.:/*])"
    r"(?:~|/(?:home|Users|root|mnt|data|scratch|work|workspace|tmp|var|opt|srv|private|gpfs|lustre|nfs)(?=/))/[^\s\"']*"
    r"|\b[A-Za-z]:\\{1,2}\w[^\s\"']*"
)
"""Absolute paths as they look on most machines. A model's answers are not searched for them: programs and problems hold
such texts too."""


class BundleError(ValueError):
    """A fault of a submission's file; names the file in it, and the row where one is at fault."""


class Submission(BaseModel):
    """submission.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: Annotated[str, Field(min_length=1, max_length=100)]
    organisation: Annotated[str, Field(min_length=1, max_length=100)]
    division: Literal["closed", "open"]
    note: Annotated[str, Field(max_length=2_000)] = ""
    """The submitter's own words: what a reader should know, such as how settings were chosen."""
    stream: str
    """NAME@VERSION"""
    model: str
    preset: str
    method: str
    seeds: Annotated[list[int], Field(min_length=1)]
    settings: dict[str, Any]
    """Disclosed: dotted names of all settings that are not at the preset's value, the seed apart."""
    code: dict[str, CodeSource] = {}
    """Disclosed: the code that does not ship."""
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]

    @field_validator("name", "organisation", "note")
    @classmethod
    def printable(cls, text: str) -> str:
        if any(not c.isprintable() and c != "\n" for c in text) or text != text.strip():
            raise ValueError("requires printable text without spaces around it")
        return text


@dataclass(frozen=True, eq=False)
class BundledRun:
    """The part of a submission's file that is one run: a `harness.run.Source`, its JSON parsed."""

    seed: int
    """As the manifest names it."""
    settings: dict[str, dict[str, Any]]
    """Stem of a .json file -> what it holds."""
    records: dict[str, list[dict[str, Any]]]
    """Stem of a .jsonl file -> its rows."""

    @property
    def path(self) -> Path:
        return Path(f"runs/s{self.seed}")

    @property
    def finished(self) -> bool:
        return True

    def read(self, name: str) -> dict[str, Any]:
        return self.settings[name]

    def broken(self) -> list[str]:
        return []

    def rows(self, name: str) -> list[dict[str, Any]]:
        return self.records.get(name, [])


@dataclass(frozen=True, eq=False)
class SubmittedRun(Run):
    """A run as it is checked: its settings and rows, typed. Each raises ValueError at first use where it is broken."""

    @property
    def where(self) -> str:
        """The run's folder in the submission, for messages."""
        return str(self.path)

    @cached_property
    def config(self) -> Config:
        """The settings."""
        values, where = self.saved["config"], f"{self.where}/config.json"
        difficulty = values.get("difficulty")
        for task in difficulty if isinstance(difficulty, dict) else ():
            if not NAME.fullmatch(task):  # a registry would take it for a file, and run that
                raise ValueError(f"{where}: difficulty: {task!r} is not the name of a task")
        return explain(Config, values, where)

    @cached_property
    def spec(self) -> StreamSpec:
        """The stream's file."""
        name = f"{self.where}/config.json: spec"
        return explain(StreamSpec, mapping(self.saved.get("spec"), name), name)

    @cached_property
    def stream(self) -> Stream:
        """The stream for the run's seed."""
        config = self.config
        return Stream(self.spec, config.seed, config.difficulty, config.stage_problems, config.data)

    @cached_property
    def evaluations(self) -> list[EvaluationRow]:
        """The rows of evals.jsonl."""
        return cast(list[EvaluationRow], self.typed("evals"))

    @cached_property
    def answers(self) -> list[AnswerRow]:
        """The rows of answers.jsonl."""
        return cast(list[AnswerRow], self.typed("answers"))


@dataclass(frozen=True, eq=False)
class Bundle:
    """A submission's file, read."""

    sha256: str
    submission: Submission
    runs: list[SubmittedRun]
    """One a seed, by seed."""
    files: dict[str, bytes]

    def code(self) -> dict[str, bytes]:
        """Return the text of each method's file by the method's name."""
        return {Path(name).stem: data for name, data in self.files.items() if CODE.fullmatch(name)}


def read_bundle(path: Path) -> Bundle:
    """Return a submission's file, its form checked: names, sizes, hashes, JSON. Raises BundleError in one line."""
    try:
        size = path.stat().st_size
        if size > PACKED:
            raise BundleError(f"{path.name} has {size:,} bytes, more than {PACKED:,}")
        digest = sha256(path.read_bytes())
        with zipfile.ZipFile(path) as packed:
            files = {name: unpacked(packed, entry) for name, entry in admitted(packed.infolist()).items()}
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BundleError(f"{path.name} is not a whole zip file: {error}") from None
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from None
    if MANIFEST not in files:
        raise BundleError(f"{path.name} is not a submission: it has no {MANIFEST}")
    submission = explain(Submission, mapping(parsed(MANIFEST, files[MANIFEST]), MANIFEST), MANIFEST)
    hashed(submission, files)
    return Bundle(digest, submission, [run_of(seed, files) for seed in sorted(submission.seeds)], files)


def admitted(entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Return the entries of a zip file by their names in the submission, none of them read yet.

    What a file manager adds is left out: the folder that was packed, entries of folders, and macOS's own files. Raises
    BundleError for what no submission holds.
    """
    if len(entries) > FILES:
        raise BundleError(f"{len(entries)} files, more than {FILES}")
    if (total := sum(entry.file_size for entry in entries)) > UNPACKED:
        raise BundleError(f"unpacked it would have {total:,} bytes, more than {UNPACKED:,}")
    for entry in entries:
        name = entry.filename
        if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or ":" in name:
            raise BundleError(f"{name!r} leads out of the folder")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise BundleError(f"{name} is a link")
    entries = [entry for entry in entries if not ADDED.search(entry.filename)]
    tops = {entry.filename.partition("/")[0] for entry in entries if MANIFEST in entry.filename.split("/")[1:2]}
    top = f"{tops.pop()}/" if len(tops) == 1 else ""
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = entry.filename.removeprefix(top)
        if name != MANIFEST and not RUN.fullmatch(name) and not CODE.fullmatch(name):
            raise BundleError(f"{name!r} is not a file of a submission")
        if name in found:
            raise BundleError(f"{name} is there twice")
        if (
            entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
            or entry.flag_bits & 1
        ):
            raise BundleError(f"{name} is encrypted, or compressed otherwise than by bzip2 or deflate")
        found[name] = entry
    return found


def unpacked(packed: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Return what an entry holds, up to its stated size. Small parts are read: a bzip2 stream can hold terabytes."""
    with packed.open(entry) as f:
        return b"".join(iter(lambda: f.read(4_096), b""))


def hashed(submission: Submission, files: dict[str, bytes]) -> None:
    """Raise BundleError where the files are not those of the manifest."""
    for name in sorted(submission.files.keys() ^ (files.keys() - {MANIFEST})):
        raise BundleError(f"{name} is {'missing' if name in submission.files else 'not named in ' + MANIFEST}")
    for name, digest in submission.files.items():
        if sha256(files[name]) != digest:
            raise BundleError(f"{name} is not the file of {MANIFEST}: its sha256 differs")
    seeds = submission.seeds
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise BundleError(f"{MANIFEST}: seed {seed} is there twice")
    expected = {f"runs/s{seed}/{part}.json" for seed in seeds for part in SETTINGS} | {
        f"runs/s{seed}/{part}.jsonl" for seed in seeds for part in RECORDS
    }
    for name in sorted(expected ^ {name for name in submission.files if RUN.fullmatch(name)}):
        raise BundleError(f"{name} is missing" if name in expected else f"{name} belongs to no seed of {MANIFEST}")


def run_of(seed: int, files: dict[str, bytes]) -> SubmittedRun:
    """Return one run of a submission. Raises BundleError that names the file, and the row, that is not JSON."""
    where = f"runs/s{seed}"
    names = {part: f"{where}/{part}.json" for part in SETTINGS}
    settings = {part: mapping(parsed(name, files[name]), name) for part, name in names.items()}
    records = {part: list(lines(f"{where}/{part}.jsonl", files[f"{where}/{part}.jsonl"])) for part in RECORDS}
    return SubmittedRun(BundledRun(seed, settings, records))


def lines(name: str, data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the rows of a record file."""
    *whole, last = data.split(b"\n")
    if last:
        raise BundleError(f"{name} ends in a torn line")
    for number, line in enumerate(whole, 1):
        yield mapping(parsed(f"{name} row {number}", line), f"{name} row {number}")


def parsed(name: str, data: bytes) -> Any:
    """Return strict JSON: no NaN, no key twice, no nesting without end. Raises BundleError that names the file."""
    try:
        return json.loads(data.decode("utf-8"), parse_constant=not_json, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is not JSON: {str(error)[:100]}") from None


def not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key is there twice among {', '.join(key for key, _ in pairs)[:60]}")
    return found


def mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BundleError(f"{name} holds no mapping")
    return value


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def private(file: str, text: str) -> Iterator[str]:
    """Yield where a published text holds what looks like a key or, outside a model's own words, an absolute path."""
    if any(begun in text for begun in BEGUN) and (match := KEYS.search(text)):
        yield f"{place_of(file, text, match.start())} holds what looks like a key"
    if not file.endswith(".jsonl") and (match := PLACES.search(text)):
        yield f"{place_of(file, text, match.start())} holds what looks like an absolute path, {match.group()[:60]}"


def place_of(file: str, text: str, index: int) -> str:
    return f"{file} line {text.count(chr(10), 0, index) + 1}"
