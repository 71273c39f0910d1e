"""The memory that a run takes, from the model's config and the settings, before a weight is loaded.

Parameters are counted on the model itself, built without memory. The bytes of a training step are those that autograd
keeps of a Qwen3 or Llama layer (tests compare with what it does keep) and those that the head takes (tests compare with
a measured process). The allocations of DeepSpeed 0.19.8 and vLLM 0.32.0 are read from their sources: none of them was
measured on a GPU.
"""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fst_bench.harness.config import Config, Hardware
from fst_bench.policy import PolicySettings, packaged
from fst_bench.policy.distributed.settings import BATCHED_TOKENS, REDUCE_BUCKET
from fst_bench.policy.models import model_folder

GIB = 2**30


def qwen3(hidden: int, feedforward: int, layers: int, heads: int, tied: bool) -> dict[str, Any]:
    """Return arguments of `Qwen3Config`. The models have the vocabulary and the key-value heads in common."""
    return {
        "vocab_size": 151_936,
        "hidden_size": hidden,
        "intermediate_size": feedforward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40_960,
        "tie_word_embeddings": tied,
    }


QWEN3: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-0.6B": qwen3(1024, 3072, 28, 16, tied=True),
    "Qwen/Qwen3-1.7B": qwen3(2048, 6144, 28, 16, tied=True),
    "Qwen/Qwen3-4B": qwen3(2560, 9728, 36, 32, tied=True),
    "Qwen/Qwen3-8B": qwen3(4096, 12_288, 36, 32, tied=False),
}
"""Shapes of the presets' models, so that a dry run needs no hub."""

PROMPT = 1024
"""Tokens of a prompt, where no setting limits them."""
CONTEXT = 0.75 * GIB
"""The CUDA context, loaded kernels and cuBLAS's workspaces of a process. A customary figure, not measured here."""
COMMUNICATOR = 0.7 * GIB
"""NCCL's buffers for one group of ranks: NVIDIA/nccl issue 964 measured 688 MB on A100s, issue 2363 512 MB even for a
group of one."""
GRAPHS = 0.75 * GIB
"""vLLM's CUDA graphs, which its sleep mode leaves: vLLM put them at 0.52 GiB for Qwen3-8B (LMCache issue 3430)."""
LIVE = 1e9 + 5e7
"""Parameters that ZeRO-3 holds whole at a time: DeepSpeed's `max_live_parameters`, and one `prefetch_bucket_size`.
Norms, below the persistence threshold of 1e5, are whole all the time: less than a thousandth of a model."""
SUB_GROUP = 1e9
"""Parameters of a rank that ZeRO-3's optimizer steps at a time: DeepSpeed's `sub_group_size`."""
USABLE = 0.95
"""Share of a GPU's memory that can be filled: the allocator does not fill every gap."""
CPU_CACHE = 1.0
"""GiB of a rank's KV cache on a CPU, unless a setting says otherwise."""


@dataclass(frozen=True)
class Shape:
    """The numbers in a model's config that decide memory and time."""

    parameters: int
    layers: int
    hidden: int
    queries: int
    """Query heads times their size."""
    keys: int
    """Key heads times their size; values have as many."""
    feedforward: int
    vocabulary: int
    positions: int


