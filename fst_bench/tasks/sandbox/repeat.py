"""The program that asks reference functions the same again, inside the sandbox: its text goes where other code goes.

Many functions can be asked in one call, so that none costs a process of its own. What one leaves behind can reach the
next; so the answers of many serve to find functions that contradict themselves, and for nothing else.
"""

import contextlib
import datetime
import json
import random
import signal
import sys
import time
import types
from collections.abc import Iterator
from typing import Any, NoReturn

SECONDS = 1.0
"""Seconds of one function; what it has not answered by then is left out."""


class Late(BaseException):
    """A function's time is up."""


class Lines:
    """A tracer that counts lines of Python down, and ends at none.

    They are as many on a busy machine as on an idle one, which seconds are not.
    """

    def __init__(self, left: int):
        self.left = left

    def __call__(self, frame: types.FrameType, event: str, argument: Any) -> "Lines":
        if event == "line":
            self.left -= 1
            if self.left < 0:
                raise Late
        return self


def answers(
    functions: list[tuple[str, str, list[dict[str, Any]]]], seed: int, ahead: float, times: int, lines: int | None
) -> list[list[Any]]:
    """Return the answers of each (code, name, inputs): for each input several, JSON texts, or None where it raised.

    Each input is asked so many `times`.
    `seed` is that of `random`, and the clock is `ahead` by so many seconds. A function has SECONDS; with `lines`,
    each answer has so many lines of Python instead.
    """
    move_clock(ahead)
    signal.signal(signal.SIGALRM, late)
    return [asked(code, name, inputs, seed, times, lines) for code, name, inputs in functions]


def asked(
    code: str, name: str, inputs: list[dict[str, Any]], seed: int, times: int, lines: int | None
) -> list[list[str | None]]:
    """Return the answers to each input, up to the first that says nothing.

    Then time, lines or memory ran out, or the code left. Each input has a module of its own: what one leaves in it does
    not reach the next.
    """
    found = []
    with contextlib.suppress(BaseException):
        try:
            # again and again: the code may catch the first
            signal.setitimer(signal.ITIMER_REAL, 0 if lines else SECONDS, SECONDS / 10)
            for given in map(json.dumps, inputs):
                module = types.ModuleType("refcode")
                sys.modules["refcode"] = sys.modules["__main__"] = module
                random.seed(seed)
                with within(lines):
                    exec(compile(code, "refcode", "exec"), vars(module))
                several = []
                for _ in range(times):
                    with within(lines):
                        several.append(answer(vars(module)[name], given))
                found.append(several)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return found


@contextlib.contextmanager
def within(lines: int | None) -> Iterator[None]:
    """Raise Late where what is done here takes more lines."""
    if lines is None:
        yield
        return
    counted = Lines(lines)
    sys.settrace(counted)
    try:
        yield
    finally:
        sys.settrace(None)
    if counted.left < 0:  # the code caught the end, and has been untraced since
        raise Late


def answer(function: Any, given: str) -> str | None:
    """Return a function's value as JSON; None where it raises, or returns something else."""
    try:
        return json.dumps(function(**json.loads(given)), allow_nan=False)
    except (MemoryError, RecursionError):  # another process may have room for it
        raise
    except Exception:
        return None


def late(number: int, frame: types.FrameType | None) -> NoReturn:
    raise Late


def move_clock(ahead: float) -> None:
    """Let Python's clocks be ahead. (`date.today` looks at `time.time` by itself.)"""
    for clock in ("time", "monotonic", "perf_counter"):
        setattr(time, clock, moved(getattr(time, clock), ahead))
        setattr(time, f"{clock}_ns", moved(getattr(time, f"{clock}_ns"), int(ahead * 1e9)))
    for calendar in ("gmtime", "localtime", "ctime"):
        setattr(time, calendar, at_now(getattr(time, calendar)))
    strftime, asctime = time.strftime, time.asctime
    time.strftime = lambda form, *at: strftime(form, *(at or [time.localtime()]))  # type: ignore[assignment]
    time.asctime = lambda *at: asctime(*(at or [time.localtime()]))  # type: ignore[assignment]
    datetime.datetime = Moved  # type: ignore[misc]


def moved(clock: Any, ahead: float) -> Any:
    """Return a clock that is ahead."""
    return lambda: clock() + ahead


def at_now(calendar: Any) -> Any:
    """Return a calendar whose default is the moved time."""
    return lambda seconds=None: calendar(time.time() if seconds is None else seconds)


class Moved(datetime.datetime):
    """A datetime that asks the moved clock."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "Moved":
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> "Moved":
        return cls.utcfromtimestamp(time.time())
