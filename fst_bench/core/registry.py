"""Methods and tasks by name: the shipped ones, a .py file, or what an installed package offers as an entry point.

A file stands alone: it imports what is installed, and nothing that lies next to it, since a run keeps a copy of the
file and continues from that. Where a method has outgrown one file it is a package, with an entry point in the group
fst_bench.methods (fst_bench.tasks for a task); its name there is the class's `name`. Which code a run was made with is
part of what the run is: see `Source`.
"""

import hashlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module, resources
from importlib.metadata import EntryPoint, entry_points, packages_distributions
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from fst_bench.core.errors import unknown

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""The name of a method or task: folders and settings are named after it, so no dot is in it."""
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""The name of a stream or preset, which runs' folders are named after; every `NAME` is one too."""
T = TypeVar("T")
PLACES: set[Path] = set()
"""The files and the packages' folders that something was loaded from in this process."""


class Source(BaseModel):
    """The code of a method or task that does not ship. Another digest is another method, so another run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    """Digest of the file, or of all Python files of the package."""
    package: str | None = None
    """Name and version of an installed package; None for a file."""


@dataclass(frozen=True)
class Plugin(Generic[T]):
    """A class that does not ship, its source, and the text of its file (of a package: None)."""

    made: type[T]
    source: Source
    text: bytes | None


class Folder(Mapping[str, type[T]], Generic[T]):
    """The classes of a package, one a module, by name: `fst_archive.py` defines the class named `fst-archive`.

    A module is imported when its class is asked for.
    """

    def __init__(self, package: str, base: Any):
        self.package, self.base = package, base

    @cached_property
    def modules(self) -> dict[str, str]:
        """The modules by the names of their classes."""
        files = [file.name for file in resources.files(self.package).iterdir()]
        stems = sorted(Path(file).stem for file in files if file.endswith(".py") and not file.startswith("_"))
        return {stem.replace("_", "-"): f"{self.package}.{stem}" for stem in stems}

    def __getitem__(self, name: str) -> type[T]:
        (made,) = defined_in(import_module(self.modules[name]), self.base)
        assert made.name == name, f"{self.modules[name]} defines {made.name}"
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __len__(self) -> int:
        return len(self.modules)


def defined_in(module: ModuleType, base: Any) -> list[Any]:
    """Return the concrete classes over `base` that a module defines itself, in its order."""
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    ]
    return list(dict.fromkeys(found))


class Registry(Generic[T]):
    """The classes of one kind: shipped, offered by installed packages, made from one by us, or given as a file.

    The class that was loaded last under a name is what the name means. FAMILY/NAME is what the function of a family
    makes of the name: it loads a package when a class is asked for, and raises ValueError in one line where it can't.
    """

    def __init__(
        self,
        kind: str,
        base: Any,
        shipped: Mapping[str, type[T]],
        unsound: Callable[[Any], str | None],
        families: Mapping[str, Callable[[str], Plugin[T]]] | None = None,
    ):
        self.kind, self.base, self.shipped, self.unsound = kind, base, shipped, unsound
        self.families = families or {}
        self.group = f"fst_bench.{kind}s"
        self.loaded: dict[str, Plugin[T]] = {}

    def find(self, name: str, folder: Path = Path()) -> type[T]:
        """Return the class of a name, or of a .py file (relative to `folder`).

        Raises ValueError in one line: what exists, or which line of the code is wrong.
        """
        if name.endswith(".py"):
            return self._load(folder / name)
        if name in self.shipped:
            return self.shipped[name]
        if name not in self.loaded:
            self._load_package(name)
        return self.loaded[name].made

    def __contains__(self, name: object) -> bool:
        in_family = isinstance(name, str) and "/" in name and name.partition("/")[0] in self.families
        return name in self.shipped or name in self.loaded or name in self.offered() or in_family

    def names(self) -> list[str]:
        """Return every name that `find` knows, those of families apart: they have many."""
        return [name for name in dict.fromkeys([*self.shipped, *self.loaded, *self.offered()]) if "/" not in name]

    def offered(self) -> dict[str, list[EntryPoint]]:
        """Return what installed packages offer, by name; nothing is imported."""
        found: dict[str, list[EntryPoint]] = {}
        for point in sorted(entry_points(group=self.group), key=lambda point: point.name):
            found.setdefault(point.name, []).append(point)
        return found

    def recall(self, name: str, source: Source, copy: Path) -> None:
        """Make a name mean what it meant in a run: its `copy` of a file, or the same package.

        Raises ValueError where that no longer exists as it was.
        """
        if name in self.loaded and self.loaded[name].source == source:
            return
        if source.package is None:
            if not copy.is_file() or hashlib.sha256(copy.read_bytes()).hexdigest() != source.sha256:
                raise ValueError(
                    f"{copy} is gone or was changed: the run was made with the {self.kind} {name} as it was"
                )
            self._load(copy)
            return
        self._load_package(name)
        now = self.loaded[name].source
        if now != source:
            raise ValueError(
                f"the run was made with the {self.kind} {name} of {source.package} ({source.sha256[:12]}), "
                f"installed is {now.package} ({now.sha256[:12]})"
            )

    def _load(self, path: Path) -> type[T]:
        """Return the one class that a file defines. Its module is kept, so that annotations and tracebacks find it."""
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from None
        path = path.resolve()
        source = Source(sha256=hashlib.sha256(text).hexdigest())
        module = ModuleType(f"fst_bench_{self.kind}_{path.stem}_{source.sha256[:12]}")
        module.__file__ = str(path)
        before = set(sys.modules)
        sys.modules[module.__name__] = module
        PLACES.add(path)
        try:
            exec(compile(text, path, "exec"), vars(module))
        except (Exception, SystemExit) as error:
            raise ValueError(f"{place_of(error, {path}) or path}: {type(error).__name__}: {message(error)}") from None
        if neighbour := next(filter(partial(is_next_to, path), sorted(sys.modules.keys() - before)), None):
            raise ValueError(
                f"{path} imports {neighbour}, which lies next to it: a file stands alone, since runs keep a copy of "
                f"it; make both a package with an entry point in the group {self.group}"
            )
        found = defined_in(module, self.base)
        if len(found) != 1:
            names = ", ".join(made.__name__ for made in found) or "none"
            raise ValueError(
                f"{path} has to define one {self.kind}, a class over {self.base.__name__} with all it asks for; "
                f"it defines {names}"
            )
        return self._keep(Plugin(found[0], source, text), str(path))

    def _load_package(self, name: str) -> None:
        """Load what a package offers under a name, or what a family makes of it."""
        family, slash, member = name.partition("/")
        if slash and family in self.families:
            self.loaded[name] = self.families[family](member)
            return
        points = self.offered()
        if name not in points:
            raise ValueError(unknown(self.kind, name, self.names(), ".py"))
        packages = sorted({package_of(point) for point in points[name]})
        if len(packages) > 1:
            raise ValueError(f"{self.kind} {name} is offered by {' and by '.join(packages)}: uninstall one of them")
        where = f"{self.kind} {name} of {packages[0]}"
        point = points[name][0]
        place = place_of_package(point.module)
        if place:
            PLACES.add(place)
        try:
            made = point.load()
        except (Exception, SystemExit) as error:
            line = place_of(error, {place}) or point.value
            raise ValueError(f"{where} does not load: {line}: {type(error).__name__}: {message(error)}") from None
        if not (isinstance(made, type) and issubclass(made, self.base) and not inspect.isabstract(made)):
            raise ValueError(f"{where} is {made!r}, not a class over {self.base.__name__} with all it asks for")
        own = getattr(made, "name", None)
        if own != name:
            raise ValueError(f"{where} has the name {own!r}: its entry point has to have the same name")
        digest = digest_of(place or Path(inspect.getfile(made)))
        self._keep(Plugin(made, Source(sha256=digest, package=packages[0]), None), where)

    def _keep(self, plugin: Plugin[T], where: str) -> type[T]:
        """Return a loaded class; its name means it from now on. Raises ValueError where it may not have that name."""
        name = vars(plugin.made).get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(
                f"{where}: {plugin.made.__name__}.name has to be a text of a-z, 0-9, - and _, 64 at most, not {name!r}"
            )
        if name in self.shipped:
            raise ValueError(
                f"{where}: a {self.kind} named {name} is shipped, and runs are named after it: "
                "give this one another name"
            )
        if complaint := self.unsound(plugin.made):
            raise ValueError(f"{where}: {complaint}")
        self.loaded[name] = plugin
        return plugin.made


def file_name(name: str) -> str:
    """Return the name of a stream or preset, or of anything else that becomes part of a path.

    Raises ValueError where it could lead elsewhere, or no file system would take it.
    """
    if not FILE_NAME.fullmatch(name):
        raise ValueError(
            f"{name[:80]!r} is not a name: it has to be of letters, digits, -, _ and ., 64 at most, "
            "and to begin with a letter or digit"
        )
    return name


def package_of(point: EntryPoint) -> str:
    """Return the name and version of the package that offers an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def place_of_package(module: str) -> Path | None:
    """Return the folder of the top-level package that a module is in, or its one file; None where none is installed."""
    spec = find_spec(module.partition(".")[0])
    if spec is None:
        return None
    if spec.origin is None:  # a folder without __init__.py
        return Path(spec.submodule_search_locations[0]) if spec.submodule_search_locations else None
    path = Path(spec.origin).resolve()
    return path.parent if path.name == "__init__.py" else path


