"""Reflection LMs over real HTTP: servers on this machine that reflect, dawdle, err, talk nonsense and die."""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import Answer, Handler, Server, breaks_off, completion, dies, dribbles, hangs, reflects, says, serving

import fst_bench
from fst_bench.harness.loop import Bench, Run, Callback
from fst_bench.cli import main
from fst_bench.harness.config import resolve
from fst_bench.harness.planning.cost import calls, estimate
from fst_bench.fast import reflectors
from fst_bench.fast.evolve import evolve
from fst_bench.fast.gepa_adapter import reflect
from fst_bench.fast.reflectors import extractive
from fst_bench.fast.remote import LONGEST_BACKOFF, Price, RemoteReflector, backoff, price_of
from fst_bench.method.settings import FastSettings, ReflectionSettings
from fst_bench.method.reflection import ReflectionFailure
from fst_bench.method.ledger import Ledger
from fst_bench.harness.store import Store

PROMPT = "```\nBe kind. Work step by step.\n```\n# Example 1\n## Feedback\nThe answer is correct."
PLANTED = "sk-planted-Zq7Kx2mT9w"


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, list[float]()

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
    def __init__(self) -> None:
        self.notes = list[str]()

    def note(self, text: str) -> None:
        self.notes.append(text)


def smoke(out: Path, watcher: Callback | None = None, **settings: Any) -> Run:
    return fst_bench.run(stream="single-math", method="gepa", preset="smoke", out=out, watcher=watcher, **settings)


def failure(reflector: RemoteReflector, seed: int = 0) -> str:
    with pytest.raises(ReflectionFailure) as caught:
        reflector(PROMPT, seed)
    return str(caught.value)


# --- the good server


def test_a_run_over_http_is_the_run_with_the_embedded_reflector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(reflects) as server:
        served = smoke(tmp_path / "served", **fast(server))
    monkeypatch.setattr(reflectors, "extractive", lambda prompt, seed: extractive(prompt, seed % 2**31))
    embedded = smoke(tmp_path / "embedded")
    for name in ("prompts.jsonl", "rollouts.jsonl", "evals.jsonl"):
        assert (served.path / name).read_bytes() == (embedded.path / name).read_bytes()
    prompts = {p["prompt"] for row in served.store.rows("prompts") for p in row["population"]}
    assert len(prompts) > 1  # something was learned
    assert served.ledger["reflections"] == len(server.requests) > 0 == served.ledger["reflection_failures"]
    assert served.ledger["reflection_prompt_tokens"] == sum(prompt for prompt, _ in server.usage)
    assert served.ledger["reflection_sampled_tokens"] == sum(reply for _, reply in server.usage)
    assert (
        served.ledger["reflection_usd"] is None and embedded.ledger["reflection_usd"] == 0.0
    )  # unknown is not nothing
    assert "reflection_usd" in (served.path / "report.html").read_text()


def test_what_a_request_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-openai")
    monkeypatch.setenv("MY_KEY", "from-mine")
    with serving(reflects) as server:
        assert asking(server)(PROMPT, 2**55 + 3) == extractive(PROMPT, 3)
        asking(server, api_key_env="MY_KEY", temperature=0.5, max_tokens=99)(PROMPT, 4)
        monkeypatch.delenv("OPENAI_API_KEY")
        asking(server)(PROMPT, 4)
    message = {"messages": [{"role": "user", "content": PROMPT}], "model": "served"}
    assert server.requests[:2] == [
        message | {"max_tokens": 8192, "seed": 3},
        message | {"max_tokens": 99, "seed": 4, "temperature": 0.5},
    ]
    assert server.keys == ["Bearer from-openai", "Bearer from-mine", "Bearer none"]


def test_a_model_may_have_a_slash_in_its_name() -> None:
    with serving(reflects) as server:
        for name in ("Qwen/Qwen3-8B", "openai/gpt-oss-20b"):
            RemoteReflector(name, ReflectionSettings(base_url=server.url), Ledger())(PROMPT, 0)
    assert [request["model"] for request in server.requests] == ["Qwen/Qwen3-8B", "openai/gpt-oss-20b"]


