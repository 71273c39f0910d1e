"""What the tests of reflection LMs share: a clock, reflectors, and runs that ask a server of `serving`."""

from pathlib import Path
from typing import Any

import pytest
from serving import Server

import fst_bench
from fst_bench.fast.remote import RemoteReflector
from fst_bench.harness.loop import Callback
from fst_bench.harness.run import Run
from fst_bench.method.ledger import Ledger
from fst_bench.method.reflection import ReflectionFailure
from fst_bench.method.settings import ReflectionSettings

PROMPT = "```\nBe kind. Work step by step.\n```\n# Example 1\n## Feedback\nThe answer is correct."
PRICE = {"usd_per_million_prompt_tokens": 2.0, "usd_per_million_reply_tokens": 10.0}


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def asking(server: Server, clock: Clock | None = None, **settings: Any) -> RemoteReflector:
    clock = clock or Clock()
    return RemoteReflector("served", ReflectionSettings(base_url=server.url, **settings), Ledger(), clock, clock.sleep)


def fast(server: Server, **settings: Any) -> dict[str, Any]:
    """Settings of a run that asks that server."""
    return {"fast": {"reflector": "served", "reflection": {"base_url": server.url, "backoff": 0.001} | settings}}


class Listening(Callback):
    """A callback that keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)


def smoke(out: Path, callback: Callback | None = None, **settings: Any) -> Run:
    return fst_bench.run(stream="single-math", method="gepa", preset="smoke", out=out, callback=callback, **settings)


def failure(reflector: RemoteReflector, seed: int = 0) -> str:
    with pytest.raises(ReflectionFailure) as caught:
        reflector(PROMPT, seed)
    return str(caught.value)
