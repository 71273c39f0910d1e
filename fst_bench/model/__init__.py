"""The embedded model: its text, its pretraining, its weights."""

from importlib import resources
from pathlib import Path

EMBEDDED = "embedded:"


def model_folder(name: str) -> str:
    """`embedded:tiny` as a path inside the package; any other path or hub id unchanged."""
    if not name.startswith(EMBEDDED):
        return name
    root = resources.files("fst_bench.model")
    path = Path(str(root.joinpath(name.removeprefix(EMBEDDED))))
    if not (path / "config.json").exists():
        there = sorted(p.name for p in Path(str(root)).iterdir() if (p / "config.json").exists())
        raise ValueError(f"no embedded model {name!r}: there are {', '.join(EMBEDDED + n for n in there) or 'none'}")
    return str(path)
