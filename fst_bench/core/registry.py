"""Methods and tasks that do not ship: a .py file, or what an installed package offers as an entry point.

A file stands alone: it imports what is installed, and nothing that lies beside it, since a run keeps a copy of the file and goes on from
that. Where a method has outgrown one file it is a package, with an entry point in the group fst_bench.methods (fst_bench.tasks for a task):
its name there is the class's `name`. Which code a run was made with is part of what the run is: see `Source`.
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

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
"""Of a method or task: it names folders and settings."""
T = TypeVar("T")
PLACES: set[Path] = set()
"""The files and the packages' folders that something was loaded from in this process."""


class Source(BaseModel):
    """Which code it is. Another digest is another method, so another run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    """Of the file, or of all Python files of the package."""
    package: str | None = None
    """Name and version of an installed package; None for a file."""


@dataclass(frozen=True)
class Plugin(Generic[T]):
    """A class that does not ship, its source, and the text of its file (of a package: None)."""

    made: type[T]
    source: Source
    text: bytes | None


class Folder(Mapping[str, type[T]], Generic[T]):
    """The classes of a package, one a module, by name: `fst_archive.py` defines the class named `fst-archive`. Imported when asked for."""

    def __init__(self, package: str, base: Any):
        self.package, self.base = package, base

    @cached_property
    def modules(self) -> dict[str, str]:
        """Name -> module."""
        found = sorted(
            Path(file.name).stem for file in resources.files(self.package).iterdir() if file.name.endswith(".py")
        )
        return {stem.replace("_", "-"): f"{self.package}.{stem}" for stem in found if not stem.startswith("_")}

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
    """The classes of one kind: shipped, offered by installed packages, or given as a file.

    The class that was loaded last under a name is what the name means.
    """

    def __init__(self, kind: str, base: Any, shipped: Mapping[str, type[T]], unsound: Callable[[Any], str | None]):
        self.kind, self.base, self.shipped, self.unsound = kind, base, shipped, unsound
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
            self._enter(name)
        return self.loaded[name].made

    def __contains__(self, name: object) -> bool:
        return name in self.shipped or name in self.loaded or name in self.offered()

    def names(self) -> list[str]:
        """Every name that `find` knows."""
        return list(dict.fromkeys([*self.shipped, *self.loaded, *self.offered()]))

    def offered(self) -> dict[str, list[EntryPoint]]:
        """What installed packages offer, by name; nothing is imported."""
        found: dict[str, list[EntryPoint]] = {}
        for point in sorted(entry_points(group=self.group), key=lambda point: point.name):
            found.setdefault(point.name, []).append(point)
        return found

    def recall(self, name: str, source: Source, copy: Path) -> None:
        """Make a name mean what it meant in a run: its `copy` of a file, or the same package. ValueError where that is not to be had."""
        if name in self.loaded and self.loaded[name].source == source:
            return
        if source.package is None:
            if not copy.is_file() or hashlib.sha256(copy.read_bytes()).hexdigest() != source.sha256:
                raise ValueError(
                    f"{copy} is gone or was changed: the run was made with the {self.kind} {name} as it was"
                )
            self._load(copy)
            return
        self._enter(name)
        now = self.loaded[name].source
        if now != source:
            raise ValueError(
                f"the run was made with the {self.kind} {name} of {source.package} ({source.sha256[:12]}), installed is {now.package} ({now.sha256[:12]})"
            )

    def _load(self, path: Path) -> type[T]:
        """The one class that a file defines; its module is kept, so that annotations and tracebacks find it."""
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
            raise ValueError(f"{place_of(error, {path}) or path}: {type(error).__name__}: {said(error)}") from None
        if beside := next(filter(partial(lies_beside, path), sorted(sys.modules.keys() - before)), None):
            raise ValueError(
                f"{path} imports {beside}, which lies beside it: a file stands alone, since runs keep a copy of it; make both a package with "
                f"an entry point in the group {self.group}"
            )
        found = defined_in(module, self.base)
        if len(found) != 1:
            names = ", ".join(made.__name__ for made in found)
            raise ValueError(
                f"{path} has to define one {self.kind}, a class over {self.base.__name__} with all it asks for; it defines {names or 'none'}"
            )
        return self._keep(Plugin(found[0], source, text), str(path))

    def _enter(self, name: str) -> None:
        """Load what a package offers."""
        points = self.offered()
        if name not in points:
            raise ValueError(unknown(self.kind, name, self.names(), ".py"))
        packages = sorted({package_of(point) for point in points[name]})
        if len(packages) > 1:
            raise ValueError(f"{self.kind} {name} is offered by {' and by '.join(packages)}: uninstall one of them")
        where = f"{self.kind} {name} of {packages[0]}"
        point, place = points[name][0], place_of_package(points[name][0].module)
        PLACES.update({place} if place else ())
        try:
            made = point.load()
        except (Exception, SystemExit) as error:
            raise ValueError(
                f"{where} does not load: {place_of(error, {place}) or point.value}: {type(error).__name__}: {said(error)}"
            ) from None
        if not (isinstance(made, type) and issubclass(made, self.base) and not inspect.isabstract(made)):
            raise ValueError(f"{where} is {made!r}, and no class over {self.base.__name__} with all it asks for")
        if getattr(made, "name", None) != name:
            raise ValueError(
                f"{where} calls itself {getattr(made, 'name', None)!r}: its entry point has to have the same name"
            )
        self._keep(
            Plugin(made, Source(sha256=digest_of(place or Path(inspect.getfile(made))), package=packages[0]), None),
            where,
        )

    def _keep(self, plugin: Plugin[T], where: str) -> type[T]:
        name = vars(plugin.made).get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(
                f"{where}: {plugin.made.__name__}.name has to be a text of a-z, 0-9, - and _, not {name!r}"
            )
        if name in self.shipped:
            raise ValueError(
                f"{where}: a {self.kind} named {name} is shipped, and runs are named after it: give this one another name"
            )
        if complaint := self.unsound(plugin.made):
            raise ValueError(f"{where}: {complaint}")
        self.loaded[name] = plugin
        return plugin.made


def package_of(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def place_of_package(module: str) -> Path | None:
    """The folder of the top-level package that a module is in, or its one file; None where nothing is installed under that name."""
    spec = find_spec(module.partition(".")[0])
    if spec is None or spec.origin is None:
        return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None
    path = Path(spec.origin).resolve()
    return path.parent if path.name == "__init__.py" else path


def digest_of(place: Path) -> str:
    """One digest of a file, or of all Python files of a folder."""
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    lines = [f"{file.relative_to(place)} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def lies_beside(path: Path, name: str) -> bool:
    """Whether an imported module was found in the folder of a file, and not because it is installed."""
    top, file = name.partition(".")[0], getattr(sys.modules[name], "__file__", None)
    if file is None or path.parent not in (found := Path(file).resolve()).parents or found == path:
        return False
    return found.relative_to(path.parent).parts[0] in (top, f"{top}.py") and top not in packages_distributions()


def place_of(error: BaseException, places: Collection[Path | None]) -> str | None:
    """'bandit.py:31', the deepest line of an error in one of `places`; None where it passed through none of them."""
    if isinstance(error, SyntaxError) and error.filename and within(error.filename, places):
        return f"{error.filename}:{error.lineno}"
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return next((f"{frame.filename}:{frame.lineno}" for frame in frames if within(frame.filename, places)), None)


def within(file: str, places: Collection[Path | None]) -> bool:
    path = Path(file)
    return any(place in places for place in (path, *path.parents))


def said(error: BaseException) -> str:
    """What an error says, without the place, which is told in front of it."""
    return str(error.msg) if isinstance(error, SyntaxError) else str(error)
