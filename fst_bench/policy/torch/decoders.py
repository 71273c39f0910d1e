"""One token at a time: a prompt's prefill, then a step per token, over a cache whose rows can be selected.

`TransformersDecoder` runs any causal LM through transformers itself, `FusedDecoder` is the fast one for Qwen3 and Llama
on a CPU. Tests hold both to the plain forward pass.
"""

from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from fst_bench.policy.torch.fused import FusedDecoder, is_covered


class Decoder(Protocol):
    """State of a batch of sequences that grow together. Rows are left-padded; `seen` (rows, width) is 1 on tokens."""

    def prefill(self, ids: Tensor, seen: Tensor) -> Tensor:
        """Return the logits (rows, vocabulary) after the last token of each prompt."""
        ...

    def select(self, rows: Tensor) -> None:
        """Continue with these rows; a row may be taken many times, in ascending order."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Return the logits (rows, vocabulary) after one more token per row."""
        ...


def new_decoder(model: PreTrainedModel, capacity: int) -> Decoder:
    """Return the fastest decoder for the model, for at most `capacity` tokens a row."""
    return FusedDecoder(model, capacity) if is_covered(model) else TransformersDecoder(model)


class TransformersDecoder:
    """Any causal LM, by its own forward pass and transformers' growing cache."""

    def __init__(self, model: PreTrainedModel):
        self.model, self.cache = model, DynamicCache(config=model.config)

    def prefill(self, ids: Tensor, seen: Tensor) -> Tensor:
        self.seen, positions = seen, (seen.cumsum(1) - 1).clamp(min=0)
        self.position = positions[:, -1:]
        return self.model(
            input_ids=ids,
            attention_mask=seen,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

    def select(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.seen, self.position = self.seen[rows], self.position[rows]

    def step(self, tokens: Tensor) -> Tensor:
        self.position = self.position + 1
        self.seen = torch.cat([self.seen, self.seen.new_ones(len(self.seen), 1)], 1)
        return self.model(
            input_ids=tokens[:, None],
            attention_mask=self.seen,
            position_ids=self.position,
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
