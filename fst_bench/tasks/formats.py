"""Answer formats: the wrappers around a final answer that the difficulty parameter `answer_format` chooses among.

A wrapper is read from the end: its last occurrence counts, and one that is left open or empty is not an answer. All are
read with one strictness, so a stream may ask for the same answer in another wrapper and nothing else changes. An answer
in another wrapper than the one asked for earns nothing.

The line between style and protocol, here and in the verifiers: what a human grader would not even notice changes no
verdict. That is bold type (**ANSWER:** 7), a full stop or white space around a value, fbox or a space before the brace
of a box, curly quotes, separators of thousands and other typography of numbers and units. Another label, other letters
(Answer:), a wrapper that is missing, left open or empty, a second value or anything else beside the value is a wrong
protocol, and earns nothing.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from fst_bench.tasks.base import TAIL, Task, last_boxed

AnswerFormat = Literal["boxed", "json", "answer", "tag", "hash"]

MAX_DEPTH = 32
MAX_OBJECTS = 500
"""Opening braces, from the end, at which an object is looked for."""


@dataclass(frozen=True)
class Wrapper:
    """One answer format."""

    wanted: str
    """Its wording in feedback: 'The answer was expected ...'."""
    place: str
    """Its name in feedback: 'The box says 3'."""
    protocol: str
    """The sentence that states it in a problem, with {} for `Wrapped.asked`."""
    write: Callable[[str], str]
    read: Callable[[str], str | None]
    """Text -> content of the wrapper, stripped; None or empty without one."""

    @property
    def subject(self) -> str:
        """The place at the start of a sentence."""
        return self.place[0].upper() + self.place[1:]


class Wrapped(Task):
    """A task whose answer stands in a wrapper: that of its difficulty parameter `answer_format`, else its `own` one."""

    own: ClassVar[AnswerFormat]
    asked: ClassVar[str] = "the final answer"
    more: ClassVar[str] = ""
    """The rest of the protocol, after the wrapper."""

    def __init__(self, difficulty: BaseModel):
        super().__init__(difficulty)
        self.answer_format: AnswerFormat = getattr(difficulty, "answer_format", self.own)
        self.wrapper = WRAPPERS[self.answer_format]
        if self.answer_format != self.own:
            self.protocol = self.wrapper.protocol.format(self.asked) + self.more

    def write(self, answer: str) -> str:
        return self.wrapper.write(answer)


# --- JSON


def compact(value: Any) -> str:
    """Return a value as JSON without spaces, as the problems write lists."""
    return json.dumps(value, separators=(",", ":"))


def not_json(name: str) -> None:
    """Raise ValueError for NaN and Infinity, which Python would read."""
    raise ValueError(f"{name} is not JSON")


DECODER = json.JSONDecoder(parse_constant=not_json)


def last_object_with(text: str, key: str) -> dict | None:
    """Return the last outermost JSON object in the text, if it has `key`.

    Objects deeper than MAX_DEPTH do not count.
    """
    tail, end, last = text[-TAIL:], 0, None
    for at in [i for i, c in enumerate(tail) if c == "{"][-MAX_OBJECTS:]:
        if at >= end:
            try:
                found, stop = DECODER.raw_decode(tail, at)
            except (ValueError, RecursionError):
                continue
            if shallow(found):
                last, end = found, stop
    return last if last is not None and key in last else None


def shallow(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Return whether a JSON value is nested at most `depth` deep."""
    if not isinstance(value, dict | list):
        return True
    return depth > 0 and all(
        shallow(item, depth - 1) for item in (value.values() if isinstance(value, dict) else value)
    )


# --- the wrappers


def write_json(answer: str) -> str:
    """Return the object that holds an answer: a number as it is, anything else as a string."""
    return f'{{"output": {answer if answer.isascii() and answer.isdecimal() else json.dumps(answer)}}}'


def read_json(text: str) -> str | None:
    """Return the value under the key output: a string's text, anything else as JSON."""
    found = last_object_with(text, "output")
    if found is None:
        return None
    return found["output"].strip() if isinstance(found["output"], str) else compact(found["output"])


def label(name: str) -> re.Pattern[str]:
    """Return the pattern of a label, NAME:, in bold type or not."""
    return re.compile(rf"{name}(?:\*\*)?:(?:\*\*)?")


def unbold(text: str) -> str:
    """Return a value without the marks of bold type at its ends; a label in bold may have opened it."""
    return re.sub(r"^\*\*|\*\*$", "", text.strip()).strip()


def line_after(mark: re.Pattern[str]) -> Callable[[str], str | None]:
    """Return a reader of the first line of text after the last mark."""

    def read(text: str) -> str | None:
        tail = text[-TAIL:]
        end = max((found.end() for found in mark.finditer(tail)), default=None)
        return None if end is None else unbold(tail[end:].strip().partition("\n")[0])

    return read


def read_tag(text: str) -> str | None:
    """Return the content of the last <answer> tag, if it is closed."""
    _, there, rest = text[-TAIL:].rpartition("<answer>")
    content, closed, _ = rest.partition("</answer>")
    return unbold(content) if there and closed else None


WRAPPERS: dict[AnswerFormat, Wrapper] = {
    "boxed": Wrapper(
        "in \\boxed{}", "the box", "Put {} inside \\boxed{{}}.", lambda answer: f"\\boxed{{{answer}}}", last_boxed
    ),
    "json": Wrapper(
        "as a JSON object with the key output",
        "the object",
        "Give {} as a JSON object with the key output.",
        write_json,
        read_json,
    ),
    "answer": Wrapper(
        "after ANSWER:", "ANSWER:", "Write ANSWER: before {}.", "ANSWER: {}".format, line_after(label("ANSWER"))
    ),
    "tag": Wrapper(
        "in <answer> tags", "the tag", "Put {} inside <answer> tags.", "<answer>{}</answer>".format, read_tag
    ),
    "hash": Wrapper("after ####", "####", "Write #### before {}.", "#### {}".format, line_after(re.compile("####"))),
}