def test_nothing_but_the_server_is_spoken_to() -> None:
    """In a fresh process, from LiteLLM's import on; and nothing is printed."""
    script = (
        "import json, sys\n"
        "met = []\n"
        "sys.addaudithook(lambda event, args: met.append(str(args[1] if event == 'socket.connect' else args[0]))"
        " if event in ('socket.connect', 'socket.getaddrinfo') else None)\n"
        "from fst_bench.fast.remote import RemoteReflector\n"
        "from fst_bench.fast.settings import ReflectionSettings\n"
        "from fst_bench.method.ledger import Ledger\n"
        "RemoteReflector('served', ReflectionSettings(base_url=sys.argv[1]), Ledger())(sys.argv[2], 0)\n"
        "print(json.dumps(met))\n"
    )
    with serving(reflects) as server:
        done = subprocess.run(
            [sys.executable, "-c", script, server.url, PROMPT], capture_output=True, text=True, check=True
        )
    met = json.loads(done.stdout)
    assert met and all("127.0.0.1" in place for place in met), met
    assert not done.stderr


# --- slow


@pytest.mark.parametrize("slow", [hangs, dribbles])
def test_a_slow_server_is_not_waited_for(slow: Answer) -> None:
    with serving(slow) as server:
        reflector = asking(server, timeout=0.5, retries=2, max_tokens=1000)
        assert failure(reflector) == "timeout"
        assert reflector.ledger.reflection_retries == 2
        # it may have been billed: every byte of the prompt a token, and the longest reply
        assert reflector.ledger.reflection_unanswered_tokens == 3 * (len(PROMPT) + 1000)
        assert reflector.ledger.reflection_unanswered_usd is None and reflector.ledger.reflection_spent()[1] is None
        assert reflector.ledger.reflection_prompt_tokens == 0


def test_a_server_that_was_slow_once_is_asked_again() -> None:
    with serving(hangs, reflects) as server:
        reflector = asking(server, timeout=1.0, retries=10)
        assert reflector(PROMPT, 5) == extractive(PROMPT, 5)
        assert reflector.ledger.reflection_retries >= 1


# --- errors


def test_errors_of_the_moment_are_tried_again_with_backoff() -> None:
    with serving(
        says(500),
        says(529),
        breaks_off,
        says(503, retry_after="7"),
        says(429, retry_after="Fri, 01 Jan 2100"),
        reflects,
    ) as server:
        clock = Clock()
        reflector = asking(server, clock, retries=5, backoff=2.0, max_tokens=1000)
        assert reflector(PROMPT, 9) == extractive(PROMPT, 9)
        assert clock.slept == [
            backoff(2.0, 0, 9),
            backoff(2.0, 1, 9),
            backoff(2.0, 2, 9),
            max(7.0, backoff(2.0, 3, 9)),
            backoff(2.0, 4, 9),
        ]
        assert reflector.ledger.reflection_retries == 5
        assert (
            reflector.ledger.reflection_unanswered_tokens == len(PROMPT) + 1000
        )  # the reply that broke off, not the errors


def test_retry_after_is_waited_for() -> None:
    with serving(says(429, retry_after="42.5"), reflects) as server:
        clock = Clock()
        asking(server, clock)(PROMPT, 0)
        assert clock.slept == [42.5]
    with serving(says(429, retry_after="3600"), reflects) as server:
        clock = Clock()
        assert failure(asking(server, clock)) == "rate limited"  # longer than a request's own timeout: not now
        assert clock.slept == [] and len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "reason"), [(429, "rate limited"), (500, "server error"), (502, "server error"), (504, "timeout")]
)
def test_the_last_error_is_the_reason(status: int, reason: str) -> None:
    with serving(says(503), says(status)) as server:
        assert failure(asking(server, retries=1)) == reason
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "refused"),
        (401, "key refused"),
        (403, "key refused"),
        (404, "model or address not found"),
        (422, "refused"),
    ],
)
def test_a_refusal_is_final(status: int, reason: str) -> None:
    with serving(says(status)) as server:
        reflector = asking(server, max_tokens=1000)
        assert failure(reflector) == reason
        assert len(server.requests) == 1 and reflector.ledger.reflection_spent() == (0, 0.0)


def test_a_dead_server_costs_its_retries_once() -> None:
    with serving(says(503), says(503), says(503), reflects, says(503)) as server:
        reflector = asking(server, retries=1)
        assert failure(reflector) == "server error" and len(server.requests) == 2
        assert failure(reflector) == "server error" and len(server.requests) == 3  # one try, no more
        assert reflector(PROMPT, 0) and len(server.requests) == 4
        assert (
            failure(reflector) == "server error" and len(server.requests) == 6
        )  # it had answered: worth a retry again


# --- nonsense

