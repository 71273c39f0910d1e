"""Does a run fit, and how long would it take: from the model's config and the settings, before a weight is loaded.

Parameters are counted on the model itself, built without memory. The bytes of a training step are what autograd keeps of
a Qwen3 or Llama layer (tests hold this to what it does keep) and what the head takes (tests hold this to a measured
process). What DeepSpeed 0.19.8 and vLLM 0.32.0 allocate is read from their sources: none of it was measured on a GPU.
Times are from data sheets and the efficiencies below: a rough guess, to tell minutes from days.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fst_bench.harness.config import Config, Hardware
from fst_bench.policy import PolicySettings
from fst_bench.policy.distributed.settings import BATCHED_TOKENS, REDUCE_BUCKET
from fst_bench.policy.models import model_folder

GIB = 2**30
QWEN3: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16, "tie_word_embeddings": True},
    "Qwen/Qwen3-1.7B": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16, "tie_word_embeddings": True},
    "Qwen/Qwen3-4B": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32, "tie_word_embeddings": True},
    "Qwen/Qwen3-8B": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32, "tie_word_embeddings": False},
}  # fmt: skip
"""Shapes of the presets' models, so that a dry run needs no hub. All have 8 heads of keys and values, of 128, and 151,936 tokens."""

PROMPT = 1024
"""Tokens of a prompt, where nothing says how long one may be."""
CONTEXT = 0.75 * GIB
"""The CUDA context, loaded kernels and cuBLAS's workspaces of a process. A customary figure, not measured here."""
COMMUNICATOR = 0.7 * GIB
"""NCCL's buffers for one group of ranks: NVIDIA/nccl issue 964 measured 688 MB on A100s, issue 2363 512 MB even for a
group of one."""
GRAPHS = 0.75 * GIB
"""vLLM's CUDA graphs, which its sleep mode leaves: vLLM itself put them at 0.52 GiB for Qwen3-8B (LMCache issue 3430)."""
LIVE = 1e9 + 5e7
"""Parameters that ZeRO-3 holds whole at a time: DeepSpeed's `max_live_parameters`, and one `prefetch_bucket_size`. Norms,
below the persistence threshold of 1e5, are whole all the time: less than a thousandth of a model."""
SUB_GROUP = 1e9
"""Parameters of a rank that ZeRO-3's optimizer steps at a time: DeepSpeed's `sub_group_size`."""
USABLE = 0.95
"""Of a GPU's memory: the allocator does not fill every gap."""
CPU_CACHE = 1.0
"""GiB of a rank's KV cache on a CPU, where nothing else is said."""
COMPUTE, BANDWIDTH = 0.35, 0.5
"""Of a data sheet's peak that training and sampling are taken to reach."""


@dataclass(frozen=True)
class Shape:
    """What of a model's config decides memory and time."""

    parameters: int
    layers: int
    hidden: int
    queries: int
    """Heads times their size."""
    keys: int
    """The same of keys, and of values."""
    feedforward: int
    vocabulary: int
    positions: int


