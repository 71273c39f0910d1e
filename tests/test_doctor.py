import json

import pytest

from fst_bench import doctor
from fst_bench.cli import main
from fst_bench.config import resolve

HERE = doctor.Machine(memory_gb=24, free_gb=20, gpus=[], hub=None, sandbox="rlimits")


def why(preset: str, machine: doctor.Machine) -> str:
    return "; ".join(doctor.obstacles(resolve("continual-4", "fst", preset)[0], machine))


def with_gpus(count: int, memory_gb: float) -> doctor.Machine:
    return doctor.Machine(24, 20, [("a GPU", memory_gb)] * count, None, "rlimits")


def test_this_machine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "token-that-nobody-may-see")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["doctor", "--json"]) == 0
    said = capsys.readouterr().out
    found = json.loads(said.splitlines()[-1])
    assert found["presets"]["tiny"] == [] and found["presets"]["smoke"] == []
    assert "SOME_API_KEY" in found["machine"]["reflectors"] and "token-that-nobody" not in said
    assert found["machine"]["sandbox"] and found["machine"]["torch"].startswith("2.")


def test_a_preset_that_wants_gpus() -> None:
    assert "torch sees no GPU" in why("qwen3-0.6b", HERE)
    assert "GB" not in why("qwen3-0.6b", with_gpus(1, 24)) and "GB" not in why("qwen3-8b-paper", with_gpus(8, 80))
    assert "GB a GPU, and of 16 GB" in why("qwen3-0.6b", with_gpus(1, 16))
    assert "GB a GPU, and of 24 GB" in why("qwen3-8b-paper", with_gpus(8, 24))
    assert "GB" not in why("qwen3-0.6b", with_gpus(4, 80))  # more than it was made for is no obstacle


def test_what_the_doctor_says_is_what_a_run_says(capsys: pytest.CaptureFixture[str]) -> None:
    machine = doctor.look()
    reasons = why("qwen3-0.6b", machine)
    if machine.gpus or "DeepSpeed" not in reasons:
        pytest.skip("for a machine without GPUs and DeepSpeed")
    assert main(["run", "--stream", "single-math", "--method", "rl", "--preset", "qwen3-0.6b"]) == 2
    assert "needs vLLM and DeepSpeed" in capsys.readouterr().err
    assert main(["run", "--stream", "single-math", "--method", "rl", "--preset", "qwen3-0.6b", "--backend", "torch"]) == 2
    assert "torch sees no GPU" in capsys.readouterr().err


def test_the_hub_and_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = doctor.Machine(24, 20, [], "does not answer", "rlimits")
    assert "Qwen/Qwen3-0.6B is not in the hub's cache" in why("qwen3-0.6b", silent) and "cache" not in why("qwen3-0.6b", HERE)
    assert "data sets come from the hub" in why("qwen3-8b-paper", silent) and "hub" not in why("tiny", silent)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert "the environment has no OPENAI_API_KEY" in why("qwen3-8b-paper", HERE)
    monkeypatch.setenv("OPENAI_API_KEY", "token")
    assert "OPENAI_API_KEY" not in why("qwen3-8b-paper", HERE)
