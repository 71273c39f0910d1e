"""The interface of a reflector: reflection prompt in, text with a new prompt out, or a failure that is counted.

A reflector is a language model: its thoughts are not part of what it says, a reply that was cut off says nothing, and
any character may be in it. `replies`, which every reply passes through, and `prompt_in`, which takes the new prompt out
of one, see to that.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from fst_bench.core.types import THOUGHTS
from fst_bench.policy.template import encodable

MARKED = THOUGHTS | {"<thinking>": "</thinking>", "<|channel|>analysis": "<|channel|>final<|message|>"}
"""Beginning -> end of a thought, as a server may leave it in the text."""
MARKS = re.compile("|".join(["(?<!`)`{3,}+", *map(re.escape, MARKED), *map(re.escape, MARKED.values())]))
"""A fence, or the beginning or end of a thought."""
FENCE = re.compile(
    r"^[ \t]*(?P<run>`{3,}+|~{3,}+)(?=[ \t]*(?P<info>[^\n]*))|(?<!`)(?P<last>`{3,}+)[ \t]*$", re.MULTILINE
)
"""A fence at the beginning of a line, with what follows it there, or at its end."""
LANGUAGE = re.compile(r"\A\S*\n")
"""The rest of an opening fence's line."""
CURRENT = re.compile(r"(?<!`)(`{3,}+)\w*\n?(?P<content>.*?)(?<!`)\1(?!`)", re.DOTALL)
"""The first block of gepa's reflection prompt."""
FEEDBACK = re.compile(r"^## Feedback\n(.*?)(?=\n#|\n```|\Z)", re.DOTALL | re.MULTILINE)
"""The feedback on one rollout in gepa's reflection prompt."""
SENTENCE = re.compile(r"(?<=\.)\s+")
"""What is between two sentences of a prompt."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that no tokenizer or terminal should see: all control characters but tab and newline."""


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
    """Return what a reflector says to each reflection prompt, or its failure.

    They are asked in one call where the reflector is able to.
    """
    found = (
        reflector.reflect_many(prompts, seeds)
        if isinstance(reflector, BatchReflector)
        else [caught(reflector, prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
    )
    return [reply if isinstance(reply, ReflectionFailure) else caught(said, reply) for reply in found]


def caught(call: Callable[..., str], *arguments: Any) -> str | ReflectionFailure:
    """Return the result of a call, or the ReflectionFailure that it raised."""
    try:
        return call(*arguments)
    except ReflectionFailure as failure:
        return failure


def said(reply: str) -> str:
    """Return a reply without the thoughts in it, in characters that UTF-8 and a tokenizer can take.

    A thought inside a fenced block is part of the block. Raises ReflectionFailure where the reply ends in a thought.
    """
    reply = CONTROL.sub("\ufffd", encodable(reply).replace("\r\n", "\n").replace("\r", "\n"))
    kept, start, at = "", 0, 0
    while mark := MARKS.search(reply, at):
        at = mark.end()
        if mark[0] in MARKED:
            kept += reply[start : mark.start()]
            end = MARKED[mark[0]]
            if (found := reply.find(end, at)) < 0:
                raise ReflectionFailure("reply ends inside its thought")
            start = at = found + len(end)
        elif mark[0].startswith("`"):
            if (found := reply.find(mark[0], at)) < 0:
                break
            at = found + len(mark[0])
        else:  # the chat template had begun the thought
            kept, start = "", at
    return kept + reply[start:]


def prompt_in(reply: str) -> str:
    """Return the new prompt in what a reflector said: its last fenced block, or all of it where no fence is in it.

    A block reaches from its first fence to its last, as gepa reads it, so that a prompt may hold fenced examples.
    Raises ReflectionFailure where a block has no end.
    """
    mark, depth, start, end = "", 0, 0, len(reply)
    for fence in FENCE.finditer(reply):
        run, info = fence["run"] or fence["last"], fence["info"] or ""
        mark = mark or run
        if not run.startswith(mark):  # of the other kind, or shorter
            continue
        if depth and not info:
            depth, end = depth - 1, fence.start()
        else:
            if depth == 0 and (info or not start):
                start = fence.end()
            depth += 1
    if depth:
        raise ReflectionFailure("reply ends inside its fence")
    return LANGUAGE.sub("", reply[start:end]).strip() if mark else reply.strip()


def current_in(prompt: str) -> str:
    """Return the current prompt in a reflection prompt. Raises ReflectionFailure where it holds none."""
    if (current := CURRENT.search(prompt)) is None:
        raise ReflectionFailure("no current instruction in the reflection prompt")
    return current["content"]


def fence_around(*texts: str) -> str:
    """Return a fence that is longer than any in the texts."""
    return "`" * max([3, *(len(run) + 1 for text in texts for run in re.findall("`{3,}", text))])
