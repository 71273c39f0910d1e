"""The policy: one interface that samples, scores and learns. Nothing outside of this folder knows the backend."""

import os
from typing import Literal

from fst_bench.core.types import Sample, SampleRequest
from fst_bench.policy.interface import Policy
from fst_bench.policy.settings import PolicySettings

Backend = Literal["torch", "vllm-deepspeed"]

__all__ = ["Backend", "Policy", "PolicySettings", "Sample", "SampleRequest", "load_policy"]


def load_policy(name: str, settings: PolicySettings, backend: Backend = "torch") -> Policy:
    """Load the policy of a model path, hub id or `embedded:NAME`.

    Raises ValueError, in one line, where that is not a model or the backend is not installed.
    """
    if backend == "torch":
        # imported here, so that commands which load no model start without torch
        from fst_bench.policy.torch import backend as torch_backend

        return torch_backend.load_policy(name, settings)
    if settings.device == "cuda" and settings.dtype == "float32":
        # before vLLM is imported: its Triton attention rounds to TF32 otherwise
        os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")
    try:
        from fst_bench.policy.distributed import policy
    except ImportError as error:
        raise ValueError(
            f"the backend {backend} needs vLLM and DeepSpeed ({error.name} is missing): make install-gpu"
        ) from None
    return policy.load_policy(name, settings)
