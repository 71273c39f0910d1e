"""The registry of methods: the files of the top-level folder methods/, and methods that do not ship."""

from fst_bench.core.registry import Folder, Registry
from fst_bench.method.method import Method


def unsound(method: type[Method]) -> str | None:
    """Return the defect of a method that does not ship, or None."""
    if not issubclass(method.Settings, Method.Settings):
        return f"{method.__name__}.Settings has to be a class over Method.Settings, which knows typing errors"
    return None


METHODS: Folder[Method] = Folder("fst_bench.methods", Method)
"""The shipped methods by name."""
METHOD_REGISTRY: Registry[Method] = Registry("method", Method, METHODS, unsound)
find_method = METHOD_REGISTRY.find
