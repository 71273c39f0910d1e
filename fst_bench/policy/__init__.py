"""The policy: one interface that samples, scores and learns; nothing outside this room knows which backend runs."""

import os
from typing import Literal

from .base import Ask, Policy, Sample
from .settings import PolicySettings

Backend = Literal["torch", "vllm-deepspeed"]

__all__ = ["Ask", "Backend", "Policy", "PolicySettings", "Sample", "load_policy"]


def load_policy(name: str, settings: PolicySettings, backend: Backend = "torch") -> Policy:
    """The policy for a model path, hub id or `embedded:NAME`. ValueError in one line where it is no model, or the backend is not installed."""
    if backend == "torch":
        from . import torch_backend  # here, so that what loads no model does without torch

        return torch_backend.load_policy(name, settings)
    if settings.device == "cuda" and settings.dtype == "float32":
        os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")  # before vLLM is imported: its Triton attention rounds to TF32 otherwise
    try:
        from .distributed import policy
    except ImportError as error:
        raise ValueError(f"the backend {backend} needs vLLM and DeepSpeed ({error.name} is missing): make install-gpu") from None
    return policy.load_policy(name, settings)
