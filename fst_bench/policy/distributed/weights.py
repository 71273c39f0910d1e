"""How weights get from the learner to vLLM's engine, and how it is proven that they did.

They are handed over in memory: learner and engine share the process and its device. vLLM's own transports (`nccl`,
`ipc`) carry weights between processes; this one is registered alongside them and has the same steps: start, update and
finish. Afterwards every tensor of the engine is compared with the learner's, bit for bit: at a learning rate of 1e-6 a
step moves log-probabilities less than bfloat16 rounds them, so no tolerance could tell whether the engine holds the
weights of this step or of the last.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.linear import LinearBase, QKVParallelLinear, RowParallelLinear
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

PROBED = 512
"""Columns of a weight that are read back at a time where the CPU build has packed it away."""


@dataclass
class NoInfo(WeightTransferInitInfo):
    """The transport's settings: none."""


@dataclass
class Handover(WeightTransferUpdateInfo):
    """One part of an update."""

    weights: list[tuple[str, Tensor]]
    """(name in the checkpoint, whole tensor)."""


class InMemory(WeightTransferEngine[NoInfo, Handover]):
    """A transport for weights of a checkpoint's names and shapes, as tensors of this process."""

    init_info_cls = NoInfo
    update_info_cls = Handover

    def init_transfer_engine(self, init_info: NoInfo) -> None: ...

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: Handover) -> None:
        self.model.load_weights(update_info.weights)

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        head = getattr(self.model, "lm_head", None)
        if self.model_config.hf_config.tie_word_embeddings and head is not None:
            # the CPU build keeps the head packed for its kernels, and a tied head has no weights of its own that would
            # make it pack them again
            head.quant_method.process_weights_after_loading(head)

    def shutdown(self) -> None: ...


WeightTransferEngineFactory.register_engine("in-memory", InMemory)


@dataclass
class Comparison:
    """The result of a comparison: names of the learner's tensors."""

    same: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """Tensors without a known place in the engine's model, such as those of layers that this file does not cover."""

    def add(self, name: str, held: Tensor, expected: Tensor) -> None:
        same = held.shape == expected.shape and torch.equal(held, expected.to(held.device, held.dtype))
        (self.same if same else self.different).append(name)


@torch.no_grad()
def compare(model: nn.Module, weights: Iterable[tuple[str, Tensor]], tied: bool) -> Comparison:
    """Compare the engine's model with whole tensors under a checkpoint's names, one by one, each shard with its slice.

    Fused projections (q, k and v; gate and up) are compared part by part, in the order that the model states. A head
    that is `tied` to the embeddings is compared with them.
    """
    fused = {
        part: (whole, index)
        for whole, parts in getattr(model, "packed_modules_mapping", {}).items()
        for index, part in enumerate(parts)
        if len(parts) > 1
    }
    found, head = Comparison(), getattr(model, "lm_head", None)
    for name, tensor in weights:
        path, _, leaf = name.rpartition(".")
        parent, _, child = path.rpartition(".")
        whole, index = fused.get(child, (child, None))
        try:
            layer = model.get_submodule(f"{parent}.{whole}" if parent else whole)
        except AttributeError:
            layer = nn.Module()
        if getattr(layer, leaf, None) is None:
            found.unknown.append(name)
            continue
        found.add(name, *_counterparts(layer, leaf, index, tensor))
        if (
            tied
            and isinstance(layer, VocabParallelEmbedding)
            and isinstance(head, ParallelLMHead)
            and head is not layer
        ):
            found.add(f"lm_head of {name}", *_counterparts(head, leaf, None, tensor))
    return found


def _counterparts(layer: nn.Module, leaf: str, index: int | None, tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the layer holds of this tensor, and what it should hold.

    `index` is the tensor's place in a fused layer.
    """
    if isinstance(layer, VocabParallelEmbedding):
        shard = layer.shard_indices
        rows = shard.org_vocab_end_index - shard.org_vocab_start_index  # behind them the engine pads
        return _weight(layer)[:rows], tensor[shard.org_vocab_start_index : shard.org_vocab_end_index]
    if not isinstance(layer, LinearBase):
        return getattr(layer, leaf).data, tensor
    held = _weight(layer) if leaf == "weight" else getattr(layer, leaf).data
    if isinstance(layer, RowParallelLinear):
        return held, tensor.narrow(1, layer.tp_rank * held.shape[1], held.shape[1]) if leaf == "weight" else tensor
    sizes: list[int] = layer.output_partition_sizes
    part = held if index is None else held.narrow(0, sum(sizes[:index]), sizes[index])
    rank = layer.tp_rank
    if index and isinstance(layer, QKVParallelLinear):
        rank //= layer.num_kv_head_replicas  # where ranks outnumber the heads of keys and values
    return part, tensor.narrow(0, rank * len(part), len(part))


def _weight(layer: Any) -> Tensor:
    """Return the weight that a layer multiplies with.

    Where the CPU build has packed it for its kernel it is read back, by multiplying with the unit matrix.
    """
    packed_away = layer.weight.numel() == 0 or (isinstance(layer, ParallelLMHead) and hasattr(layer, "cpu_linear"))
    if not packed_away:
        return layer.weight.data
    columns = layer.embedding_dim if isinstance(layer, VocabParallelEmbedding) else layer.input_size_per_partition
    unit = torch.eye(columns, dtype=layer.weight.dtype)
    return torch.cat([layer.cpu_linear(rows, layer.weight, None) for rows in unit.split(PROBED)]).t()
