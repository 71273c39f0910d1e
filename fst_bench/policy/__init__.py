"""The policy: one interface that samples, scores and learns; nothing outside this room knows which backend runs."""

from .base import Ask, Policy, Sample
from .torch_backend import TorchPolicy, load_policy

__all__ = ["Ask", "Policy", "Sample", "TorchPolicy", "load_policy"]
