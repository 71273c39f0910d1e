"""The registry of methods: the files of the top-level folder methods/, and those that do not ship."""

from fst_bench.core.registry import Folder, Registry
from fst_bench.method.method import Method


def unsound(method: type[Method]) -> str | None:
    """Return what is wrong with a method that does not ship; None where nothing is."""
    if not issubclass(method.Settings, Method.Settings):
        return f"{method.__name__}.Settings has to be a class over Method.Settings, which knows typing errors"
    return None


METHODS: Folder[Method] = Folder("fst_bench.methods", Method)
"""The shipped methods by name."""
METHOD_REGISTRY: Registry[Method] = Registry("method", Method, METHODS, unsound)
find_method = METHOD_REGISTRY.find
