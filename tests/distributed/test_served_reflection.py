"""The reflection LM against vLLM's own OpenAI-compatible server, which serves the embedded model behind a key."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fst_bench
from fst_bench.cli import main
from fst_bench.core.types import SampleRequest
from fst_bench.fast.remote import RemoteReflector
from fst_bench.harness.loop import Callback
from fst_bench.harness.rows import PopulationRow
from fst_bench.harness.store import Store
from fst_bench.method.ledger import Ledger
from fst_bench.method.reflection import ReflectionFailure
from fst_bench.method.settings import ReflectionSettings
from fst_bench.policy import PolicySettings, load_policy
from fst_bench.policy.models import model_folder

KEY = "sk-planted-Wb4Tn8rQ1z"
PROMPT = "Start and apply in order: 3 +4 *2"


class Served:
    """`embedded:tiny` as the model `tiny`, in processes of its own."""

    def __init__(self, log: Path):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.root = f"http://127.0.0.1:{free.getsockname()[1]}"
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model_folder("embedded:tiny")]
        command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", self.root.rpartition(":")[2]]
        command += ["--dtype", "float32", "--enforce-eager", "--max-num-seqs", "4"]
        small = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
        silent = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_API_KEY": KEY}
        self.process = subprocess.Popen(
            command,
            env=os.environ | small | silent,
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        while not self.ready():
            assert self.process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.2)

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def ready(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.root}/health", timeout=10).status == 200
        except (urllib.error.URLError, OSError):
            return False

    def counted(self) -> tuple[int, int]:
        """Return (prompt, sampled) tokens since the start, by the server's own counters."""
        text = urllib.request.urlopen(f"{self.root}/metrics", timeout=60).read().decode()
        prompt, sampled = (
            re.search(rf"^vllm:{kind}_tokens_total{{.*}} (.+)$", text, re.MULTILINE)
            for kind in ("prompt", "generation")
        )
        assert prompt and sampled
        return int(float(prompt[1])), int(float(sampled[1]))

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)  # its engine too
            self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("served") / "log")
    yield served
    served.kill()


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVED_KEY", KEY)
    monkeypatch.setenv("WRONG_KEY", "sk-of-somebody-else")


def reflector_of(server: Served, model: str = "tiny", **settings: Any) -> RemoteReflector:
    given = {"base_url": server.url, "api_key_env": "SERVED_KEY", "max_tokens": 64, "temperature": 0.0} | settings
    return RemoteReflector(model, ReflectionSettings(**given), Ledger())


def fast(server: Served) -> dict[str, Any]:
    return {
        "fast": {
            "reflector": "tiny",
            "reflection": {"base_url": server.url, "api_key_env": "SERVED_KEY", "max_tokens": 256, "backoff": 0.001},
        }
    }


def test_the_reply_is_the_models_and_so_is_the_count(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """By both ways to name the model: its name with base_url, and LiteLLM's own provider for vLLM."""
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", server.url)
    request = SampleRequest(({"role": "user", "content": PROMPT},), seed=0)
    greedy = load_policy("embedded:tiny", PolicySettings(max_tokens=64)).sample([request], temperature=0.0)[0][0]
    for model, base_url in (("tiny", server.url), ("hosted_vllm/tiny", None)):
        reflector, before = reflector_of(server, model, base_url=base_url), server.counted()
        assert reflector(PROMPT, 0) == greedy.text
        charged = reflector.ledger.reflection_prompt_tokens, reflector.ledger.reflection_sampled_tokens
        assert charged == (len(greedy.tokens) - greedy.sampled, greedy.sampled)
        assert charged == since(server, before)


def since(server: Served, before: tuple[int, int]) -> tuple[int, ...]:
    return tuple(now - then for now, then in zip(server.counted(), before, strict=True))


def test_a_run_that_reflects_over_it(server: Served, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = server.counted()
    sets = {
        "reflector": "tiny",
        "reflection.base_url": server.url,
        "reflection.api_key_env": "SERVED_KEY",
        "reflection.max_tokens": 256,
    }
    command = f"run --stream single-math --method fst --preset smoke --out {tmp_path} --json".split()
    assert main(command + [part for name, value in sets.items() for part in ("--set", f"fast.{name}={value}")]) == 0
    out, err = capfd.readouterr()
    ledger = json.loads((Path(json.loads(out.splitlines()[-1])["run"]) / "ledger.json").read_text())
    assert ledger["reflections"] > 0 and ledger["reflection_unanswered_tokens"] == 0
    charged = ledger["reflection_prompt_tokens"], ledger["reflection_sampled_tokens"]
    assert charged == since(server, before) and charged > (0, 0)
    print(f"{ledger['reflections']} reflections, {charged} tokens, {ledger['reflection_reasons']}")
    assert KEY not in out + err and "Traceback" not in err
    assert [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("model", "settings", "reason"),
    [
        ("tiny", {"api_key_env": "WRONG_KEY"}, "key refused"),
        ("big", {}, "model or address not found"),
        ("tiny", {"max_tokens": 8192}, "refused"),  # the server's context is 2,048
    ],
)
def test_a_request_that_it_refuses_is_sent_once(
    server: Served, model: str, settings: dict[str, Any], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    reflector, before = reflector_of(server, model, **settings), server.counted()
    with pytest.raises(ReflectionFailure) as caught:
        reflector(PROMPT, 0)
    assert str(caught.value) == reason and reflector.ledger.reflection_retries == 0
    assert reflector.ledger.reflection_spent() == (0, 0.0) and server.counted() == before
    assert capfd.readouterr() == ("", "")


def test_it_is_killed_in_the_middle_of_a_run(server: Served, tmp_path: Path) -> None:
    """Killed after the first of two rounds of reflection. The last of these tests: no server is left."""

    class Killing(Callback):
        def __init__(self) -> None:
            self.notes = list[str]()

        def on_population(self, row: PopulationRow) -> None:
            server.kill()

        def on_note(self, text: str) -> None:
            self.notes.append(text)

    callback = Killing()
    run = fst_bench.run(
        stream="single-math", method="fst", preset="smoke", out=tmp_path, callback=callback, **fast(server)
    )
    first, second = run.populations
    assert first.reflections > first.reflection_failures
    assert second.reflections == second.reflection_failures > 0
    assert run.ledger["reflection_reasons"]["unreachable"] == second.reflections
    assert [p.prompt for p in second.population] == [p.prompt for p in first.population]
    assert callback.notes == [] and run.metrics["stages"] and Store(run.path).broken() == []
