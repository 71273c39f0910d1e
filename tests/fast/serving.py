"""OpenAI-compatible servers on this machine: a good one, which reflects for real, and its bad cousins."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import fst_bench
from fst_bench.fast.reflectors import extractive
from fst_bench.fast.remote import RemoteReflector
from fst_bench.harness.loop import Callback
from fst_bench.harness.run import Run
from fst_bench.method.ledger import Ledger
from fst_bench.method.reflection import ReflectionFailure
from fst_bench.method.settings import ReflectionSettings

Answer = Callable[["Handler", dict[str, Any]], None]


class Server(ThreadingHTTPServer):
    """Answers the first request with the first answer, and so on; the last answer stays."""

    daemon_threads = True

    def __init__(self, answers: tuple[Answer, ...]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.lock, self.closing = answers, threading.Lock(), threading.Event()
        self.requests: list[dict[str, Any]] = []
        self.usage: list[tuple[int, int]] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def die(self) -> None:
        """From here on, connections are refused."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that gave up


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.requests.append(body)
            self.server.keys.append(self.headers["authorization"])
            answer = self.server.answers[min(len(self.server.requests), len(self.server.answers)) - 1]
        if self.path != "/v1/chat/completions":
            answer = says(404)
        answer(self, body)

    def send(self, body: bytes, status: int = 200, content_type: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-type": content_type, "content-length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


def completion(message: dict[str, Any], usage: tuple[int, int] | None = (40, 20)) -> bytes:
    """The body of a chat completion; `usage` are prompt and reply tokens."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant"} | message}
    found: dict[str, Any] = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "served",
        "choices": [choice],
    }
    if usage:
        found["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return json.dumps(found).encode()


def reflects(handler: Handler, body: dict[str, Any]) -> None:
    """Answer as the embedded reflector does with the request's seed; a token is a word."""
    prompt = body["messages"][0]["content"]
    reply = extractive(prompt, body["seed"])
    handler.server.usage.append((len(prompt.split()), len(reply.split())))
    handler.send(completion({"content": reply}, handler.server.usage[-1]))


def says(
    status: int = 200,
    body: bytes = b'{"error": {"message": "no"}}',
    content_type: str = "application/json",
    **headers: str,
) -> Answer:
    return lambda handler, _: handler.send(body, status, content_type, **headers)


def hangs(handler: Handler, body: dict[str, Any]) -> None:
    handler.server.closing.wait(60)


def dribbles(handler: Handler, body: dict[str, Any]) -> None:
    """Never silent for long, and never done: as servers that keep a connection alive with blanks."""
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", "1000000")
    handler.end_headers()
    while not handler.server.closing.wait(0.02):
        handler.wfile.write(b" ")


def breaks_off(handler: Handler, body: dict[str, Any]) -> None:
    """Half a reply, then a reset."""
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"mess')
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def dies(handler: Handler, body: dict[str, Any]) -> None:
    """In the middle of a reply, and stays dead."""
    handler.server.die()
    breaks_off(handler, body)


@contextmanager
def serving(*answers: Answer) -> Iterator[Server]:
    server = Server(answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.die()
        thread.join()


# --- what the tests of reflection LMs share: a clock, reflectors, and runs that ask a server of `serving`

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
