"""The slow loop: group advantages, token losses, and the step that turns rollouts into an update of the weights."""

from fst_bench.slow.learn import learn

__all__ = ["learn"]
