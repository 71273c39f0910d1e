"""The interface of a reflector: reflection prompt in, text with a new prompt out, or a failure that is counted."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable


class ReflectionFailure(Exception):
    """A reflector timed out, refused, or returned nothing that can be a prompt.

    Its one argument is the reason it is counted under: a few words of our own. A provider's words may repeat a key.
    """


@runtime_checkable
class BatchReflector(Protocol):
    """A reflector that answers several reflection prompts in one call."""

    def reflect_many(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[str | ReflectionFailure]:
        """Return the reply to each prompt, as if it were asked alone, or its failure, which is not raised."""
        ...


Reflector = Callable[[str, int], str] | BatchReflector
"""(reflection prompt, seed) -> reply, which may raise ReflectionFailure; or the same for several prompts at a time."""


def replies(reflector: Reflector, prompts: Sequence[str], seeds: Sequence[int]) -> list[str | ReflectionFailure]:
    """Return the reply to each reflection prompt, or its failure: in one call where the reflector is able to."""
    if isinstance(reflector, BatchReflector):
        return reflector.reflect_many(prompts, seeds)
    found: list[str | ReflectionFailure] = []
    for prompt, seed in zip(prompts, seeds, strict=True):
        try:
            found.append(reflector(prompt, seed))
        except ReflectionFailure as failure:
            found.append(failure)
    return found