def shape_of(name: str) -> Shape:
    """A model's shape, from its folder, the hub's cache, the presets' list or the hub. ValueError in one line where there is none."""
    import torch
    from transformers import AutoModelForCausalLM

    config = config_of(name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Shape(
        sum(p.numel() for p in model.parameters()), config.num_hidden_layers, config.hidden_size, heads * size,
        (getattr(config, "num_key_value_heads", None) or heads) * size, getattr(config, "intermediate_size", 4 * config.hidden_size),
        config.vocab_size, config.max_position_embeddings,
    )  # fmt: skip


def config_of(name: str) -> Any:
    from transformers import Qwen3Config

    from fst_bench.policy.torch.backend import load_config

    try:
        return load_config(name, local=True)
    except (OSError, ValueError):
        if name in QWEN3:
            return Qwen3Config(
                vocab_size=151_936, num_key_value_heads=8, head_dim=128, max_position_embeddings=40_960, **QWEN3[name]
            )
    if Path(model_folder(name)).exists():
        raise ValueError(f"{name} has no config.json that transformers can read")
    try:
        return load_config(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the config of the model {name!r} is neither here nor to be had from the hub ({type(error).__name__})"
        ) from None


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU, or of the process on a CPU."""

    weights: float
    """The learner's."""
    base: float
    """The frozen base's, for KL."""
    optimizer: float
    """AdamW's two moments in float32, and float32 weights where the model's are not."""
    context: float
    """CUDA, NCCL and vLLM's graphs."""
    gathered: float
    """Parameters that ZeRO-3 brings together where they are needed, and the base's head."""
    gradients: float
    """Summed over passes, in float32."""
    bucket: float
    """DeepSpeed's buffer of gradients that are next to be reduced."""
    reduction: float
    """What reducing a bucket takes beside it, and the largest parameter's gradient before it is in one."""
    activations: float
    """What autograd keeps of a pass, and what the backward pass of one layer makes."""
    logits: float
    """Of some tokens at a time over the vocabulary, with their gradient's and the head's."""
    step: float
    """What the optimizer's step makes for its time: norms, copies of gradients, denominators."""
    sampler: float
    """vLLM's own copy of the weights, there while it samples."""
    forward: float
    """What the sampler's forward pass and its choice of tokens make."""
    cache: float
    """Keys and values while sampling."""
    standing: float
    """Of gradients and bucket, what is not freed for sampling."""

    @property
    def resident(self) -> float:
        return self.weights + self.base + self.optimizer + self.context + self.gathered

    @property
    def learning(self) -> float:
        """Gradients are reduced when the head's backward pass is done, and applied when all passes are."""
        backward = self.activations + self.bucket + max(self.logits, self.reduction)
        kept = self.bucket if self.standing else 0.0
        return self.resident + self.gradients + max(backward, kept + self.step)

    @property
    def sampling(self) -> float:
        return self.resident + self.standing + self.sampler + self.forward + self.cache

    @property
    def peak(self) -> float:
        """Sampling and learning take turns."""
        return max(self.learning, self.sampling)


def longest(config: Config, shape: Shape) -> int:
    """Tokens of the longest prompt with its answer."""
    return config.policy.distributed.max_model_len or min(shape.positions, config.policy.max_tokens + PROMPT)


def sequence_bytes(config: Config, shape: Shape) -> float:
    """The longest sequence's keys and values, on each of the ranks that hold an engine together."""
    together = 1 if config.backend == "torch" else config.policy.distributed.tensor_parallel
    return longest(config, shape) * 2 * shape.layers * shape.keys * bytes_each(config) / together


def bytes_each(config: Config) -> int:
    return 4 if config.policy.dtype == "float32" else 2


def memory(config: Config, shape: Shape, hardware: Hardware) -> Memory:
    """What a run takes on each of its GPUs."""
    if config.backend == "torch":
        return one_process(config, shape)
    return replace(many_ranks(config, shape, hardware.gpus), cache=cache_gb(config, shape, hardware) * GIB)


def one_process(config: Config, shape: Shape) -> Memory:
    """The torch backend: the sampler's weights are the learner's, and gradients stay until the next update."""
    policy, size, p = config.policy, bytes_each(config), shape.parameters
    cuda, rows = policy.device == "cuda", min(policy.max_num_seqs, config.batch * config.slow.group_size)
    return Memory(
        weights=size * p, base=size * p,
        optimizer=(8 if size == 4 else 12) * p,  # policy/optimizer.py: moments; masters where the model is low
        context=CONTEXT if cuda else 0.0, gathered=0.0, gradients=4 * p, bucket=0.0, reduction=0.0,
        activations=activation_bytes(config, shape), logits=logit_bytes(config, shape),
        step=0.0 if cuda else 8 * largest_parameter(shape),  # torch's AdamW: a root and a denominator; fused, nothing
        sampler=0.0, forward=rows * shape.vocabulary * 32,  # policy/sampler.py: two in float32, three in float64
        cache=rows * sequence_bytes(config, shape), standing=4 * p,
    )  # fmt: skip


def many_ranks(config: Config, shape: Shape, gpus: int) -> Memory:
    """The vllm-deepspeed backend, but for the cache."""
    policy, own, size, p = config.policy, config.policy.distributed, bytes_each(config), shape.parameters
    ranks, largest, bucket, three = max(gpus, 1), largest_parameter(shape), min(REDUCE_BUCKET, p), own.zero == 3
    share = p / ranks
    whole = share if three else p
    # stage_1_and_2.py `get_grad_norm_direct` and its twin in stage3.py take each parameter's norm of a copy in float64
    norm = 8 * (largest / ranks if three else min(largest, share))
    # The gradients' copy: stage3.py `_prepare_fp32_grad_for_sub_group`; stage_1_and_2.py `step`, but for a bfloat16
    # model's, which are flat already
    flat = 4 * (min(share, SUB_GROUP) if three else share if size == 4 else 0)
    denominators = 0 if policy.device == "cuda" else 8 * share  # torch's AdamW, on one flat tensor; fused, none
    # `allreduce_bucket` and `reduce_scatter_coalesced` flatten a bucket, or a parameter that is larger, once more; what
    # they reduced in bfloat16 is copied to float32. The largest gradient may be there twice before that: an embedding's
    # that is the head too
    reduction: float = size * (max(bucket, largest) + 2 * largest)
    if size == 2:
        reduction += 4 * (max(bucket, largest) / ranks if three else min(largest, share))
    elif not three:
        reduction += 4 * share  # one pass's gradients, before `all_grad_tensors` has them added
    # `_build_compact_grad_partition_buffer` and `grad_partitions_flat_buffer`, in float32 by `grad_accum_dtype`
    gradients = 4 * share
    return Memory(
        weights=size * whole, base=size * whole,
        optimizer=(8 if three and size == 4 else 12) * share,  # ZeRO-3 takes float32 weights as they are
        context=(CONTEXT + GRAPHS + COMMUNICATOR * (2 if own.tensor_parallel > 1 else 1)) if gpus else 0.0,
        gathered=size * (min(p, LIVE) + shape.vocabulary * shape.hidden) if three else 0.0,
        gradients=gradients, bucket=size * bucket, reduction=reduction,
        activations=activation_bytes(config, shape), logits=logit_bytes(config, shape),
        step=max(norm, flat + denominators),
        sampler=size * p / own.tensor_parallel, forward=vllm_bytes(config, shape), cache=0.0,
        standing=gradients + size * bucket if three else 0.0,  # stage3.py makes both once; stage_1_and_2.py lets both go
    )  # fmt: skip


def largest_parameter(shape: Shape) -> int:
    return shape.hidden * max(shape.vocabulary, shape.feedforward)


def activation_bytes(config: Config, shape: Shape) -> float:
    """Of the longest pass: `micro_batch_tokens`, or one answer."""
    policy, size = config.policy, bytes_each(config)
    layer = (16 * shape.hidden + 10 * (shape.queries + shape.keys) + 8 * shape.feedforward) * (1.75 if size == 4 else 1)
    kept = shape.layers * size * shape.hidden + layer if policy.gradient_checkpointing else shape.layers * layer
    made = size * (2 * shape.hidden + 3 * shape.feedforward)  # gradients on their way through one feed-forward part
    last = (8 + 5 * size) * shape.hidden  # the last norm in float32, what the head gets, and its gradients
    return max(policy.micro_batch_tokens, longest(config, shape)) * (kept + made + last)


def logit_bytes(config: Config, shape: Shape) -> float:
    """policy/scoring.py `ChosenLogprobs`: some tokens' logits, with the ones before them or a copy; the head's gradient."""
    from fst_bench.policy.scoring import LOGITS

    policy, size, head = config.policy, bytes_each(config), shape.vocabulary * shape.hidden
    sampled = max(policy.micro_batch_tokens, policy.max_tokens)
    at_a_time = min(sampled, max(1, LOGITS // shape.vocabulary)) * shape.vocabulary
    if size == 4:
        return 8 * at_a_time + 4 * head
    copies = 10 if policy.float32_head else 12  # two logits in float32; in bfloat16 a gradient, and a low head's logits
    return copies * at_a_time + (6 + (4 if policy.float32_head and policy.device == "cpu" else 0)) * head


def vllm_bytes(config: Config, shape: Shape) -> float:
    """vLLM's forward pass of `BATCHED_TOKENS`: the tensors of one layer; and of `max_num_seqs` tokens, as in its
    v1/sample/sampler.py: logits (in the head's precision, then in float32), log-probabilities, probabilities and noise."""
    size = bytes_each(config)
    layer = size * (4 * shape.hidden + 2 * (shape.queries + shape.keys) + 3 * shape.feedforward)
    chosen = 16 + (2 if size == 2 and not config.policy.float32_head else 0)
    return BATCHED_TOKENS * layer + config.policy.max_num_seqs * shape.vocabulary * chosen


def cache_gb(config: Config, shape: Shape, hardware: Hardware) -> float:
    """GiB of each rank's KV cache: as it is set, or what is left."""
    asked = config.policy.distributed.cache_gb
    return cache_left(config, shape, hardware) if asked == "fit" else asked


def cache_left(config: Config, shape: Shape, hardware: Hardware) -> float:
    """GiB that a rank's KV cache may have beside everything else while it samples, one sequence at least; in quarters of
    a GiB, so that ranks whose GPUs differ by some MB agree."""
    if not hardware.gpus:
        return CPU_CACHE
    left = room(hardware) - many_ranks(config, shape, hardware.gpus).sampling
    return max(math.floor(4 * left / GIB), math.ceil(4 * sequence_bytes(config, shape) / GIB)) / 4


def with_cache(config: Config) -> PolicySettings:
    """The policy's settings for this process, with the KV cache that its GPU has room for where they leave it open."""
    policy = config.policy
    if config.backend == "torch" or policy.distributed.cache_gb != "fit":
        return policy
    gigabytes = CPU_CACHE
    if policy.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            return policy  # which is said where the policy is loaded
        gpu = torch.cuda.get_device_properties(int(os.environ.get("LOCAL_RANK", "0")))
        ranks = int(os.environ.get("WORLD_SIZE", "1"))
        here = Hardware(gpus=ranks, memory_gb=gpu.total_memory / GIB, teraflops=1, bandwidth=1)
        gigabytes = cache_left(config, shape_of(config.model), here)
    return with_policy(config, distributed={"cache_gb": gigabytes}).policy


def room(hardware: Hardware) -> float:
    """Bytes of each GPU that a run may fill."""
    return USABLE * hardware.memory_gb * GIB


def fits(config: Config, shape: Shape, hardware: Hardware) -> str | None:
    """None, or why a run can't go on this hardware."""
    own = config.policy.distributed
    if (config.policy.device == "cuda") != bool(hardware.gpus):
        return f"policy.device is {config.policy.device}, and the preset is for {hardware}"
    if config.backend == "torch" and hardware.gpus > 1:
        return "the torch backend runs on one GPU"
    if config.backend != "torch":
        if max(hardware.gpus, 1) % own.tensor_parallel:
            return f"tensor_parallel {own.tensor_parallel} does not divide {hardware.gpus} GPUs"
        cache, one = cache_gb(config, shape, hardware), sequence_bytes(config, shape) / GIB
        if cache < one:
            row = longest(config, shape)
            return f"a cache of {cache:g} GB holds no sequence of {row:,} tokens, which takes {one:.1f}"
    need = memory(config, shape, hardware).peak
    if need > room(hardware):
        return f"it takes {need / GIB:.1f} GB{' a GPU' * bool(hardware.gpus)}, and of {hardware.memory_gb:g} GB {room(hardware) / GIB:.1f} can be filled"
    return None


def alternatives(config: Config, shape: Shape, hardware: Hardware) -> list[str]:
    """What would fit instead: each setting that will do alone, more GPUs of this size, larger ones."""
    found = [text for text, changed in smaller(config) if fits(changed, shape, hardware) is None]
    more = [
        hardware.model_copy(update={"gpus": n})
        for n in (1, 2, 4, 8, 16, 32, 64)
        if n > hardware.gpus > 0 and config.backend != "torch"
    ]
    larger = [
        hardware.model_copy(update={"memory_gb": gb})
        for gb in (16, 24, 40, 48, 80, 141, 192)
        if gb > hardware.memory_gb
    ]
    for row in (more, larger):
        found += [
            f"{there}{how}"
            for there in row
            for how, changed in sharded(config, there)
            if fits(changed, shape, there) is None
        ][:1]
    return found


def sharded(config: Config, there: Hardware) -> Iterator[tuple[str, Config]]:
    """The configuration as it is, then as thin as it can be spread over these GPUs."""
    yield "", config
    if config.backend != "torch":
        thin = {"zero": 3, "tensor_parallel": min(max(there.gpus, 1), 8)}
        text = f" with policy.gradient_checkpointing=true policy.distributed.zero=3 policy.distributed.tensor_parallel={thin['tensor_parallel']}"
        yield text, with_policy(config, gradient_checkpointing=True, distributed=thin)


def smaller(config: Config) -> Iterator[tuple[str, Config]]:
    """Settings that save memory and change no number but rounding, one at a time."""
    tokens = config.policy.micro_batch_tokens
    if not config.policy.gradient_checkpointing:
        yield "policy.gradient_checkpointing=true", with_policy(config, gradient_checkpointing=True)
    if tokens > 1024:
        yield f"policy.micro_batch_tokens={tokens // 2}", with_policy(config, micro_batch_tokens=tokens // 2)
    if config.backend != "torch" and config.policy.distributed.zero == 2:
        yield "policy.distributed.zero=3", with_policy(config, distributed={"zero": 3})
    if config.backend != "torch" and (cache := config.policy.distributed.cache_gb) != "fit" and cache > 2:
        yield "policy.distributed.cache_gb=2", with_policy(config, distributed={"cache_gb": 2.0})


def with_policy(config: Config, distributed: dict[str, Any] | None = None, **changes: Any) -> Config:
    policy = config.policy
    return config.model_copy(
        update={
            "policy": policy.model_copy(
                update=changes | {"distributed": policy.distributed.model_copy(update=distributed or {})}
            )
        }
    )


def checkpoint_bytes(config: Config, shape: Shape) -> float:
    """One checkpoint on disk: the weights, two moments, and float32 weights (of the torch backend only where the model's
    are not)."""
    size = bytes_each(config)
    return shape.parameters * (size + (8 if config.backend == "torch" and size == 4 else 12))


def seconds(
    config: Config, shape: Shape, hardware: Hardware, prompt: int, rollouts: int, trained: int, scored: int
) -> dict[str, float]:
    """Of sampling `rollouts` answers to prompts of `prompt` tokens, each as long as it may be; of training on `trained`
    and taking the KL of `scored`.

    In training the answers of a group that go into one pass share their prompt.
    """
    from fst_bench.policy.packing import ROW_TOKENS

    gpus, answer, policy = max(hardware.gpus, 1), config.policy.max_tokens, config.policy
    size = bytes_each(config)
    together = policy.distributed.tensor_parallel if config.backend != "torch" else 1
    context = (
        2 * shape.layers * shape.keys * size * (prompt + answer / 2)
    )  # bytes a sequence's next token reads, on average
    rows = min(policy.max_num_seqs, max(1, config.batch * config.slow.group_size * together // gpus))
    if config.backend != "torch":
        rows = max(1, min(rows, int(cache_gb(config, shape, hardware) * GIB * together / context)))
    flops = COMPUTE * hardware.teraflops * 1e12
    read = (size * shape.parameters + rows * context) / together / (BANDWIDTH * hardware.bandwidth * 1e9)
    compute = 2 * shape.parameters * rows / together / flops
    tree = policy.micro_batch_tokens if policy.device == "cuda" else min(policy.micro_batch_tokens, ROW_TOKENS)
    sharing = max(1, min(config.slow.group_size, (tree - prompt) // answer))
    passes = (
        8 if policy.gradient_checkpointing else 6
    )  # operations a parameter and token: forward 2, backward 4, once more forward 2
    return {
        "sampling": rollouts * answer * max(read, compute) / (rows * gpus / together),
        "training": trained * (prompt / sharing + answer) * passes * shape.parameters / flops / gpus,
        "scoring": scored * (prompt + answer) * 4 * shape.parameters / flops / gpus,
    }
