"""Names of models: a path, a hub id, or `embedded:NAME` for one that ships.

Imports neither torch nor transformers, so that commands which load no model start fast; see `loading` for the models.
"""

from importlib import resources
from pathlib import Path

EMBEDDED = "embedded:"


def model_folder(name: str) -> str:
    """Return `embedded:tiny` as a path inside the package, and any other path or hub id unchanged.

    Raises ValueError where no embedded model has that name.
    """
    if not name.startswith(EMBEDDED):
        return name
    root = Path(str(resources.files("fst_bench.embedded")))
    path = root / name.removeprefix(EMBEDDED)
    if not (path / "config.json").exists():
        existing = sorted(p.name for p in root.iterdir() if (p / "config.json").exists())
        names = ", ".join(EMBEDDED + name for name in existing) or "none"
        raise ValueError(f"no embedded model {name!r}: there are {names}")
    return str(path)
