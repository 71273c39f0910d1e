"""The user's cache: what can be made again."""

import os
from pathlib import Path


def cache_folder(*names: str) -> Path:
    """Return the path of a folder in $XDG_CACHE_HOME/fst-bench, in ~/.cache where that is not an absolute path."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache").joinpath("fst-bench", *names)
