"""`fst-bench new`: a method, a stream or a task of your own begins as a copy of the files here, under its own name.

They are code like any other, so lint, types and tests hold for them; only the name `starter` is replaced.
"""

from importlib import resources
from keyword import iskeyword
from pathlib import Path

from fst_bench.core.registry import NAME
from fst_bench.harness.config import REGISTRIES
from fst_bench.tasks.stream import stream_files


def write(kind: str, name: str, folder: Path) -> list[Path]:
    """Write the starting files of a method, stream or task, and return them.

    Raises ValueError where the name is taken, or a file exists already; nothing is written then.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"a {kind} is named with a-z, 0-9, - and _, 64 at most, not {name!r}")
    if name in (stream_files() if kind == "stream" else REGISTRIES[f"{kind}s"].shipped):
        raise ValueError(f"a {kind} named {name} is shipped: take another name")
    module = name.replace("-", "_")
    if not module.isidentifier() or iskeyword(module):
        raise ValueError(f"{name!r} makes no name for a Python file: take another, one that begins with a letter")
    class_name = "".join(part.title() for part in module.split("_"))
    texts: dict[Path, str] = {}
    for source in sorted(Path(str(resources.files("fst_bench.cli.templates").joinpath(kind))).glob("*starter.*")):
        text = source.read_text().replace("starter.", f"{module}.")
        text = text.replace("Starter", class_name).replace("starter", name)
        texts[folder / source.name.replace("starter", module)] = text
    if existing := next((path for path in texts if path.exists()), None):
        raise ValueError(f"{existing} exists already: nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.write_text(text)
    return list(texts)