def digest_of(place: Path) -> str:
    """Return one digest of a file, or of all Python files of a folder."""
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    lines = [f"{file.relative_to(place)} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def is_next_to(path: Path, name: str) -> bool:
    """Return whether an imported module was found in the folder of a file, and not because it is installed."""
    file = getattr(sys.modules[name], "__file__", None)
    found = Path(file).resolve() if file else path
    if found == path or path.parent not in found.parents:
        return False
    top = name.partition(".")[0]
    return found.relative_to(path.parent).parts[0] in (top, f"{top}.py") and top not in packages_distributions()


def place_of(error: BaseException, places: Collection[Path | None]) -> str | None:
    """Return 'bandit.py:31', the deepest line of an error in one of `places`; None where it passed through none."""
    if isinstance(error, SyntaxError) and error.filename and within(error.filename, places):
        return f"{error.filename}:{error.lineno}"
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return next((f"{frame.filename}:{frame.lineno}" for frame in frames if within(frame.filename, places)), None)


def within(file: str, places: Collection[Path | None]) -> bool:
    """Return whether a file is one of `places`, or in one of them."""
    path = Path(file)
    return any(place in places for place in (path, *path.parents))


def message(error: BaseException) -> str:
    """Return the message of an error without its place, which is shown in front of it."""
    return str(error.msg) if isinstance(error, SyntaxError) else str(error)
