"""Checks of the vllm-deepspeed backend on a GPU: one function each, which run.py runs in a process of its own.

    python tests/gpu/checks.py sync-bfloat16              # on a GPU
    python tests/gpu/checks.py sync-bfloat16 --device cpu # the same code, where it means less

A check prints one line of JSON, the figures it found, and raises AssertionError where one is not as it should be. It
does without pytest, which a machine with a GPU and no network may not have.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))

TEXTS = ["Start and apply in order: 3 +4 *2", "Source:A Goal:B", "def f(a):\n a.append(3)\n return a\nf([1])"]
Figures = dict[str, Any]
CHECKS: dict[str, Callable[[str], Figures]] = {}


def check(name: str) -> Callable[[Callable[[str], Figures]], Callable[[str], Figures]]:
    """Return a decorator that registers a function of the device as a check."""

    def registered(function: Callable[[str], Figures]) -> Callable[[str], Figures]:
        CHECKS[name] = function
        return function

    return registered


def settings(device: str, **changes: Any) -> Any:
    from fst_bench.policy import PolicySettings

    return PolicySettings(
        **{"max_tokens": 32, "device": device, "distributed": {"cache_gb": 1.0, "max_model_len": 1024}} | changes
    )


def requests(n: int) -> Any:
    from fst_bench.core.types import SampleRequest

    return [SampleRequest(({"role": "user", "content": text},), seed=i, n=n) for i, text in enumerate(TEXTS)]


def learn(policy: Any, samples: list[Any]) -> dict[str, float]:
    from fst_bench.slow.losses import cispo

    signs, weights = [[(-1.0) ** i] * s.sampled for i, s in enumerate(samples)], [[0.01] * s.sampled for s in samples]
    return policy.update(samples, signs, weights, cispo)


def flat(groups: list[list[Any]]) -> list[Any]:
    return [sample for group in groups for sample in group]


def largest(ours: list[list[float]], theirs: list[list[float]]) -> float:
    """Return the largest difference."""
    return max(abs(a - b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True))


def used_gb(device: str) -> float | None:
    """Return the GPU's memory in use, by any process, in GiB; None on a CPU."""
    if device == "cpu":
        return None
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**30


# --- the device


@check("kernels")
def kernels(device: str) -> Figures:
    """Check that vLLM sees a GPU, and that one of its own kernels launches."""
    from vllm import _custom_ops
    from vllm.platforms import current_platform

    found: Figures = {"platform": type(current_platform).__name__, "torch": torch.__version__}
    if device == "cuda":
        assert current_platform.is_cuda(), found
        found["gpu"], found["capability"] = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        x = torch.randn(4, 64, device=device, dtype=torch.bfloat16)
        weight = torch.ones(64, device=device, dtype=torch.bfloat16)
        out = torch.empty_like(x)
        _custom_ops.rms_norm(out, x, weight, 1e-6)
        expected = x.float() * (x.float() ** 2).mean(-1, keepdim=True).rsqrt()
        found["rms_norm_gap"] = float((out.float() - expected).abs().max())
        assert found["rms_norm_gap"] < 0.05, found
    return found


@check("torch-float32")
def torch_float32(device: str) -> Figures:
    """Compare the torch backend on this device with the CPU, on the same rollouts.

    Log-probabilities, KL, and the gradient of one update; on a GPU that takes flex_attention with its backward pass.
    """
    from fst_bench.policy import load_policy

    here, there = (load_policy("embedded:tiny", settings(d)) for d in (device, "cpu"))
    samples = flat(there.sample(requests(4)))
    found: Figures = {
        "shared": here.scorer.shared,
        "flex": here.scorer.flex,
        "passes": len(here.scorer.passes(samples)),
    }
    again = flat(here.sample(requests(4)))
    logprobs, there_logprobs, again_logprobs = here.logprobs(samples), there.logprobs(samples), here.logprobs(again)
    ours, theirs = learn(here, samples), learn(there, samples)
    gradients = [
        torch.cat([p.grad.detach().double().cpu().flatten() for p in policy.model.parameters()])
        for policy in (here, there)
    ]
    found |= {
        "logprob_gap": largest(logprobs, there_logprobs),
        "sampled_gap": largest([s.logprobs for s in again], again_logprobs),
        "loss_gap": abs(ours["loss"] - theirs["loss"]),
        "gradient_gap": float((gradients[0] - gradients[1]).norm() / gradients[1].norm()),
        "kl_gap": largest([here.kl_to_reference(samples)], [there.kl_to_reference(samples)]),
    }
    assert found["shared"] and found["flex"] == (device == "cuda"), found
    assert found["loss_gap"] < 1e-4 and found["gradient_gap"] < 1e-3 and found["logprob_gap"] < 1e-3, found
    assert found["kl_gap"] < 1e-2 and found["sampled_gap"] < 1e-3, found
    return found


