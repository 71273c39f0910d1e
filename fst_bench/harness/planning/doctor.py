"""The machine as it was found, and for each preset whether it can run here, or why not.

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

import psutil
import torch
from huggingface_hub import constants, try_to_load_from_cache
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from fst_bench.harness.config import Config, Hardware, preset_files, resolve
from fst_bench.harness.planning.fit import fits
from fst_bench.harness.planning.memory import GIB, shape_of
from fst_bench.method.ledger import Ledger
from fst_bench.method.settings import EMBEDDED_REFLECTORS
from fst_bench.policy import packaged
from fst_bench.policy.models import model_folder
from fst_bench.tasks.data import HUB
from fst_bench.tasks.sandbox import sandbox_kind

HUB_SECONDS = 5.0
"""How long the hub may take to answer."""
TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow-skinny": "mlflow"}
"""Package -> its module."""


@dataclass(frozen=True)
class Machine:
    """The parts of a machine that decide which presets it can run."""

    memory_gb: float
    """GiB of main memory."""
    free_gb: float
    """GiB of it that a new process can have."""
    gpus: list[tuple[str, float]]
    """Name and GiB of each."""
    hub: str | None
    """Why the hub cannot be used; None where it can."""
    sandbox: str
    """The way in which untrusted code is confined here."""

    def hardware(self, config: Config) -> Hardware | None:
        """Return what a run can have of the machine, as a preset states it; None where it requires a GPU.

        The speeds are not known.
        """
        if config.policy.device == "cpu":
            return Hardware(gpus=0, memory_gb=round(self.memory_gb, 1), teraflops=1, bandwidth=1)
        if not self.gpus:
            return None
        used = self.gpus[:1] if config.backend == "torch" else self.gpus
        return Hardware(gpus=len(used), memory_gb=min(gb for _, gb in used), teraflops=1, bandwidth=1)


def look() -> Machine:
    """Return what this machine has."""
    return Machine(*measured(), hub=hub(), sandbox=sandbox_kind())


def measured() -> tuple[float, float, list[tuple[str, float]]]:
    """Return `memory_gb`, `free_gb` and `gpus` of this machine."""
    memory = psutil.virtual_memory()
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return memory.total / GIB, memory.available / GIB, [(gpu.name, gpu.total_memory / GIB) for gpu in gpus]


def hardware_here(config: Config) -> Hardware | None:
    """Return what a run can have of this machine; see `Machine.hardware`. The hub is not asked."""
    return Machine(*measured(), hub=None, sandbox="").hardware(config)


def hub() -> str | None:
    """Return why the hub does not answer; None where it does."""
    if constants.HF_HUB_OFFLINE:
        return "switched off by HF_HUB_OFFLINE"
    try:
        with urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_SECONDS):
            return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return f"does not answer ({getattr(reason, 'strerror', None) or type(reason).__name__})"


def package(name: str, module: str, extra: str) -> str:
    """Return a package's version, with the one that fst-bench asks for where that is another; or how to get it."""
    if importlib.util.find_spec(module) is None:
        return f"not installed: pip install 'fst-bench[{extra}]'"
    found = distribution(name, module)
    if found is None:
        return "installed"
    tested = other_version(version(found), name, "fst-bench", extra)
    here = version(found) if found == name else f"{found} {version(found)}"
    return here + (f" (fst-bench is tested with {tested})" if tested else "")


def distribution(name: str, module: str) -> str | None:
    """Return the package that has the module: `name`, or one that is installed in its place; None where none has."""
    try:
        version(name)
        return name
    except PackageNotFoundError:  # vLLM's CPU build is a package of another name
        first = re.compile(rf"^{module}/__init__\.py,", re.MULTILINE)  # packages_distributions() takes seconds
        return next((found.name for found in distributions() if first.search(found.read_text("RECORD") or "")), None)