def shape_of(name: str) -> Shape:
    """Return a model's shape, from its folder, the hub's cache, the lists of known models or the hub.

    Raises ValueError in one line where none of them has its config.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = config_of(name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        queries=heads * size,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * size,
        feedforward=getattr(config, "intermediate_size", 4 * config.hidden_size),
        vocabulary=config.vocab_size,
        positions=config.max_position_embeddings,
    )


def config_of(name: str) -> Any:
    """Return a model's transformers config. Raises ValueError in one line where it is not found."""
    from transformers import AutoConfig, Qwen3Config

    from fst_bench.policy.loading import load_config

    if name.startswith(packaged.PACKAGE):
        return AutoConfig.for_model(**packaged.find(name).config)  # so that a dry run converts nothing
    try:
        return load_config(name, local=True)
    except (OSError, ValueError):
        if name in QWEN3:
            return Qwen3Config(**QWEN3[name])
    if Path(model_folder(name)).exists():
        raise ValueError(f"{name} has no config.json that transformers can read")
    try:
        return load_config(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the config of the model {name!r} is neither local nor on the hub ({type(error).__name__})"
        ) from None


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU, or of the process on a CPU."""

    weights: float
    """The learner's weights."""
    reference: float
    """The weights of the frozen reference policy, for KL."""
    optimizer: float
    """AdamW's two moments in float32, and float32 weights where the model's are not."""
    context: float
    """CUDA, NCCL and vLLM's graphs."""
    gathered: float
    """Parameters that ZeRO-3 gathers where they are needed, and the reference policy's head."""
    gradients: float
    """Gradients summed over passes, in float32."""
    bucket: float
    """DeepSpeed's buffer of gradients that are next to be reduced."""
    reduction: float
    """Copies made while a bucket is reduced, and the largest parameter's gradient before it is in one."""
    activations: float
    """Tensors that autograd keeps of a pass, and those that the backward pass of one layer makes."""
    logits: float
    """Logits of some tokens at a time, with their gradient and the head's."""
    step: float
    """Tensors that live during the optimizer's step: norms, copies of gradients, denominators."""
    sampler: float
    """vLLM's own copy of the weights, there while it samples."""
    forward: float
    """Tensors of the sampler's forward pass and of its choice of tokens."""
    cache: float
    """Keys and values while sampling."""
    standing: float
    """The share of gradients and bucket that is not freed for sampling."""

    @property
    def resident(self) -> float:
        """Bytes that are taken all the time."""
        return self.weights + self.reference + self.optimizer + self.context + self.gathered

    @property
    def learning(self) -> float:
        """Bytes at the peak of an update.

        Gradients are reduced when the head's backward pass is done, and applied when all passes are.
        """
        backward = self.activations + self.bucket + max(self.logits, self.reduction)
        kept = self.bucket if self.standing else 0.0
        return self.resident + self.gradients + max(backward, kept + self.step)

    @property
    def sampling(self) -> float:
        """Bytes while sampling."""
        return self.resident + self.standing + self.sampler + self.forward + self.cache

    @property
    def peak(self) -> float:
        """Bytes at most: sampling and learning take turns."""
        return max(self.learning, self.sampling)


def memory_of(config: Config, shape: Shape, hardware: Hardware) -> Memory:
    """Return the memory that a run takes on each of its GPUs."""
    if config.backend == "torch":
        return one_process(config, shape)
    return replace(many_ranks(config, shape, hardware.gpus), cache=cache_gb(config, shape, hardware) * GIB)


def room(hardware: Hardware) -> float:
    """Return the bytes of each GPU that a run may fill."""
    return USABLE * hardware.memory_gb * GIB


# --- the two backends


def one_process(config: Config, shape: Shape) -> Memory:
    """Return the memory of the torch backend.

    Its sampler shares the learner's weights, and gradients stay until the next update.
    """
    policy, size = config.policy, bytes_each(config)
    cuda = policy.device == "cuda"
    rows = min(policy.max_num_seqs, config.batch * config.slow.group_size)
    return Memory(
        weights=size * shape.parameters,
        reference=size * shape.parameters,
        # policy/torch/optimizer.py: moments, and masters where the model's precision is low
        optimizer=(8 if size == 4 else 12) * shape.parameters,
        context=CONTEXT if cuda else 0.0,
        gathered=0.0,
        gradients=4 * shape.parameters,
        bucket=0.0,
        reduction=0.0,
        activations=activation_bytes(config, shape),
        logits=logit_bytes(config, shape),
        step=0.0 if cuda else 8 * largest_parameter(shape),  # torch's AdamW: a root and a denominator; fused, nothing
        sampler=0.0,
        forward=rows * shape.vocabulary * 32,  # policy/torch/sampler.py: two in float32, three in float64
        cache=rows * sequence_bytes(config, shape),
        standing=4 * shape.parameters,
    )


