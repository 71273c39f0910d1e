"""Servers that reply with nonsense, or die: each costs one reflection at worst."""

from collections.abc import Callable
from pathlib import Path

import pytest
from serving import PROMPT, Answer, Listening, asking, completion, dies, failure, fast, reflects, says, serving, smoke

from fst_bench.fast.gepa_adapter import propose
from fst_bench.harness.loop import Bench
from fst_bench.harness.store import Store
from fst_bench.method.reflection import ReflectionFailure

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