HTML = b"<html><body>Sign in to the wi-fi</body></html>"
GARBAGE: dict[str, tuple[Answer, str]] = {
    "html": (says(200, HTML, "text/html"), "garbage"),
    "html that says it is json": (says(200, HTML), "garbage"),
    "half a json": (says(200, completion({"content": "x"})[:50]), "garbage"),
    "no utf-8": (says(200, b'{"choices": "\xff\xfe"}'), "garbage"),
    "nothing": (says(200, b""), "garbage"),
    "a list": (says(200, b"[1, 2]"), "garbage"),
    "an empty object": (says(200, b"{}"), "garbage"),
    "an error with status 200": (says(200, b'{"error": {"message": "no", "code": 500}}'), "garbage"),
    "choices null": (says(200, b'{"id": "1", "choices": null}'), "garbage"),
    "content is a number": (says(200, completion({"content": 7})), "garbage"),
    "no choices": (says(200, completion({}).replace(b'"choices": [', b'"choices": [], "c": [')), "empty reply"),
    "no content": (says(200, completion({})), "empty reply"),
    "blank content": (says(200, completion({"content": " \n"})), "empty reply"),
    "a tool call": (
        says(200, completion({"content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]})),
        "empty reply",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_a_failure_and_not_asked_for_twice(kind: str) -> None:
    answer, reason = GARBAGE[kind]
    with serving(answer) as server:
        reflector = asking(server, max_tokens=1000)
        assert failure(reflector) == reason
        assert len(server.requests) == 1
        most = len(PROMPT) + 1000
        assert reflector.ledger.reflection_spent()[0] == (
            most if reason == "garbage" else 60
        )  # unreadable: at most; else as counted


def test_a_reply_of_the_wrong_content_type_is_read() -> None:
    with serving(says(200, completion({"content": "```\nBe brief.\n```"}), "text/plain")) as server:
        assert asking(server)(PROMPT, 0) == "```\nBe brief.\n```"


@pytest.mark.parametrize("usage", [None, (0, 0), (-7, 3)])
def test_without_a_usable_count_a_byte_is_a_token(usage: tuple[int, int] | None) -> None:
    with serving(says(200, completion({"content": "é!"}, usage))) as server:
        reflector = asking(server)
        assert reflector(PROMPT, 0) == "é!"
        assert (reflector.ledger.reflection_prompt_tokens, reflector.ledger.reflection_sampled_tokens) == (
            len(PROMPT),
            3,
        )


def test_what_can_be_no_prompt_leaves_the_prompts(bench: Callable[..., Bench]) -> None:
    """A megabyte and an empty fence fail; without a fence the whole reply is the prompt, as gepa has it."""
    replies = ["```\n" + "word " * 200_000 + "\n```", "```\n```", "Answer in \\boxed{}."]
    with serving(*(says(200, completion({"content": text})) for text in replies)) as server:
        b = bench(**fast(server))
        for reason in ("oversized prompt", "empty prompt"):
            (failed,) = reflect(b.lab, [PROMPT], 1000)
            assert isinstance(failed, ReflectionFailure) and str(failed) == reason
        assert reflect(b.lab, [PROMPT], 1000) == [replies[2]]
    assert b.ledger.reflection_reasons == {"oversized prompt": 1, "empty prompt": 1}
    assert (b.ledger.reflections, b.ledger.reflection_failures, b.ledger.reflection_prompt_tokens) == (3, 2, 120)


# --- death


def test_a_server_that_dies_in_the_middle_of_a_run(tmp_path: Path) -> None:
    with serving(reflects, reflects, dies) as server:
        watcher = Listening()
        run = smoke(tmp_path, watcher, **fast(server, retries=2))
    spent = run.ledger
    assert len(server.requests) == 3 and spent["reflections"] == 2 + spent["reflection_failures"] > 3
    assert spent["reflection_reasons"] == {"unreachable": spent["reflection_failures"]}
    assert spent["reflection_retries"] == 2  # of the reflection that saw it die, not of those after
    assert watcher.notes == []  # not every one failed
    assert Store(run.path).broken() == []


def test_a_server_that_was_never_there(tmp_path: Path) -> None:
    with serving(reflects) as server:
        pass
    watcher = Listening()
    run = smoke(tmp_path, watcher, **fast(server, retries=0))
    failed = run.ledger["reflection_failures"]
    assert watcher.notes == [f"EVERY reflection of this run failed ({failed} unreachable): no prompt was ever proposed"]
    prompts = {p["prompt"] for row in run.store.rows("prompts") for p in row["population"]}
    assert prompts == {run.store.read("config")["seed_prompt"]} and failed == run.ledger["reflections"] > 0
    assert run.ledger["reflection_usd"] == 0.0  # nothing was sent


# --- pace and backoff


def test_the_rate_limit_holds_for_retries_too() -> None:
    clock = Clock()
    with serving(reflects, says(500), reflects) as server:
        reflector = asking(server, clock, requests_per_minute=30, backoff=0.0)
        reflector(PROMPT, 0)
        reflector(PROMPT, 1)
        clock.now += 1.5
        reflector(PROMPT, 2)
        clock.now += 10
        reflector(PROMPT, 3)
    assert clock.slept == [
        2.0,
        0.0,
        2.0,
        0.5,
    ]  # before the second, backoff, before its retry, before the third; the fourth is late


@given(st.floats(0, 1e6), st.integers(0, 10), st.integers(0, 2**56 - 1))
def test_backoff_is_bounded_and_the_same_again(base: float, attempt: int, seed: int) -> None:
    most = min(LONGEST_BACKOFF, base * 2**attempt)
    wait = backoff(base, attempt, seed)
    assert most / 2 <= wait <= most and wait == backoff(base, attempt, seed)


# --- money

PRICE = {"usd_per_million_prompt_tokens": 2.0, "usd_per_million_reply_tokens": 10.0}


def test_the_ceiling_in_dollars_by_hand() -> None:
    """A request costs at most 100 bytes * 2 + 100 * 10 = 1,200 millionths, and really 40 * 2 + 20 * 10 = 280."""
    prompt = PROMPT.ljust(100)
    with serving(says(200, completion({"content": "x"}))) as server:
        reflector = asking(server, ceiling_usd=0.0018, max_tokens=100, **PRICE)
        for _ in range(3):  # 0 + 1,200, 280 + 1,200, 560 + 1,200: within 1,800
            reflector(prompt, 0)
        with pytest.raises(ReflectionFailure, match="ceiling"):  # 840 + 1,200
            reflector(prompt, 0)
        assert len(server.requests) == 3
        assert reflector.ledger.reflection_spent() == (180, pytest.approx(0.00084, abs=1e-12))


def test_the_ceiling_in_tokens_counts_what_got_no_answer() -> None:
    """100 bytes and a reply of 100 tokens are 200 at most; a ceiling of 400 holds two of them, to the token."""
    prompt = PROMPT.ljust(100)
    with serving(breaks_off) as server:
        reflector = asking(server, ceiling_tokens=400, max_tokens=100, retries=9)
        with pytest.raises(ReflectionFailure, match="ceiling"):
            reflector(prompt, 0)
        assert len(server.requests) == 2 and reflector.ledger.reflection_unanswered_tokens == 400
        assert reflector.ledger.reflection_retries == 1  # the third request was never sent
    with serving(says(200, completion({"content": "x"}))) as server:
        reflector = asking(server, ceiling_tokens=320, max_tokens=100)
        for _ in range(3):  # 0, 60, 120 + 200
            reflector(prompt, 0)
        with pytest.raises(ReflectionFailure, match="ceiling"):
            reflector(prompt, 0)
        assert len(server.requests) == 3


def test_a_ceiling_survives_a_kill(tmp_path: Path) -> None:
    """Stopped after its first checkpoint with steps, resumed: the same run to the byte, and the ceiling told once a session."""
    limits = PRICE | {"ceiling_usd": 0.006, "max_tokens": 100}

    class Stopping(Listening):
        def step(self, row: dict[str, Any], ledger: Ledger) -> None:
            if row["step"] == 5:
                raise KeyboardInterrupt

    with serving(reflects) as server:
        watcher = Listening()
        whole = smoke(tmp_path / "whole", watcher, stage_problems=24, **fast(server, **limits))
        asked = len(server.requests)
        with pytest.raises(KeyboardInterrupt):
            smoke(tmp_path / "cut", Stopping(), stage_problems=24, **fast(server, **limits))
        (cut,) = (path.parent for path in tmp_path.glob("cut/*/*/*/config.json"))
        again = Listening()
        resumed = fst_bench.resume(cut, again)
    assert whole.ledger["reflection_reasons"].keys() == {"ceiling"} and 0 < asked < whole.ledger["reflections"]
    assert 0 < whole.ledger["reflection_usd"] <= 0.006
    assert (whole.path / "metrics.json").read_bytes() == (resumed.path / "metrics.json").read_bytes()
    assert (whole.path / "prompts.jsonl").read_bytes() == (resumed.path / "prompts.jsonl").read_bytes()
    assert len(watcher.notes) == len(again.notes) == 1 and "ceiling" in watcher.notes[0]


def test_prices() -> None:
    assert price_of("openai/gpt-5.2", ReflectionSettings()) == Price(pytest.approx(1.75), pytest.approx(14.0))
    assert price_of("openai/gpt-5.2", ReflectionSettings(**PRICE)) == Price(2.0, 10.0)
    assert price_of("openai/no-such-model", ReflectionSettings()) is None
    assert price_of("groq/gpt-5.2", ReflectionSettings()) is None  # another provider's price is none
    assert price_of("gpt-5.2", ReflectionSettings(base_url="http://localhost:1/v1")) is None
    assert Price(2.0, 10.0).of(500_000, 100_000) == 2.0


def test_one_unknown_price_makes_the_sum_unknown() -> None:
    ledger = Ledger()
    ledger.reflected(10, 5, 0.5)
    assert ledger.reflection_usd == 0.5
    ledger.reflected(10, 5, None)
    ledger.reflected(10, 5, 0.5)
    assert ledger.reflection_usd is None and ledger.reflection_prompt_tokens == 30
    assert Ledger.from_dict(json.loads(json.dumps(ledger.to_dict()))).counts() == ledger.counts()


def test_an_older_ledger_is_read() -> None:
    old = {"problems": 3, "rollouts": {"train": 4}, "prompt_tokens": 1, "sampled_tokens": 2, "reflections": 5, "reflection_failures": 1,
           "reflection_characters": 9, "optimizer_steps": 1, "seconds": {"sample": 1.5}}  # fmt: skip
    ledger = Ledger.from_dict(old)
    ledger.reflection_failed("timeout")
    assert (
        ledger.reflection_reasons == {"timeout": 1} and ledger.reflection_failures == 2 and ledger.reflection_usd == 0.0
    )
    assert {key: value for key, value in ledger.to_dict().items() if key in old} == old | {"reflection_failures": 2}


def test_a_dry_run_states_calls_and_price(bench: Callable[..., Bench]) -> None:
    overrides = {
        "fast.reflector": "served",
        "fast.reflection": {"base_url": "http://localhost:1/v1", "retries": 1, "max_tokens": 1000, "ceiling_usd": 9}
        | PRICE,
    }
    cost = estimate(*resolve("single-math", "gepa", "smoke", 0, overrides))
    # 12 problems in cycles of 8 and 4; 4 of them anchors, so 24 metric calls are left: of 4 and of 4 problems (all of the last cycle) reflections read
    # 4, one minibatch: each of its two proposals twice at most, 6 times
    assert cost["reflections"] == 2 * 6 * 2 * 2
    assert cost["reflection_reply_tokens"] == 48 * 2 * 1000
    assert cost["reflection_reply_usd"] == 0.96 and cost["reflection_ceiling_usd"] == 9
    embedded = estimate(*resolve("single-math", "gepa", "smoke"))
    assert embedded["reflections"] == 48 and not any(key.startswith("reflection_") for key in embedded)
    assert "reflections" not in estimate(*resolve("single-math", "rl", "smoke"))


@pytest.mark.parametrize("proposals", [1, 2])
def test_no_round_reflects_more_often_than_a_dry_run_says(bench: Callable[..., Bench], proposals: int) -> None:
    settings = FastSettings(population=2, budget=40, anchor=4, minibatch=2, cycle=3, proposals=proposals)
    b = bench()
    b.lab.begin(0)

    def failing(prompt: str, seed: int) -> str:
        raise ReflectionFailure("no")

    b.lab._reflector = failing
    lookahead = [p for batch in b.lab.peek(3) for p in batch]
    evolve(b.lab, [b.config.seed_prompt], lookahead, settings)
    assert 0 < b.ledger.reflections <= calls(settings, len(lookahead))


# --- keys


def echoes(handler: Handler, body: dict[str, Any]) -> None:
    """Repeats the key wherever a server can, another way each time."""
    key = handler.headers["authorization"]
    text = json.dumps({"error": {"message": key, "type": key, "code": key}}).encode()
    count = completion({"content": key}).replace(b'"prompt_tokens": 40', b'"prompt_tokens": "' + key.encode() + b'"')
    ways: list[Answer] = [
        says(500, text), says(401, text), says(429, text, x_key=key), says(200, key.encode()), says(200, text),
        says(200, completion({"content": [{"type": "text", "text": key}]})), says(200, count), says(400, key.encode(), "text/html"),
    ]  # fmt: skip
    ways[len(handler.server.requests) % len(ways)](handler, body)


def test_a_key_appears_nowhere(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "fst_bench",
        "run",
        "--stream",
        "single-math",
        "--method",
        "gepa",
        "--preset",
        "smoke",
        "--json",
    ]
    with serving(echoes) as server:
        sets = [
            "fast.reflector=served",
            f"fast.reflection.base_url={server.url}",
            "fast.reflection.backoff=0.001",
            "fast.reflection.api_key_env=A_KEY_OF_MINE",
        ]
        command += ["--out", str(tmp_path), *(part for text in sets for part in ("--set", text))]
        done = subprocess.run(command, env=os.environ | {"A_KEY_OF_MINE": PLANTED}, capture_output=True, check=True)
    assert len(server.keys) > 8 and set(server.keys) == {f"Bearer {PLANTED}"}  # it was sent, and every way was taken
    assert b"EVERY reflection of this run failed" in done.stdout
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"config.json", "env.json", "ledger.json", "events.jsonl", "report.html", "state.json"} <= {
        path.name for path in files
    }
    everything = {str(path): path.read_bytes() for path in files} | {"stdout": done.stdout, "stderr": done.stderr}
    assert [place for place, content in everything.items() if PLANTED.encode() in content] == []


def test_a_failure_tells_nothing_of_what_the_server_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", PLANTED)
    with serving(echoes) as server:
        for _ in range(8):
            with pytest.raises(ReflectionFailure) as caught:
                asking(server, retries=0)(PROMPT, 0)
            assert PLANTED not in "".join(traceback.format_exception(caught.value))
    assert PLANTED not in "".join(capfd.readouterr())


RUN = ["run", "--stream", "single-math", "--method", "gepa", "--preset", "smoke"]
SERVED = [*RUN, "--set", "fast.reflector=served", "--set", "fast.reflection.base_url=http://localhost:1/v1"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            [*RUN, "--set", f"fast.reflection.base_url=http://user:{PLANTED}@host/v1"],
            "may hold no user, password or query",
        ),
        ([*RUN, "--set", f"fast.reflection.base_url=http://{PLANTED}@host/v1"], "may hold no user, password or query"),
        (
            [*RUN, "--set", f"fast.reflection.base_url=https://host/v1?key={PLANTED}"],
            "may hold no user, password or query",
        ),
        ([*RUN, "--set", f"fast.reflection.base_url=https://host/v1#{PLANTED}"], "may hold no user, password or query"),
        ([*RUN, "--set", f"fast.reflection.base_url={PLANTED}"], "wants an address such as http://localhost:8000/v1"),
        ([*RUN, "--set", f"fast.reflection.base_url=http://[{PLANTED}"], "wants an address such as"),
        ([*RUN, "--set", f"fast.reflection.api_key_env={PLANTED}"], "the NAME of an environment variable"),
        ([*RUN, "--set", f"fast.reflection.api_key={PLANTED}"], "did you mean api_key_env?"),
        (
            [*RUN, "--set", "fast.reflection.base_url=http://localhost:1/v1"],
            "the name of the model that is served there",
        ),
        ([*SERVED, "--set", "fast.reflection.api_key_env=NOT_THERE"], "names no variable of the environment"),
        ([*SERVED, "--set", "fast.reflection.ceiling_usd=1"], "needs the price of 'served'"),
        ([*SERVED, "--set", "fast.reflection.usd_per_million_prompt_tokens=1"], "a price wants both"),
        ([*SERVED, "--set", "fast.reflection.timeout=.inf"], "finite"),
        ([*RUN, "--set", "fast.reflector=opnai/gpt-5.2"], "LiteLLM knows no provider 'opnai'"),
        ([*RUN, "--set", "fast.reflector=openai/gpt-5.2"], "needs a key: the environment has no OPENAI_API_KEY"),
        ([*RUN, "--set", "fast.reflector=extractve"], "unknown reflector 'extractve'"),
    ],
)
def test_what_cannot_work_is_said_before_there_is_a_run(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main([*arguments, "--out", str(tmp_path / "runs")]) == 2
    out, err = capfd.readouterr()
    assert expected in err and err.count("\n") == 1 and err.startswith("fst-bench: ") and not out
    assert PLANTED not in err and not (tmp_path / "runs").exists()
