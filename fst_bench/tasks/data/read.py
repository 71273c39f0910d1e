"""Rows of files and of the hub.

Parquet and the hub are read through `datasets`; jsonl line by line and csv record by record, so that a bad one costs
one row: a table reader would refuse the whole file for it, or guess that 007 is a number.
"""

import csv
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NOT_UTF8 = "bytes that are not UTF-8 (cp1252 or latin-1? save the file as UTF-8)"
LONGEST = 131_072
"""Characters of a csv cell."""


class Unusable(Exception):
    """A row, or one of its problems, that cannot be used. Rows are counted by its text, the reason."""


def rows(where: str | Path) -> Iterator[tuple[int, dict[str, Any] | Unusable]]:
    """Yield (number from 1, row or the reason why it is unusable) of a hub id or a file.

    A row is a line of jsonl, a record of any other file. Raise ValueError in one line where the source is unreadable.
    """
    try:
        yield from enumerate(_source(where), 1)
    except OSError as error:
        raise unreadable(where, error) from None


def _source(where: str | Path) -> Iterator[dict[str, Any] | Unusable]:
    if isinstance(where, str):
        return _table(where, lambda datasets: datasets.load_dataset(where, split="train"))
    if where.suffix == ".jsonl":
        return _lines(where)
    if where.suffix == ".csv":
        return _records(where)
    # streamed: a copy in the cache would be taken for the file after a change
    return _table(
        where,
        lambda datasets: datasets.load_dataset("parquet", data_files=str(where), split="train", streaming=True),
    )


def _table(where: str | Path, load: Callable[[Any], Any]) -> Iterator[dict[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise ValueError(f"reading {where} requires the package datasets: pip install 'fst-bench[data]'") from None
    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # its errors are raised once, below
    try:
        yield from load(datasets)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise unreadable(where, error) from None


def _records(path: Path) -> Iterator[dict[str, Any] | Unusable]:
    """Yield the records of a csv file. Cells are text; None for an empty one, or the NaN that tables write for it.

    Raise ValueError where the header is unreadable.
    """
    csv.field_size_limit(2**31 - 1)  # a reader that stops in a long cell would go on with its lines as records
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as f:
        records = csv.DictReader(f, strict=True)
        try:
            columns = records.fieldnames or []
        except csv.Error as error:
            raise unreadable(path, error) from None
        if any(map(escaped, columns)):
            raise ValueError(f"cannot read {path}: the first line holds {NOT_UTF8}")
        while True:
            try:
                yield _record(next(records))
            except StopIteration:
                return
            except csv.Error as error:  # also a quote that no other closes: it holds the rest of the file
                yield Unusable(f"a record that is not csv ({error})")


def _record(row: dict[Any, Any]) -> dict[str, Any] | Unusable:
    if None in row:  # DictReader's key for surplus cells
        return Unusable("more cells than columns")
    cells = [cell for cell in row.values() if cell is not None]
    if any(map(escaped, cells)):
        return Unusable(NOT_UTF8)
    if any(len(cell) > LONGEST for cell in cells):
        return Unusable(f"a cell over {LONGEST:,} characters")
    return {column: None if cell in ("NaN", "nan") else cell for column, cell in row.items()}


def escaped(text: str) -> bool:
    """Return whether a text holds bytes that were not UTF-8, as surrogateescape keeps them."""
    return not text.isascii() and any("\udc80" <= c <= "\udcff" for c in text)


def _lines(path: Path) -> Iterator[dict[str, Any] | Unusable]:
    with path.open("rb") as f:
        for line in f:
            yield _row(line)


def _row(line: bytes) -> dict[str, Any] | Unusable:
    if not line.strip():
        return Unusable("an empty line")
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Unusable(NOT_UTF8)
    except (ValueError, RecursionError):  # also a torn line
        return Unusable("a line that is not JSON")
    return row if isinstance(row, dict) else Unusable("a line that is not a JSON object")


def download(repository: str, file: str) -> Path:
    """Return a file of a data set on the hub. Raise ValueError in one line where it cannot be had."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file, repo_type="dataset"))
    except (OSError, ValueError) as error:
        raise unreadable(repository, error) from None


def unreadable(where: str | Path, error: Exception) -> ValueError:
    """Return a reader's error in one line."""
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return ValueError(f"cannot read {where}: {reason[:200]}")
