"""Does a run fit, and how long would it take: from the model's config and the settings, before a weight is loaded.

Parameters are counted on the model itself, built without memory. The bytes of a training step are what autograd keeps of a
Qwen3 or Llama layer (tests hold this to what it does keep). Times are from data sheets and the efficiencies below: a rough guess,
to tell minutes from days.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from fst_bench.model import model_folder

if TYPE_CHECKING:
    from fst_bench.config import Config

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
RESERVE = 2.5 * GIB
"""Per GPU: the CUDA context, NCCL's buffers, vLLM's graphs and its working space."""
USABLE = 0.95
"""Of what is left: the allocator does not fill every gap."""
COMPUTE, BANDWIDTH = 0.35, 0.5
"""Of a data sheet's peak that training and sampling are taken to reach."""


class Hardware(BaseModel):
    """What a preset is made for: so many GPUs (none: a CPU), each with so much."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpus: Annotated[int, Field(ge=0)]
    memory_gb: Annotated[float, Field(gt=0)]
    """Of each GPU, in GiB; without one, of the machine."""
    teraflops: Annotated[float, Field(gt=0)]
    """Of each, dense, at the precision of the preset."""
    bandwidth: Annotated[float, Field(gt=0)]
    """GB/s between each GPU's memory and its cores."""

    def __str__(self) -> str:
        return f"{self.gpus} x {self.memory_gb:g} GB" if self.gpus else f"a CPU with {self.memory_gb:g} GB"


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

    from fst_bench.policy.torch_backend import load_config

    try:
        return load_config(name, local=True)
    except (OSError, ValueError):
        if name in QWEN3:
            return Qwen3Config(vocab_size=151_936, num_key_value_heads=8, head_dim=128, max_position_embeddings=40_960, **QWEN3[name])
    if Path(model_folder(name)).exists():
        raise ValueError(f"{name} has no config.json that transformers can read")
    try:
        return load_config(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"the config of the model {name!r} is neither here nor to be had from the hub ({type(error).__name__})") from None


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU, or of the process on a CPU."""

    weights: float
    """The learner's."""
    base: float
    """The frozen base's, for KL."""
    gradients: float
    optimizer: float
    gathered: float
    """Whole layers that ZeRO-3 brings together where they are needed."""
    sampler: float
    """vLLM's own copy of the weights, there while it samples."""
    cache: float
    """Keys and values while sampling."""
    activations: float
    """What autograd keeps of a micro-batch."""
    logits: float
    """Of the sampled tokens over the vocabulary, with what the loss makes of them."""

    @property
    def resident(self) -> float:
        return self.weights + self.base + self.gradients + self.optimizer + self.gathered

    @property
    def peak(self) -> float:
        """Sampling and learning take turns."""
        return self.resident + max(self.sampler + self.cache, self.activations + self.logits)


def longest(config: "Config", shape: Shape) -> int:
    """Tokens of the longest prompt with its answer."""
    return config.policy.distributed.positions or min(shape.positions, config.policy.max_tokens + PROMPT)


def memory(config: "Config", shape: Shape, gpus: int) -> Memory:
    """What a run takes on each of `gpus`."""
    policy, own, ranks = config.policy, config.policy.distributed, max(gpus, 1)
    size = 4 if policy.dtype == "float32" else 2
    p, row = shape.parameters, longest(config, shape)
    tokens, sampled = max(policy.micro_batch_tokens, row), max(policy.micro_batch_tokens, policy.max_tokens)
    layer = (16 * shape.hidden + 10 * (shape.queries + shape.keys) + 8 * shape.feedforward) * (1.75 if size == 4 else 1)
    kept = shape.layers * size * shape.hidden + layer if policy.checkpointing else shape.layers * layer
    logits = sampled * shape.vocabulary * (12 + (2 if size == 2 else 0))
    if policy.float32_head and size == 2:
        logits += 2 * 4 * shape.vocabulary * shape.hidden  # the head and its gradient
    position = 2 * shape.layers * shape.keys * size
    if config.backend == "torch":  # one process: the sampler's weights are the learner's, and AdamW's moments are in their precision
        rows = min(policy.sample_rows, config.batch * config.slow.group)
        return Memory(size * p, size * p, size * p, 2 * size * p, 0, 0, rows * row * position, tokens * kept, logits)
    whole = ranks if own.zero == 3 else 1
    gathered = 0.0 if own.zero == 2 else 2 * size * max(shape.vocabulary * shape.hidden, p / shape.layers)
    return Memory(
        size * p / whole, size * p / whole, size * p / ranks, 12 * p / ranks, gathered,  # DeepSpeed keeps its own weights and both moments in float32
        size * p / own.tensor_parallel, own.cache_gb * GIB, tokens * kept, logits,
    )  # fmt: skip


def room(hardware: Hardware) -> float:
    """Bytes of each GPU that a run may fill."""
    return USABLE * (hardware.memory_gb * GIB - (RESERVE if hardware.gpus else 0))


