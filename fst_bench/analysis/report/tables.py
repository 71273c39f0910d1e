"""Small tables of any nested record of numbers, without knowing its keys."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """A small table."""

    name: str
    columns: list[str]
    """Empty for a plain list of keys and values."""
    rows: list[tuple[str, list[Any]]]
    """(label, cells)"""


def tables(record: dict[str, Any], name: str = "") -> list[Table]:
    """Return the record's own values as a table, then its nested parts.

    Parts that share keys are columns of one table, others are tables of their own.
    """
    record = {key: dict(enumerate(value, start=1)) if holds_records(value) else value for key, value in record.items()}
    nested = {str(key): value for key, value in record.items() if isinstance(value, dict)}
    own = [(str(key), [value]) for key, value in record.items() if not isinstance(value, dict)]
    found = [Table(name or ("overall" if nested else ""), [], own)] if own else []
    if comparable(list(nested.values())):
        return [*found, side_by_side(name, nested)]
    for key, value in nested.items():
        found += tables(value, f"{name}.{key}" if name else key)
    return found


def holds_records(value: Any) -> bool:
    """Return whether a value is a list of nested records."""
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def comparable(parts: list[dict[str, Any]]) -> bool:
    """Return whether parts are several flat records that have keys in common."""
    flat = not any(isinstance(value, dict) or holds_records(value) for part in parts for value in part.values())
    return len(parts) > 1 and flat and bool(set.intersection(*(set(part) for part in parts)))


def side_by_side(name: str, parts: dict[str, dict[str, Any]]) -> Table:
    """Return one table of several flat records, the longer way down."""
    keys = [str(key) for key in dict.fromkeys(key for part in parts.values() for key in part)]
    parts = {label: {str(key): value for key, value in part.items()} for label, part in parts.items()}
    if len(keys) > len(parts):
        return Table(name, list(parts), [(key, [part.get(key) for part in parts.values()]) for key in keys])
    return Table(name, keys, [(label, [part.get(key) for key in keys]) for label, part in parts.items()])


def number(value: Any) -> str:
    """Return a value of a record for reading: '12,345', '0.0132', '–' for None."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(number(item) for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or 1000 <= abs(value) < float("inf"):
        return f"{value:,.0f}"
    return f"{value:.4g}"
