"""The slow loop: group advantages, token losses, and the step from rollouts to an update of the weights."""

from fst_bench.slow.learn import learn

__all__ = ["learn"]
