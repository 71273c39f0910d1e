"""What this machine has, and for each preset: yes, or no because.

Nothing is installed, downloaded or started. Of keys only the names of their environment variables are shown.
"""

import importlib.util
import os
import platform
import re
import urllib.request
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, requires, version
from pathlib import Path

import torch
from huggingface_hub import constants, try_to_load_from_cache
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from fst_bench.harness.config import Config, preset_files, resolve
from fst_bench.harness.planning import fit
from fst_bench.method.ledger import Ledger
from fst_bench.method.settings import EMBEDDED_REFLECTORS
from fst_bench.policy.models import model_folder
from fst_bench.tasks.data import HUB
from fst_bench.tasks.sandbox import sandbox_kind

HUB_SECONDS = 5.0


@dataclass(frozen=True)
class Machine:
    """What was found here."""

    memory_gb: float
    free_gb: float
    gpus: list[tuple[str, float]]
    """Name and GiB of each."""
    hub: str | None
    """None, or why it can't be used."""
    sandbox: str

    def hardware(self, device: str) -> fit.Hardware:
        """As a preset states it; speeds are not known."""
        if device == "cpu":
            return fit.Hardware(gpus=0, memory_gb=self.memory_gb, teraflops=1, bandwidth=1)
        return fit.Hardware(gpus=len(self.gpus), memory_gb=min(gb for _, gb in self.gpus), teraflops=1, bandwidth=1)


def look() -> Machine:
    page = os.sysconf("SC_PAGE_SIZE") / fit.GIB
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return Machine(
        memory_gb=os.sysconf("SC_PHYS_PAGES") * page, free_gb=os.sysconf("SC_AVPHYS_PAGES") * page,
        gpus=[(gpu.name, gpu.total_memory / fit.GIB) for gpu in gpus], hub=hub(), sandbox=sandbox_kind(),
    )  # fmt: skip


def hub() -> str | None:
    """None where the hub answers, else why not."""
    if constants.HF_HUB_OFFLINE:
        return "switched off by HF_HUB_OFFLINE"
    try:
        with urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_SECONDS):
            return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return f"does not answer ({getattr(reason, 'strerror', None) or type(reason).__name__})"


def package(name: str, module: str, extra: str) -> str:
    """Its version, and the one that fst-bench asks for where that is another; or how to get it."""
    if importlib.util.find_spec(module) is None:
        return f"not installed: pip install 'fst-bench[{extra}]'"
    found = distribution(name, module)
    if found is None:
        return "installed"
    wanted = other_version(version(found), name, "fst-bench", extra)
    said = version(found) if found == name else f"{found} {version(found)}"
    return said + (f" (fst-bench is tested with {wanted})" if wanted else "")


def distribution(name: str, module: str) -> str | None:
    """The package that brings the module: `name`, or the one that is installed in its place."""
    try:
        version(name)
        return name
    except PackageNotFoundError:  # vLLM's CPU build is a package of another name
        first = re.compile(rf"^{module}/__init__\.py,", re.MULTILINE)  # packages_distributions() takes seconds
        return next((found.name for found in distributions() if first.search(found.read_text("RECORD") or "")), None)


def other_version(found: str, name: str, owner: str, extra: str = "") -> str | None:
    """The version of `name` that the metadata of the package `owner` asks for, where `found` is another; else None."""
    try:
        asked = [Requirement(line) for line in requires(owner) or []]
    except PackageNotFoundError:  # run from a copy that was not installed
        return None
    for requirement in asked:
        if canonicalize_name(requirement.name) != canonicalize_name(name):
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            wanted = re.sub(r"\+[^,]*", "", str(requirement.specifier))  # 2.13.0+cpu is 2.13.0 built another way
            return None if SpecifierSet(wanted).contains(found, prereleases=True) else wanted.removeprefix("==")
    return None


def torch_beside_vllm() -> str:
    """torch's version, and the one that vLLM was built for where that is another."""
    vllm = distribution("vllm", "vllm") if importlib.util.find_spec("vllm") else None
    wanted = other_version(torch.__version__, "torch", vllm) if vllm else None
    return str(torch.__version__) + (f" (vLLM {version(vllm)} is built for {wanted})" if vllm and wanted else "")


def findings(machine: Machine) -> dict[str, str]:
    """What was found, in words."""
    gpus = ", ".join(f"{name} ({gb:.0f} GB)" for name, gb in machine.gpus)
    keys = sorted(name for name in os.environ if name.endswith("_API_KEY") and os.environ[name])
    return {
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "torch": f"{torch_beside_vllm()}, {os.cpu_count()} CPUs",
        "GPUs": gpus or "none that torch sees",
        "memory": f"{machine.memory_gb:.1f} GB, {machine.free_gb:.1f} free",
        "vLLM": package("vllm", "vllm", "gpu"),
        "DeepSpeed": package("deepspeed", "deepspeed", "gpu"),
        "hub": f"{constants.ENDPOINT} {machine.hub or 'answers'}",
        "datasets": package("datasets", "datasets", "data"),
        "reflectors": f"{', '.join(EMBEDDED_REFLECTORS)}; LiteLLM {package('litellm', 'litellm', 'reflection')}; keys in the environment: {', '.join(keys) or 'none'}",
        "sandbox": machine.sandbox,
        "lm-eval": package("lm_eval", "lm_eval", "eval"),
        "trackers": ", ".join(f"{name} {package(name, module, 'track')}" for name, module in TRACKERS.items()),
    }


TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow-skinny": "mlflow"}


def presets(machine: Machine) -> dict[str, list[str]]:
    """Preset -> why it can't run here; an empty list where it can."""
    return {name: obstacles(resolve("continual-4", "fst", name)[0], machine) for name in preset_files()}


def obstacles(config: Config, machine: Machine) -> list[str]:
    found = []
    if config.backend != "torch":
        found += [
            f"{name} is not installed"
            for name, module in (("vLLM", "vllm"), ("DeepSpeed", "deepspeed"))
            if not importlib.util.find_spec(module)
        ]
    if config.policy.device == "cuda" and not machine.gpus:
        found.append("torch sees no GPU")
    else:
        reason = fit.fits(config, fit.shape_of(config.model), machine.hardware(config.policy.device))
        found += [reason] if reason else []
    cached = Path(model_folder(config.model)).is_dir() or isinstance(
        try_to_load_from_cache(config.model, "config.json"), str
    )
    if not cached and machine.hub:
        found.append(f"{config.model} is not in the hub's cache, and the hub {machine.hub}")
    if config.data == HUB and not importlib.util.find_spec("datasets"):
        found.append("datasets is not installed")
    if config.data == HUB and machine.hub:
        found.append(f"its data sets come from the hub, which {machine.hub}")
    return found + reflector(config)


def reflector(config: Config) -> list[str]:
    """What stands between this machine and the preset's reflection LM, which is not asked."""
    if config.fast.reflector in EMBEDDED_REFLECTORS:
        return []
    from fst_bench.fast.remote import RemoteReflector  # not before it is needed: LiteLLM is large

    try:
        RemoteReflector(config.fast.reflector, config.fast.reflection, Ledger())
    except ValueError as error:
        return [str(error)]
    return []
