"""Whether a run fits its hardware, what would fit instead, and how long it would take.

Times are from data sheets and the efficiencies below: a rough guess, to tell minutes from days.
"""

from collections.abc import Iterator
from typing import Any

from fst_bench.harness.config import Config, Hardware
from fst_bench.harness.planning.memory import (
    GIB,
    Shape,
    bytes_each,
    cache_gb,
    longest,
    memory_of,
    room,
    sequence_bytes,
)

COMPUTE = 0.35
"""Share of a data sheet's peak operations that training and scoring are taken to reach."""
BANDWIDTH = 0.5
"""Share of a data sheet's peak bandwidth that sampling is taken to reach."""
COUNTS = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of GPUs that are proposed."""
SIZES = (16, 24, 40, 48, 80, 141, 192)
"""GiB of the GPUs that are proposed."""


def fits(config: Config, shape: Shape, hardware: Hardware) -> str | None:
    """Return why a run cannot go on this hardware; None where it can."""
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
    need = memory_of(config, shape, hardware).peak
    if need > room(hardware):
        each = " a GPU" if hardware.gpus else ""
        usable = f"of {hardware.memory_gb:g} GB {room(hardware) / GIB:.1f} can be filled"
        return f"it takes {need / GIB:.1f} GB{each}, and {usable}"
    return None


def alternatives(config: Config, shape: Shape, hardware: Hardware) -> list[str]:
    """Return what would fit instead: each setting that will do alone, more GPUs of this size, larger ones."""
    found = [text for text, changed in smaller(config) if fits(changed, shape, hardware) is None]
    several = config.backend != "torch"
    more = [hardware.model_copy(update={"gpus": n}) for n in COUNTS if n > hardware.gpus > 0 and several]
    larger = [hardware.model_copy(update={"memory_gb": gb}) for gb in SIZES if gb > hardware.memory_gb]
    for row in (more, larger):
        would = [
            f"{other}{how}"
            for other in row
            for how, changed in sharded(config, other)
            if fits(changed, shape, other) is None
        ]
        found += would[:1]
    return found


def sharded(config: Config, hardware: Hardware) -> Iterator[tuple[str, Config]]:
    """Yield the configuration as it is, then spread over these GPUs as thinly as possible."""
    yield "", config
    if config.backend != "torch":
        parallel = min(max(hardware.gpus, 1), 8)
        thin = {"zero": 3, "tensor_parallel": parallel}
        text = (
            " with policy.gradient_checkpointing=true policy.distributed.zero=3 "
            f"policy.distributed.tensor_parallel={parallel}"
        )
        yield text, with_policy(config, gradient_checkpointing=True, distributed=thin)


def smaller(config: Config) -> Iterator[tuple[str, Config]]:
    """Yield settings that save memory and change no number except by rounding, one at a time."""
    tokens, own = config.policy.micro_batch_tokens, config.policy.distributed
    if not config.policy.gradient_checkpointing:
        yield "policy.gradient_checkpointing=true", with_policy(config, gradient_checkpointing=True)
    if tokens > 1024:
        yield f"policy.micro_batch_tokens={tokens // 2}", with_policy(config, micro_batch_tokens=tokens // 2)
    if config.backend != "torch" and own.zero == 2:
        yield "policy.distributed.zero=3", with_policy(config, distributed={"zero": 3})
    if config.backend != "torch" and own.cache_gb != "fit" and own.cache_gb > 2:
        yield "policy.distributed.cache_gb=2", with_policy(config, distributed={"cache_gb": 2.0})


def with_policy(config: Config, distributed: dict[str, Any] | None = None, **changes: Any) -> Config:
    """Return the configuration with changes of its section policy, and of policy.distributed."""
    policy = config.policy
    changes["distributed"] = policy.distributed.model_copy(update=distributed or {})
    return config.model_copy(update={"policy": policy.model_copy(update=changes)})


def seconds(
    config: Config,
    shape: Shape,
    hardware: Hardware,
    context: int,
    problem: int,
    rollouts: int,
    trained: int,
    scored: int,
) -> dict[str, float]:
    """Return the seconds of sampling `rollouts` answers, of training on `trained`, and of taking the KL of `scored`.

    Prompts have a context of `context` tokens and a problem of `problem`; each answer is as long as it may be. What
    goes into one pass shares: the answers of a group their prompt, in training, and prompts their context where
    `fst_bench.policy.packing` packs them so.
    """
    from fst_bench.policy.packing import LARGE, ROW_TOKENS

    gpus, answer, policy = max(hardware.gpus, 1), config.policy.max_tokens, config.policy
    size = bytes_each(config)
    together = policy.distributed.tensor_parallel if config.backend != "torch" else 1
    # bytes that a sequence's next token reads, on average
    cached = 2 * shape.layers * shape.keys * size * (context + problem + answer / 2)
    rows = min(policy.max_num_seqs, max(1, config.batch * config.slow.group_size * together // gpus))
    if config.backend != "torch":
        rows = max(1, min(rows, int(cache_gb(config, shape, hardware) * GIB * together / cached)))
    flops = COMPUTE * hardware.teraflops * 1e12
    read = (size * shape.parameters + rows * cached) / together / (BANDWIDTH * hardware.bandwidth * 1e9)
    compute = 2 * shape.parameters * rows / together / flops
    contexts = policy.device == "cpu" and shape.hidden >= LARGE
    whole = contexts or policy.device == "cuda"
    tree = policy.micro_batch_tokens if whole else min(policy.micro_batch_tokens, ROW_TOKENS)

    def tokens(group: int) -> float:
        """Return the tokens that are computed for an answer, of `group` answers to a prompt."""
        if contexts:
            own = problem / group + answer
            return own + context / max(1, (tree - context) // own)
        prompt = context + problem
        return prompt / max(1, min(group, (tree - prompt) // answer)) + answer

    # operations a parameter and token: forward 2, backward 4, and with checkpointing forward again
    passes = 8 if policy.gradient_checkpointing else 6
    return {
        "sampling": rollouts * answer * max(read, compute) / (rows * gpus / together),
        "training": trained * tokens(config.slow.group_size) * passes * shape.parameters / flops / gpus,
        "scoring": scored * tokens(1) * 4 * shape.parameters / flops / gpus,
    }
