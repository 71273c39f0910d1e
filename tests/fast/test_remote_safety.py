"""Servers that reply with nonsense, or die: each costs one reflection at worst."""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import (
    PRICE,
    PROMPT,
    Answer,
    Handler,
    Listening,
    asking,
    breaks_off,
    completion,
    dies,
    failure,
    fast,
    reflects,
    says,
    serving,
    smoke,
)

import fst_bench
from fst_bench.cli import main
from fst_bench.fast.evolve import evolve
from fst_bench.fast.gepa_adapter import propose
from fst_bench.fast.remote import Price, price_of
from fst_bench.harness.config import resolve
from fst_bench.harness.loop import Bench
from fst_bench.harness.planning.cost import calls, estimate
from fst_bench.harness.rows import StepRow
from fst_bench.harness.store import Store
from fst_bench.method.ledger import Ledger
from fst_bench.method.reflection import ReflectionFailure
from fst_bench.method.settings import FastSettings, ReflectionSettings

TOOL_CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
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
    "its thoughts alone": (
        says(200, completion({"content": None, "reasoning_content": "```\nBe brief.\n```"})),
        "empty reply",
    ),
    "half a prompt": (says(200, completion({"content": "Be bri"}).replace(b'"stop"', b'"length"')), "reply cut off"),
    "thoughts up to the limit": (says(200, completion({}).replace(b'"stop"', b'"length"')), "reply cut off"),
    "a filtered prompt": (
        says(200, completion({"content": "```\nBe\n```"}).replace(b'"stop"', b'"content_filter"')),
        "reply cut off",
    ),
    "a tool call": (says(200, completion({"content": None, "tool_calls": [TOOL_CALL]})), "empty reply"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_a_failure_and_not_asked_for_twice(kind: str) -> None:
    answer, reason = GARBAGE[kind]
    with serving(answer) as server:
        reflector = asking(server, max_tokens=1000)
        assert failure(reflector) == reason
        assert len(server.requests) == 1
        most = len(PROMPT) + 1000
        # unreadable: at most; else as counted
        assert reflector.ledger.reflection_spent()[0] == (most if reason == "garbage" else 60)


def test_a_reply_of_the_wrong_content_type_is_read() -> None:
    with serving(says(200, completion({"content": "```\nBe brief.\n```"}), "text/plain")) as server:
        assert asking(server)(PROMPT, 0) == "```\nBe brief.\n```"


@pytest.mark.parametrize("usage", [None, (0, 0), (-7, 3)])
def test_without_a_usable_count_a_byte_is_a_token(usage: tuple[int, int] | None) -> None:
    with serving(says(200, completion({"content": "é!"}, usage))) as server:
        reflector = asking(server)
        assert reflector(PROMPT, 0) == "é!"
        ledger = reflector.ledger
        assert (ledger.reflection_prompt_tokens, ledger.reflection_sampled_tokens) == (len(PROMPT), 3)


def test_a_reply_that_cannot_be_a_prompt_leaves_the_prompts(bench: Callable[..., Bench]) -> None:
    """A megabyte and an empty fence fail; without a fence the whole reply is the prompt, as gepa has it."""
    replies = ["```\n" + "word " * 200_000 + "\n```", "```\n```", "Answer in \\boxed{}."]
    with serving(*(says(200, completion({"content": text})) for text in replies)) as server:
        b = bench(**fast(server))
        for reason in ("oversized prompt", "empty prompt"):
            (failed,) = propose(b.lab, [PROMPT], 1000)
            assert isinstance(failed, ReflectionFailure) and str(failed) == reason
        assert propose(b.lab, [PROMPT], 1000) == [replies[2]]
    assert b.ledger.reflection_reasons == {"oversized prompt": 1, "empty prompt": 1}
    assert (b.ledger.reflections, b.ledger.reflection_failures, b.ledger.reflection_prompt_tokens) == (3, 2, 120)


def test_a_prompt_that_leaves_no_room_is_a_failure(tmp_path: Path, bench: Callable[..., Bench]) -> None:
    """900 characters may be 3,600 tokens, of 2,048 positions: sampling under such a prompt would end the run."""
    replies = ["```\n" + "\U0001f600" * 900 + "\n```", "```\n" + "\U0001f600" * 400 + "\n```"]
    with serving(*(says(200, completion({"content": text})) for text in replies)) as server:
        b = bench(**fast(server))
        assert [str(text) for text in propose(b.lab, [PROMPT], 1000)] == ["prompt leaves no room"]
        assert propose(b.lab, [PROMPT], 1000) == ["\U0001f600" * 400]
    assert b.ledger.reflection_reasons == {"prompt leaves no room": 1}


def test_a_server_of_ill_replies_ends_no_run(tmp_path: Path) -> None:
    """Lone surrogates, control tokens, half thoughts and fences: each is a prompt or a counted failure."""
    texts = ["```\n\ud83d<|end|>\x00\n```", "<think>```\ndraft\n```", "```\nhalf a sen", "<|user|>\u2028\u202e"]
    texts += ["[THINK]", "```\n" + "\U0001f600" * 900 + "\n```"]
    with serving(*(says(200, completion({"content": text})) for text in texts)) as server:
        run = smoke(tmp_path, **fast(server, retries=0))
    reasons = run.ledger["reflection_reasons"]
    assert {"reply ends inside its thought", "reply ends inside its fence", "prompt leaves no room"} <= set(reasons)
    tried = {row["context"] for row in run.source.rows("rollouts")}
    assert "\ufffd<|end|>\ufffd" in tried and not any("draft" in text or "half" in text for text in tried)
    assert Store(run.path).broken() == []


# --- death


def test_a_server_that_dies_in_the_middle_of_a_run(tmp_path: Path) -> None:
    with serving(reflects, reflects, dies) as server:
        callback = Listening()
        run = smoke(tmp_path, callback, **fast(server, retries=2))
    spent = run.ledger
    assert len(server.requests) == 3 and spent["reflections"] == 2 + spent["reflection_failures"] > 3
    assert spent["reflection_reasons"] == {"unreachable": spent["reflection_failures"]}
    assert spent["reflection_retries"] == 2  # of the reflection that saw it die, not of those after
    assert callback.notes == []  # not every one failed
    assert Store(run.path).broken() == []


def test_a_server_that_was_never_there(tmp_path: Path) -> None:
    with serving(reflects) as server:
        pass
    callback = Listening()
    run = smoke(tmp_path, callback, **fast(server, retries=0))
    failed = run.ledger["reflection_failures"]
    assert callback.notes == [
        f"EVERY reflection of this run failed ({failed} unreachable): no prompt was ever proposed"
    ]
    prompts = {p["prompt"] for row in run.source.rows("prompts") for p in row["population"]}
    assert prompts == {run.saved["seed_prompt"]} and failed == run.ledger["reflections"] > 0
    assert run.ledger["reflection_usd"] == 0.0  # nothing was sent


# --- keys and settings of a reflection LM: nothing secret is recorded, and mistakes are named before a run begins

PLANTED = "sk-planted-Zq7Kx2mT9w"
RUN = ["run", "--stream", "single-math", "--method", "gepa", "--preset", "smoke"]


def echoes(handler: Handler, body: dict[str, Any]) -> None:
    """Repeat the key wherever a server can, another way each time."""
    key = handler.headers["authorization"]
    text = json.dumps({"error": {"message": key, "type": key, "code": key}}).encode()
    count = completion({"content": key}).replace(b'"prompt_tokens": 40', b'"prompt_tokens": "' + key.encode() + b'"')
    ways: list[Answer] = [
        says(500, text),
        says(401, text),
        says(429, text, x_key=key),
        says(200, key.encode()),
        says(200, text),
        says(200, completion({"content": [{"type": "text", "text": key}]})),
        says(200, count),
        says(400, key.encode(), "text/html"),
    ]
    ways[len(handler.server.requests) % len(ways)](handler, body)


def test_a_key_appears_nowhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fst_bench", *RUN, "--json"]
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


def test_a_failure_repeats_nothing_of_the_servers_words(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", PLANTED)
    with serving(echoes) as server:
        for _ in range(8):
            with pytest.raises(ReflectionFailure) as caught:
                asking(server, retries=0)(PROMPT, 0)
            assert PLANTED not in "".join(traceback.format_exception(caught.value))
    assert PLANTED not in "".join(capfd.readouterr())


SERVED = [*RUN, "--set", "fast.reflector=served", "--set", "fast.reflection.base_url=http://localhost:1/v1"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            [*RUN, "--set", f"fast.reflection.base_url=http://user:{PLANTED}@host/v1"],
            "must not hold a user, password or query",
        ),
        (
            [*RUN, "--set", f"fast.reflection.base_url=http://{PLANTED}@host/v1"],
            "must not hold a user, password or query",
        ),
        (
            [*RUN, "--set", f"fast.reflection.base_url=https://host/v1?key={PLANTED}"],
            "must not hold a user, password or query",
        ),
        (
            [*RUN, "--set", f"fast.reflection.base_url=https://host/v1#{PLANTED}"],
            "must not hold a user, password or query",
        ),
        (
            [*RUN, "--set", f"fast.reflection.base_url={PLANTED}"],
            "requires an address such as http://localhost:8000/v1",
        ),
        ([*RUN, "--set", f"fast.reflection.base_url=http://[{PLANTED}"], "requires an address such as"),
        ([*RUN, "--set", f"fast.reflection.api_key_env={PLANTED}"], "the NAME of an environment variable"),
        ([*RUN, "--set", f"fast.reflection.api_key={PLANTED}"], "did you mean api_key_env?"),
        (
            [*RUN, "--set", "fast.reflection.base_url=http://localhost:1/v1"],
            "the name of the model that is served there",
        ),
        ([*SERVED, "--set", "fast.reflection.api_key_env=NOT_THERE"], "names no variable of the environment"),
        ([*SERVED, "--set", "fast.reflection.ceiling_usd=1"], "requires the price of 'served'"),
        ([*SERVED, "--set", "fast.reflection.usd_per_million_prompt_tokens=1"], "a price requires both"),
        ([*SERVED, "--set", "fast.reflection.timeout=.inf"], "finite"),
        ([*RUN, "--set", "fast.reflector=opnai/gpt-5.2"], "LiteLLM knows no provider 'opnai'"),
        ([*RUN, "--set", "fast.reflector=openai/gpt-5.2"], "requires a key: the environment has no OPENAI_API_KEY"),
        ([*RUN, "--set", "fast.reflector=extractve"], "unknown reflector 'extractve'"),
    ],
)
def test_what_cannot_work_is_refused_before_a_run_begins(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main([*arguments, "--out", str(tmp_path / "runs")]) == 2
    out, err = capfd.readouterr()
    assert expected in err and err.count("\n") == 1 and err.startswith("fst-bench: ") and out.count("\n") <= 1
    assert PLANTED not in err and not (tmp_path / "runs").exists()


# --- the price of reflection: ceilings, prices, and what a dry run states


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
    """Stopped after its first checkpoint with steps, resumed: the same run to the byte, one note a session."""
    limits = PRICE | {"ceiling_usd": 0.006, "max_tokens": 100}

    class Stopping(Listening):
        def on_step(self, row: StepRow, ledger: Ledger) -> None:
            if row.step == 5:
                raise KeyboardInterrupt

    with serving(reflects) as server:
        callback = Listening()
        whole = smoke(tmp_path / "whole", callback, stage_problems=24, **fast(server, **limits))
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
    assert len(callback.notes) == len(again.notes) == 1 and "ceiling" in callback.notes[0]


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
    counts = {"problems": 3, "prompt_tokens": 1, "sampled_tokens": 2, "reflections": 5, "reflection_failures": 1}
    counts |= {"reflection_characters": 9, "optimizer_steps": 1}
    old = counts | {"rollouts": {"train": 4}, "seconds": {"sample": 1.5}}
    ledger = Ledger.from_dict(old)
    ledger.reflection_failed("timeout")
    assert ledger.reflection_reasons == {"timeout": 1}
    assert ledger.reflection_failures == 2 and ledger.reflection_usd == 0.0
    assert {key: value for key, value in ledger.to_dict().items() if key in old} == old | {"reflection_failures": 2}


def test_a_dry_run_states_calls_and_price(bench: Callable[..., Bench]) -> None:
    overrides = {
        "fast.reflector": "served",
        "fast.reflection": {"base_url": "http://localhost:1/v1", "retries": 1, "max_tokens": 1000, "ceiling_usd": 9}
        | PRICE,
    }
    cost = estimate(*resolve("single-math", "gepa", "smoke", 0, overrides))
    # 12 problems in cycles of 8 and 4, a valset of 4, so 24 metric calls are left: of 4 and of 4 problems (all of the
    # last cycle) reflections read 4, one minibatch: each of its two proposals twice at most, 6 times
    assert cost["reflections"] == 2 * 6 * 2 * 2
    assert cost["reflection_reply_tokens"] == 48 * 2 * 1000
    assert cost["reflection_reply_usd"] == 0.96 and cost["reflection_ceiling_usd"] == 9
    embedded = estimate(*resolve("single-math", "gepa", "smoke"))
    assert embedded["reflections"] == 48 and not any(key.startswith("reflection_") for key in embedded)
    assert "reflections" not in estimate(*resolve("single-math", "rl", "smoke"))


@pytest.mark.parametrize("proposals", [1, 2])
def test_no_round_reflects_more_often_than_a_dry_run_says(bench: Callable[..., Bench], proposals: int) -> None:
    settings = FastSettings(
        population_size=2,
        max_metric_calls=40,
        valset_size=4,
        reflection_minibatch_size=2,
        cycle=3,
        proposals=proposals,
    )
    b = bench()
    b.lab.begin(0)

    def failing(prompt: str, seed: int) -> str:
        raise ReflectionFailure("no")

    b.lab._reflector = failing
    lookahead = [p for batch in b.lab.peek(3) for p in batch]
    evolve(b.lab, [b.config.seed_prompt], lookahead, settings)
    assert 0 < b.ledger.reflections <= calls(settings, len(lookahead))
