"""Read documents.jsonl for lm-eval's `custom_dataset`.

lm-eval imports this file by its path, so it imports nothing of the suite.
"""

import json
from pathlib import Path
from typing import Any

import datasets


def documents(name: str) -> list[dict[str, Any]]:
    """Return the documents of a set, such as add or add_choice."""
    lines = (Path(__file__).parent / "documents.jsonl").read_text().splitlines()
    return [{k: v for k, v in row.items() if k != "set"} for row in map(json.loads, lines) if row["set"] == name]


def load(name: str, **metadata: Any) -> dict[str, datasets.Dataset]:
    """Return a set of documents as lm-eval's test split."""
    return {"test": datasets.Dataset.from_list(documents(name))}
