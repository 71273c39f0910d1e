"""The program that asks reference functions the same again, inside the sandbox: its text goes where other code goes.

Many functions are asked in one call, so that none costs a process of its own. What one leaves behind can reach the
next; so the answers serve to find functions that contradict themselves, and for nothing else.
"""

import contextlib
import datetime
import json
import random
import signal
import sys
import time
import types
from typing import Any, NoReturn

SECONDS = 1.0
"""Seconds of one function; what it has not answered by then is left out."""


class Late(BaseException):
    """A function's time is up."""


def answers(functions: list[tuple[str, str, list[dict[str, Any]]]], seed: int, ahead: float) -> list[list[Any]]:
    """Return the answers of each (code, name, inputs): for each input two, JSON texts, or None where it raised.

    `seed` is that of `random`, and the clock is `ahead` by so many seconds.
    """
    move_clock(ahead)
    signal.signal(signal.SIGALRM, late)
    return [asked_twice(code, name, inputs, seed) for code, name, inputs in functions]


def asked_twice(code: str, name: str, inputs: list[dict[str, Any]], seed: int) -> list[tuple[str | None, str | None]]:
    """Return two answers to each input, up to the first that says nothing: time or memory ran out, or the code left."""
    found = []
    with contextlib.suppress(BaseException):
        try:
            # again and again: the code may catch the first
            signal.setitimer(signal.ITIMER_REAL, SECONDS, SECONDS / 10)
            module = types.ModuleType("refcode")
            sys.modules["refcode"] = sys.modules["__main__"] = module
            random.seed(seed)
            exec(compile(code, "refcode", "exec"), vars(module))
            for given in map(json.dumps, inputs):
                found.append((answer(vars(module)[name], given), answer(vars(module)[name], given)))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return found


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
