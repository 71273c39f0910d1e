"""Keys and settings of a reflection LM: nothing secret is recorded, and mistakes are named before a run begins."""

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from serving import PROMPT, Answer, Handler, asking, completion, says, serving

from fst_bench.cli import main
from fst_bench.method.reflection import ReflectionFailure

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
