"""The slow part: group advantages, token losses, and the step that turns rollouts into an update."""

from .learn import SlowSettings, learn

__all__ = ["SlowSettings", "learn"]