@check("torch-bfloat16")
def torch_bfloat16(device: str) -> Figures:
    """Check that the torch backend samples, learns and measures KL in bfloat16."""
    from fst_bench.policy import load_policy

    policy = load_policy("embedded:tiny", settings(device, dtype="bfloat16", float32_head=True))
    samples = flat(policy.sample(requests(4)))
    metrics = learn(policy, samples)
    found = {
        "shared": policy.scorer.shared,
        "mean_logprob_gap": metrics["mean_logprob_gap"],
        "kl": sum(policy.kl_to_reference(samples)),
    }
    assert found["shared"] and found["mean_logprob_gap"] < 0.05 and found["kl"] > 0, found
    return found


# --- the learner


def agreement(zero: int, activations: str) -> Callable[[str], Figures]:
    def agrees(device: str) -> Figures:
        """Compare the DeepSpeed learner on this device with the torch backend on the CPU, in float32."""
        from agree import agree

        with tempfile.TemporaryDirectory() as folder:
            found = agree(zero, activations, Path(folder), device)
        assert found["loss"] < 1e-4 and found["gradient"] < 1e-3 and found["gradient_norm"] < 1e-3, found
        assert found["logprobs"] < 1e-3, found
        assert found["untouched"] and len(found["stopped"]) == 2 and found["started_from"] < 1e-3, found
        return found

    return agrees


check("agreement-zero2")(agreement(2, "kept"))
check("agreement-zero3")(agreement(3, "recomputed"))


@check("bfloat16-zero3-positions")
def positions(device: str) -> Figures:
    """Check that the gap of bfloat16 under ZeRO-3 to float32 does not grow along a row of 1,800 tokens."""
    from fst_bench.core.types import Sample
    from fst_bench.policy import load_policy
    from fst_bench.policy.distributed.learner import Learner, join
    from fst_bench.policy.models import model_folder

    join(device)
    reference = load_policy("embedded:tiny", settings("cpu"))
    ids = reference.tokenizer(" ".join(TEXTS * 40), add_special_tokens=False)["input_ids"][:1800]
    row = Sample(ids, [False] * 8 + [True] * (len(ids) - 8), [0.0] * (len(ids) - 8), "", True)
    exact = torch.tensor(reference.logprobs([row])[0])
    found: Figures = {}
    for zero in (2, 3):
        own = settings(device, dtype="bfloat16", distributed={"zero": zero})
        learner = Learner(model_folder("embedded:tiny"), own, reference.pad)
        gaps = [float(part.abs().mean()) for part in (torch.tensor(learner.logprobs([row])[0]) - exact).chunk(3)]
        found[f"zero{zero}"] = gaps
        assert gaps[2] < 1.25 * gaps[0], found
    return found


# --- both together


def synced(dtype: str) -> Callable[[str], Figures]:
    def three_times(device: str) -> Figures:
        """Sample, update and sync, three times.

        Every tensor is equal, the canary quiet, and the samples' log-probabilities are the learner's.
        """
        from fst_bench.policy import load_policy

        policy = load_policy("embedded:tiny", settings(device, dtype=dtype, learning_rate=1e-6), "vllm-deepspeed")
        found: Figures = {"canary": [], "mean_logprob_gap": [], "seconds": []}
        for _ in range(3):
            samples = flat(policy.sample(requests(8)))
            metrics = learn(policy, samples)
            start = time.perf_counter()
            policy.ranked.sync("policy")
            found["seconds"].append(round(time.perf_counter() - start, 3))
            found["tensors"], found["unknown"] = len(policy.ranked.compared.same), policy.ranked.compared.unknown
            found["canary"].append(policy.ranked.gap)
            found["mean_logprob_gap"].append(metrics["mean_logprob_gap"])
        kl = policy.kl_to_reference(samples)
        policy.reference.sample(requests(1))
        found["kl"] = sum(kl)
        assert found["tensors"] == 47 and not found["unknown"], found
        assert max(found["mean_logprob_gap"]) < (1e-3 if dtype == "float32" else 0.05), found
        return found

    return three_times


check("sync-float32")(synced("float32"))
check("sync-bfloat16")(synced("bfloat16"))