def fits(config: "Config", shape: Shape, hardware: Hardware) -> str | None:
    """None, or why a run can't go on this hardware."""
    own = config.policy.distributed
    if (config.policy.device == "cuda") != bool(hardware.gpus):
        return f"policy.device is {config.policy.device}, and the preset is for {hardware}"
    if config.backend == "torch" and hardware.gpus > 1:
        return "the torch backend runs on one GPU"
    if config.backend != "torch":
        if max(hardware.gpus, 1) % own.tensor_parallel:
            return f"tensor_parallel {own.tensor_parallel} does not divide {hardware.gpus} GPUs"
        position = 2 * shape.layers * shape.keys * (4 if config.policy.dtype == "float32" else 2) / own.tensor_parallel
        if own.cache_gb * GIB < longest(config, shape) * position:
            return f"a cache of {own.cache_gb:g} GB holds no sequence of {longest(config, shape):,} tokens, which takes {longest(config, shape) * position / GIB:.1f}"
    need = memory(config, shape, hardware.gpus).peak
    if need > room(hardware):
        return (
            f"it takes {need / GIB:.1f} GB{' a GPU' * bool(hardware.gpus)}, and of {hardware.memory_gb:g} GB {room(hardware) / GIB:.1f} can be filled"
        )
    return None


def alternatives(config: "Config", shape: Shape, hardware: Hardware) -> list[str]:
    """What would fit instead: each setting that will do alone, more GPUs of this size, larger ones."""
    found = [text for text, changed in smaller(config) if fits(changed, shape, hardware) is None]
    more = [hardware.model_copy(update={"gpus": n}) for n in (1, 2, 4, 8, 16, 32, 64) if n > hardware.gpus > 0 and config.backend != "torch"]
    larger = [hardware.model_copy(update={"memory_gb": gb}) for gb in (16, 24, 40, 48, 80, 141, 192) if gb > hardware.memory_gb]
    for row in (more, larger):
        found += [f"{there}{how}" for there in row for how, changed in sharded(config, there) if fits(changed, shape, there) is None][:1]
    return found


def sharded(config: "Config", there: Hardware) -> Iterator[tuple[str, "Config"]]:
    """The configuration as it is, then as thin as it can be spread over these GPUs."""
    yield "", config
    if config.backend != "torch":
        thin = {"zero": 3, "tensor_parallel": min(max(there.gpus, 1), 8)}
        text = f" with policy.checkpointing=true policy.distributed.zero=3 policy.distributed.tensor_parallel={thin['tensor_parallel']}"
        yield text, with_policy(config, checkpointing=True, distributed=thin)


def smaller(config: "Config") -> Iterator[tuple[str, "Config"]]:
    """Settings that save memory and change no number but rounding, one at a time."""
    tokens = config.policy.micro_batch_tokens
    if not config.policy.checkpointing:
        yield "policy.checkpointing=true", with_policy(config, checkpointing=True)
    if tokens > 1024:
        yield f"policy.micro_batch_tokens={tokens // 2}", with_policy(config, micro_batch_tokens=tokens // 2)
    if config.backend != "torch" and config.policy.distributed.zero == 2:
        yield "policy.distributed.zero=3", with_policy(config, distributed={"zero": 3})
    if config.backend != "torch" and config.policy.distributed.cache_gb > 2:
        yield "policy.distributed.cache_gb=2", with_policy(config, distributed={"cache_gb": 2.0})


def with_policy(config: "Config", distributed: dict[str, Any] | None = None, **changes: Any) -> "Config":
    policy = config.policy
    return config.model_copy(
        update={"policy": policy.model_copy(update=changes | {"distributed": policy.distributed.model_copy(update=distributed or {})})}
    )


def checkpoint_bytes(config: "Config", shape: Shape) -> float:
    """One checkpoint on disk: the weights, and the optimizer's state (DeepSpeed's with float32 weights of its own)."""
    size = 4 if config.policy.dtype == "float32" else 2
    return shape.parameters * (3 * size if config.backend == "torch" else size + 12)


def seconds(config: "Config", shape: Shape, hardware: Hardware, prompt: int, rollouts: int, trained: int, scored: int) -> dict[str, float]:
    """Of sampling `rollouts` answers to prompts of `prompt` tokens, each as long as it may be; of training on `trained` and taking the KL of `scored`."""
    gpus, answer, policy = max(hardware.gpus, 1), config.policy.max_tokens, config.policy
    size = 4 if policy.dtype == "float32" else 2
    together = policy.distributed.tensor_parallel if config.backend != "torch" else 1
    context = 2 * shape.layers * shape.keys * size * (prompt + answer / 2)  # bytes a sequence's next token reads, on average
    rows = min(policy.sample_rows, max(1, config.batch * config.slow.group * together // gpus))
    if config.backend != "torch":
        rows = max(1, min(rows, int(policy.distributed.cache_gb * GIB * together / context)))
    flops = COMPUTE * hardware.teraflops * 1e12
    read = (size * shape.parameters + rows * context) / together / (BANDWIDTH * hardware.bandwidth * 1e9)
    compute = 2 * shape.parameters * rows / together / flops
    passes = 8 if policy.checkpointing else 6  # operations a parameter and token: forward 2, backward 4, once more forward 2
    return {
        "sampling": rollouts * answer * max(read, compute) / (rows * gpus / together),
        "training": trained * (prompt + answer) * passes * shape.parameters / flops / gpus,
        "scoring": scored * (prompt + answer) * 4 * shape.parameters / flops / gpus,
    }
