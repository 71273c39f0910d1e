"""Requests to a reflection LM over real HTTP: their content, their retries, their pace."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import (
    PROMPT,
    Answer,
    Clock,
    asking,
    breaks_off,
    dribbles,
    failure,
    fast,
    hangs,
    reflects,
    says,
    serving,
    smoke,
)

from fst_bench.fast import reflectors
from fst_bench.fast.reflectors import extractive
from fst_bench.fast.remote import LONGEST_BACKOFF, RemoteReflector, backoff
from fst_bench.method.ledger import Ledger
from fst_bench.method.settings import ReflectionSettings


def test_a_run_over_http_is_the_run_with_the_embedded_reflector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(reflects) as server:
        served = smoke(tmp_path / "served", **fast(server))
    monkeypatch.setattr(reflectors, "extractive", lambda prompt, seed: extractive(prompt, seed % 2**31))
    embedded = smoke(tmp_path / "embedded")
    for name in ("prompts.jsonl", "rollouts.jsonl", "evals.jsonl"):
        assert (served.path / name).read_bytes() == (embedded.path / name).read_bytes()
    prompts = {p["prompt"] for row in served.source.rows("prompts") for p in row["population"]}
    assert len(prompts) > 1  # something was learned
    assert served.ledger["reflections"] == len(server.requests) > 0 == served.ledger["reflection_failures"]
    assert served.ledger["reflection_prompt_tokens"] == sum(prompt for prompt, _ in server.usage)
    assert served.ledger["reflection_sampled_tokens"] == sum(reply for _, reply in server.usage)
    # unknown is not zero
    assert served.ledger["reflection_usd"] is None and embedded.ledger["reflection_usd"] == 0.0
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
        "from fst_bench.method.settings import ReflectionSettings\n"
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
        # of the reply that broke off, not of the errors
        assert reflector.ledger.reflection_unanswered_tokens == len(PROMPT) + 1000


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
        # it had answered: worth a retry again
        assert failure(reflector) == "server error" and len(server.requests) == 6


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
    # before the second, backoff, before its retry, before the third; the fourth is late
    assert clock.slept == [2.0, 0.0, 2.0, 0.5]


@given(st.floats(0, 1e6), st.integers(0, 10), st.integers(0, 2**56 - 1))
def test_backoff_is_bounded_and_the_same_again(base: float, attempt: int, seed: int) -> None:
    most = min(LONGEST_BACKOFF, base * 2**attempt)
    wait = backoff(base, attempt, seed)
    assert most / 2 <= wait <= most and wait == backoff(base, attempt, seed)