def many_ranks(config: Config, shape: Shape, gpus: int) -> Memory:
    """Return the memory of a rank of the vllm-deepspeed backend, its KV cache left out."""
    policy, own, size = config.policy, config.policy.distributed, bytes_each(config)
    parameters, ranks, zero3 = shape.parameters, max(gpus, 1), own.zero == 3
    largest, bucket = largest_parameter(shape), min(REDUCE_BUCKET, parameters)
    share = parameters / ranks
    whole = share if zero3 else parameters
    # stage_1_and_2.py `get_grad_norm_direct` and its twin in stage3.py take each parameter's norm of a copy in float64
    norm = 8 * (largest / ranks if zero3 else min(largest, share))
    # The gradients' copy: stage3.py `_prepare_fp32_grad_for_sub_group`; stage_1_and_2.py `step`, except for a bfloat16
    # model's gradients, which are flat already
    flat = 4 * (min(share, SUB_GROUP) if zero3 else share if size == 4 else 0)
    denominators = 0 if policy.device == "cuda" else 8 * share  # torch's AdamW, on one flat tensor; fused, none
    # `allreduce_bucket` and `reduce_scatter_coalesced` flatten a bucket, or a parameter that is larger, once more; what
    # they reduced in bfloat16 is copied to float32. The largest gradient may be there twice before that: that of an
    # embedding which is the head too
    reduction: float = size * (max(bucket, largest) + 2 * largest)
    if size == 2:
        reduction += 4 * (max(bucket, largest) / ranks if zero3 else min(largest, share))
    elif not zero3:
        reduction += 4 * share  # one pass's gradients, before `all_grad_tensors` has them added
    # `_build_compact_grad_partition_buffer` and `grad_partitions_flat_buffer`, in float32 by `grad_accum_dtype`
    gradients = 4 * share
    groups = 2 if own.tensor_parallel > 1 else 1
    return Memory(
        weights=size * whole,
        reference=size * whole,
        optimizer=(8 if zero3 and size == 4 else 12) * share,  # ZeRO-3 takes float32 weights as they are
        context=(CONTEXT + GRAPHS + COMMUNICATOR * groups) if gpus else 0.0,
        gathered=size * (min(parameters, LIVE) + shape.vocabulary * shape.hidden) if zero3 else 0.0,
        gradients=gradients,
        bucket=size * bucket,
        reduction=reduction,
        activations=activation_bytes(config, shape),
        logits=logit_bytes(config, shape),
        step=max(norm, flat + denominators),
        sampler=size * parameters / own.tensor_parallel,
        forward=vllm_bytes(config, shape),
        cache=0.0,
        standing=gradients + size * bucket if zero3 else 0.0,  # stage3.py keeps both; stage_1_and_2.py frees both
    )


# --- their parts


def longest(config: Config, shape: Shape) -> int:
    """Return the tokens of the longest prompt with its answer."""
    return config.policy.distributed.max_model_len or min(shape.positions, config.policy.max_tokens + PROMPT)


def bytes_each(config: Config) -> int:
    """Return the bytes of one of the model's numbers."""
    return 4 if config.policy.dtype == "float32" else 2


def sequence_bytes(config: Config, shape: Shape) -> float:
    """Return the bytes of the longest sequence's keys and values, on each of the ranks that hold an engine together."""
    together = 1 if config.backend == "torch" else config.policy.distributed.tensor_parallel
    return longest(config, shape) * 2 * shape.layers * shape.keys * bytes_each(config) / together


def largest_parameter(shape: Shape) -> int:
    """Return the numbers in the largest weight matrix."""
    return shape.hidden * max(shape.vocabulary, shape.feedforward)


