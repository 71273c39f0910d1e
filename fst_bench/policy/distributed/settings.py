"""Typed settings of the `vllm-deepspeed` backend: how it shards its learner and runs its samplers."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

BATCHED_TOKENS = 4096
"""Prompt tokens that an engine on a GPU processes at a time; its profiling run at start takes the memory of as many."""
REDUCE_BUCKET = 500_000_000
"""Gradients that DeepSpeed reduces at a time, or all where they are fewer: it allocates the bucket whole."""


class DistributedSettings(BaseModel):
    """Settings of the ranks: processes that a launcher starts (`deepspeed`, `torchrun`), one without a launcher."""

    model_config = ConfigDict(extra="forbid")

    zero: Literal[2, 3] = 2
    """DeepSpeed's ZeRO stage: 2 shards gradients and optimizer states over the ranks, 3 the weights too, the reference
    policy's among them."""
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """Ranks that hold one vLLM engine together; it divides the number of ranks. Prompts are divided between engines."""
    max_model_len: Annotated[int, Field(ge=1)] | None = None
    """Longest prompt with its answer, in tokens; None: the model's own limit. The cache has to hold one such sequence
    at least."""
    cache_gb: Annotated[float, Field(gt=0)] | Literal["fit"] = 1.0
    """Size of each rank's KV cache, in GiB. `fit` is what everything else leaves of the GPU while sampling (see
    `fst_bench.harness.planning.memory`), one sequence at least; on a CPU 1."""
    canary: Annotated[float, Field(gt=0)] | None = None
    """Largest difference between the sampler's and the learner's log-probabilities of fixed tokens after a sync, in
    nats. Past it the run stops. By default 1e-4 in float32, where 1e-5 was the most ever measured, and 0.2 in bfloat16,
    where it was 0.06 (embedded model, CPU)."""