@check("broken-syncs")
def broken(device: str) -> Figures:
    """Check that a lost sync, a lost tensor and a prefix cache that was not reset stop the run."""
    from fst_bench.policy import load_policy
    from fst_bench.policy.distributed.policy import SyncError
    from fst_bench.policy.distributed.sampler import Sampler

    policy = load_policy("embedded:tiny", settings(device, dtype="float32"), "vllm-deepspeed")
    engine, receive = policy.ranked.sampler.engine, Sampler.receive
    reset = engine.reset_prefix_cache
    found: Figures = {}

    def caught(name: str) -> None:
        learn(policy, samples)
        try:
            policy.sample(requests(1))
        except SyncError as error:
            found[name] = str(error)[:100]
        finally:
            Sampler.receive, engine.reset_prefix_cache = receive, reset
            policy.ranked.holds = ("nothing", 0)

    def without(lost: str) -> Callable[[Any, Iterator[Any]], None]:
        def partly(self: Any, weights: Iterator[Any]) -> None:
            receive(self, ((name, tensor) for name, tensor in weights if name != lost))

        return partly

    def nothing(self: Any, weights: Iterator[Any]) -> None:
        for _ in weights:
            pass

    policy.ranked.sampler.sleep = lambda: None  # awake while learning, so that there is something old to keep
    samples = flat(policy.sample(requests(4)))
    Sampler.receive = without("model.layers.2.mlp.down_proj.weight")  # type: ignore[method-assign]
    caught("lost tensor")
    Sampler.receive = nothing  # type: ignore[method-assign]
    caught("lost sync")
    policy.sample(requests(1))
    engine.reset_prefix_cache = lambda: True
    caught("kept prefix cache")
    assert found.keys() == {"lost tensor", "lost sync", "kept prefix cache"}, found
    return found


@check("sleep")
def sleep(device: str) -> Figures:
    """Check that a sleeping engine gives back the GPU's memory, and that a second engine is refused in one line."""
    from fst_bench.policy import load_policy
    from fst_bench.policy.distributed.sampler import Sampler

    own = settings(device, dtype="bfloat16", distributed={"cache_gb": 4.0, "max_model_len": 1024})
    policy = load_policy("embedded:tiny", own, "vllm-deepspeed")
    samples = flat(policy.sample(requests(4)))
    found: Figures = {"awake_gb": used_gb(device)}
    policy.ranked.sampler.sleep()
    found["asleep_gb"] = used_gb(device)
    learn(policy, samples)
    policy.sample(requests(4))
    found["awake_again_gb"] = used_gb(device)
    if device == "cuda":
        assert found["awake_gb"] - found["asleep_gb"] > 3.5, found
        assert abs(found["awake_gb"] - found["awake_again_gb"]) < 1, found
        try:
            Sampler("nowhere", policy.settings, {1}, 1)
        except ValueError as error:
            found["second engine"] = str(error)
        assert "second engine" in found
    return found


# --- the harness

RUN = ["run", "--stream", "single-math", "--method", "fst", "--preset", "smoke"]


def command(arguments: list[str], device: str, backend: str) -> list[str]:
    own = ["--backend", backend]
    for setting in (f"device={device}", "dtype=bfloat16", "distributed.cache_gb=1"):
        own += ["--set", f"policy.{setting}"]
    return [sys.executable, "-m", "fst_bench", *arguments, *(own if arguments[0] == "run" else [])]


def to_its_report(backend: str) -> Callable[[str], Figures]:
    def runs(device: str) -> Figures:
        """Run a smoke run from the command line to its report."""
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            done = subprocess.run(
                [*command(RUN, device, backend), "--out", folder], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr[-2000:]
            (report,) = Path(folder).rglob("report.html")
            rows = [json.loads(line) for line in (report.parent / "evals.jsonl").read_text().splitlines()]
            ledger = json.loads((report.parent / "ledger.json").read_text())
        found = {
            "seconds": round(time.perf_counter() - start, 1),
            "evaluations": len(rows),
            "optimizer_steps": ledger["optimizer_steps"],
            "kl": rows[-1]["kl"],
        }
        assert ledger["optimizer_steps"] > 0 and rows[-1]["kl"] > 0, found
        return found

    return runs


check("run-vllm-deepspeed")(to_its_report("vllm-deepspeed"))
check("run-torch")(to_its_report("torch"))


@check("kill-and-resume")
def kill_and_resume(device: str) -> Figures:
    """Check that a run that is killed after its first checkpoint resumes from it, and records every step once."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w") as out:
            running = subprocess.Popen(
                [*command(RUN, device, "vllm-deepspeed"), "--out", folder, "--set", "checkpoint.every=1"],
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
            while not list(Path(folder).rglob("step-000001/COMPLETE.json")):
                assert running.poll() is None, log.read_text()[-2000:]
                time.sleep(0.05)
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
        (config,) = Path(folder).rglob("config.json")
        cut = len(list(config.parent.rglob("COMPLETE.json")))
        assert not (config.parent / "manifest.json").exists(), "it ended before it was killed"
        done = subprocess.run(
            command(["resume", str(config.parent)], device, ""), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        steps = [
            row["step"]
            for line in (config.parent / "events.jsonl").read_text().splitlines()
            if (row := json.loads(line))["kind"] == "step"
        ]
        found = {"checkpoints_when_killed": cut, "steps": steps, "finished": (config.parent / "manifest.json").exists()}
    assert steps == list(range(1, len(steps) + 1)) and found["finished"], found
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CHECKS)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments = parser.parse_args()
    torch.set_num_threads(1 if arguments.device == "cpu" else 8)
    print(json.dumps(CHECKS[arguments.name](arguments.device)))


if __name__ == "__main__":
    main()
