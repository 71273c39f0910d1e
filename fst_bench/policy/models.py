"""Names of models, and what a name stood for, by its content.

A name is a path, a hub id, `embedded:NAME` for a model that ships, or `package:NAME` for one that an installed package
holds. Imports neither torch nor transformers, so that commands which load no model start fast; see `loading` for the
models.
"""

import hashlib
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from fst_bench.policy.packaged import PACKAGE, converted

EMBEDDED = "embedded:"
PARTS = {
    "weights": re.compile(r".+\.(safetensors|bin)(\.index\.json)?"),
    "tokenizer": re.compile(
        r"(tokenizer|vocab|merges|special_tokens|added_tokens|chat_template).*|.+\.(model|tiktoken)"
    ),
    "config": re.compile(r"(generation_)?config\.json"),
}
"""Part of a model -> the names of its files. Others, such as a README, decide nothing."""
BLOB = re.compile(r"[0-9a-f]{64}")
"""The hub's cache names a large file by its sha256, and links to it."""


def model_folder(name: str) -> str:
    """Return `embedded:tiny` as a path inside the package, and any other path or hub id unchanged.

    `package:smollm2-135m` is converted if it has not been. Raises ValueError where no such model has that name, or its
    package is not installed.
    """
    if name.startswith(PACKAGE):
        return str(converted(name))
    if not name.startswith(EMBEDDED):
        return name
    root = Path(str(resources.files("fst_bench.embedded")))
    existing = sorted(path.name for path in root.iterdir() if (path / "config.json").exists())
    if (own := name.removeprefix(EMBEDDED)) not in existing:
        names = ", ".join(EMBEDDED + name for name in existing) or "none"
        raise ValueError(f"no embedded model {name!r}: there are {names}")
    return str(root / own)


def fingerprint(name: str) -> dict[str, str]:
    """Return what decides a model's numbers: the sha256 of its weights, its tokenizer and its config, once loaded.

    Of a hub id it is what the cache holds, and the commit. Weights take about a second for each GB.
    """
    folder = Path(model_folder(name))
    found: dict[str, str] = {}
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(name, "config.json")
        if not isinstance(cached, str):
            return found
        folder = Path(cached).parent
        found["commit"] = folder.name
    for part, names in PARTS.items():
        files = sorted(path for path in folder.iterdir() if path.is_file() and names.fullmatch(path.name))
        digests = "".join(f"{path.name} {digest(path)}\n" for path in files)
        found[part] = hashlib.sha256(digests.encode()).hexdigest()
    return found


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    if path.is_symlink() and BLOB.fullmatch(path.resolve().name):
        return path.resolve().name
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def other_parts(one: Mapping[str, str], two: Mapping[str, str]) -> list[str]:
    """Return the parts in which two fingerprints differ, of those that both have."""
    if "commit" in one and one["commit"] == two.get("commit"):
        return []  # a later one may have found more files in the cache
    return [part for part in PARTS if part in one and part in two and one[part] != two[part]]


def refuse_other_model(name: str, recorded: Mapping[str, str]) -> None:
    """Raise ValueError where a model is not the one that a run recorded when it began: its numbers would differ.

    An older fst-bench recorded nothing.
    """
    now = fingerprint(name) if recorded else {}
    if differing := other_parts(recorded, now):
        then, here = (f" (commit {made['commit'][:12]})" if "commit" in made else "" for made in (recorded, now))
        parts = " and ".join(f"another {part}" for part in differing)
        raise ValueError(f"the run was begun on another model{then}: {name}{here} now has {parts}")