def activation_bytes(config: Config, shape: Shape) -> float:
    """Return the bytes of activations in the longest pass: `micro_batch_tokens`, or one answer."""
    policy, size = config.policy, bytes_each(config)
    layer = (16 * shape.hidden + 10 * (shape.queries + shape.keys) + 8 * shape.feedforward) * (1.75 if size == 4 else 1)
    kept = shape.layers * size * shape.hidden + layer if policy.gradient_checkpointing else shape.layers * layer
    made = size * (2 * shape.hidden + 3 * shape.feedforward)  # gradients on their way through one feed-forward part
    last = (8 + 5 * size) * shape.hidden  # the last norm in float32, the head's input, and its gradients
    return max(policy.micro_batch_tokens, longest(config, shape)) * (kept + made + last)


def logit_bytes(config: Config, shape: Shape) -> float:
    """Return the bytes that policy/scoring.py `ChosenLogprobs` takes.

    They are the logits of some tokens, with those before them or a copy, and the head's gradient.
    """
    from fst_bench.policy.scoring import LOGITS

    policy, size, head = config.policy, bytes_each(config), shape.vocabulary * shape.hidden
    sampled = max(policy.micro_batch_tokens, policy.max_tokens)
    at_a_time = min(sampled, max(1, LOGITS // shape.vocabulary)) * shape.vocabulary
    if size == 4:
        return 8 * at_a_time + 4 * head
    copies = 10 if policy.float32_head else 12  # two logits in float32; in bfloat16 a gradient, and a low head's logits
    return copies * at_a_time + (6 + (4 if policy.float32_head and policy.device == "cpu" else 0)) * head


def vllm_bytes(config: Config, shape: Shape) -> float:
    """Return the bytes of vLLM's forward pass of `BATCHED_TOKENS`, and of its sampling for `max_num_seqs` tokens.

    A pass holds the tensors of one layer. Sampling (vLLM's v1/sample/sampler.py) holds logits in the head's precision,
    then in float32, log-probabilities, probabilities and noise.
    """
    size = bytes_each(config)
    layer = size * (4 * shape.hidden + 2 * (shape.queries + shape.keys) + 3 * shape.feedforward)
    chosen = 16 + (2 if size == 2 and not config.policy.float32_head else 0)
    return BATCHED_TOKENS * layer + config.policy.max_num_seqs * shape.vocabulary * chosen


def checkpoint_bytes(config: Config, shape: Shape) -> float:
    """Return the bytes of one checkpoint on disk.

    They are the weights, two moments, and float32 weights (with the torch backend only where the model's are not).
    """
    size = bytes_each(config)
    return shape.parameters * (size + (8 if config.backend == "torch" and size == 4 else 12))


# --- the KV cache


def cache_gb(config: Config, shape: Shape, hardware: Hardware) -> float:
    """Return the GiB of each rank's KV cache: its setting, or what is left."""
    asked = config.policy.distributed.cache_gb
    return cache_left(config, shape, hardware) if asked == "fit" else asked


def cache_left(config: Config, shape: Shape, hardware: Hardware) -> float:
    """Return the GiB that everything else leaves for a rank's KV cache while it samples, one sequence at least.

    They are whole quarters of a GiB, so that ranks whose GPUs differ by some MB agree.
    """
    if not hardware.gpus:
        return CPU_CACHE
    left = room(hardware) - many_ranks(config, shape, hardware.gpus).sampling
    return max(math.floor(4 * left / GIB), math.ceil(4 * sequence_bytes(config, shape) / GIB)) / 4


def with_cache(config: Config) -> PolicySettings:
    """Return the policy's settings for this process, where `cache_gb` is "fit" with what its GPU has room for."""
    policy = config.policy
    if config.backend == "torch" or policy.distributed.cache_gb != "fit":
        return policy
    gigabytes = CPU_CACHE
    if policy.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            return policy  # an error where the policy is loaded
        gpu = torch.cuda.get_device_properties(int(os.environ.get("LOCAL_RANK", "0")))
        ranks = int(os.environ.get("WORLD_SIZE", "1"))
        here = Hardware(gpus=ranks, memory_gb=gpu.total_memory / GIB, teraflops=1, bandwidth=1)
        gigabytes = cache_left(config, shape_of(config.model), here)
    distributed = policy.distributed.model_copy(update={"cache_gb": gigabytes})
    return policy.model_copy(update={"distributed": distributed})