def other_version(found: str, name: str, owner: str, extra: str = "") -> str | None:
    """Return the version of `name` that the package `owner` requires; None where `found` is that one."""
    try:
        required = [Requirement(line) for line in requires(owner) or []]
    except PackageNotFoundError:  # run from a copy that was not installed
        return None
    for requirement in required:
        if canonicalize_name(requirement.name) != canonicalize_name(name):
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            versions = re.sub(r"\+[^,]*", "", str(requirement.specifier))  # 2.13.0+cpu is 2.13.0 built another way
            return None if SpecifierSet(versions).contains(found, prereleases=True) else versions.removeprefix("==")
    return None


def torch_version() -> str:
    """Return torch's version, with the one that vLLM was built for where that is another."""
    vllm = distribution("vllm", "vllm") if importlib.util.find_spec("vllm") else None
    other = other_version(torch.__version__, "torch", vllm) if vllm else None
    return str(torch.__version__) + (f" (vLLM {version(vllm)} is built for {other})" if vllm and other else "")


def findings(machine: Machine) -> dict[str, str]:
    """Return what was found, in words, by its name."""
    gpus = ", ".join(f"{name} ({gb:.0f} GB)" for name, gb in machine.gpus)
    keys = sorted(name for name in os.environ if name.endswith("_API_KEY") and os.environ[name])
    reflectors = [
        ", ".join(EMBEDDED_REFLECTORS),
        f"LiteLLM {package('litellm', 'litellm', 'reflection')}",
        f"keys in the environment: {', '.join(keys) or 'none'}",
    ]
    return {
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "torch": f"{torch_version()}, {os.cpu_count()} CPUs",
        "GPUs": gpus or "none that torch sees",
        "memory": f"{machine.memory_gb:.1f} GB, {machine.free_gb:.1f} free",
        "vLLM": package("vllm", "vllm", "gpu"),
        "DeepSpeed": package("deepspeed", "deepspeed", "gpu"),
        "hub": f"{constants.ENDPOINT} {machine.hub or 'answers'}",
        "datasets": package("datasets", "datasets", "data"),
        "reflectors": "; ".join(reflectors),
        "sandbox": machine.sandbox,
        "lm-eval": package("lm_eval", "lm_eval", "eval"),
        "trackers": ", ".join(f"{name} {package(name, module, 'track')}" for name, module in TRACKERS.items()),
    }


def presets(machine: Machine) -> dict[str, list[str]]:
    """Return for each preset why it cannot run here: an empty list where it can."""
    return {name: obstacles(resolve("continual-4", "fst", name)[0], machine) for name in preset_files()}


def obstacles(config: Config, machine: Machine) -> list[str]:
    """Return what stands between a machine and a configuration."""
    found = []
    if config.backend != "torch":
        found += [
            f"{name} is not installed"
            for name, module in (("vLLM", "vllm"), ("DeepSpeed", "deepspeed"))
            if not importlib.util.find_spec(module)
        ]
    hardware = machine.hardware(config)
    if reason := fits(config, shape_of(config.model), hardware) if hardware else "torch sees no GPU":
        found.append(reason)
    found += model_obstacles(config.model, machine)
    if config.data == HUB and not importlib.util.find_spec("datasets"):
        found.append("datasets is not installed")
    if config.data == HUB and machine.hub:
        found.append(f"its data sets come from the hub, which {machine.hub}")
    return found + reflector_obstacles(config)


def model_obstacles(name: str, machine: Machine) -> list[str]:
    """Return why a model cannot be had on this machine. None is converted or downloaded for it."""
    if name.startswith(packaged.PACKAGE):
        return [reason] if (reason := packaged.missing(name)) else []
    cached = Path(model_folder(name)).is_dir() or isinstance(try_to_load_from_cache(name, "config.json"), str)
    if cached or not machine.hub:
        return []
    return [f"{name} is not in the hub's cache, and the hub {machine.hub}"]


def reflector_obstacles(config: Config) -> list[str]:
    """Return what stands between this machine and the configuration's reflection LM, which is not asked."""
    if config.fast.reflector in EMBEDDED_REFLECTORS:
        return []
    from fst_bench.fast.remote import RemoteReflector  # not before it is needed: LiteLLM is large

    try:
        RemoteReflector(config.fast.reflector, config.fast.reflection, Ledger())
    except ValueError as error:
        return [str(error)]
    return []
