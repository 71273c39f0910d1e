"""One token at a time: a prompt's prefill, then a step per token, over a cache whose rows can be selected.

`TransformersDecoder` runs any causal LM through transformers itself. `Qwen3Decoder` is the same mathematics for the
Qwen3 architecture with fewer operations, since a model of a few MB spends its time between them: fused projections,
a cache written in place, one additive mask. Tests hold both to the plain forward pass.
"""

from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.models.qwen3 import Qwen3ForCausalLM


class Decoder(Protocol):
    """State of a batch of sequences that grow together. Rows are left-padded; `seen` (rows, width) is 1 on real tokens."""

    def prefill(self, ids: Tensor, seen: Tensor) -> Tensor:
        """Logits (rows, vocabulary) after the last token of each prompt."""
        ...

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, in this order; a row may be taken many times."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Logits (rows, vocabulary) after one more token per row."""
        ...


def new_decoder(model: PreTrainedModel, capacity: int) -> Decoder:
    """The fastest decoder for the model; at most `capacity` tokens a row."""
    plain = isinstance(model, Qwen3ForCausalLM) and model.device.type == "cpu" and set(model.config.layer_types or []) == {"full_attention"}
    rope = getattr(model.config, "rope_parameters", None) or {}
    if plain and not model.config.attention_bias and rope.get("rope_type", "default") == "default":
        return Qwen3Decoder(cast(Qwen3ForCausalLM, model), capacity)
    return TransformersDecoder(model)


class TransformersDecoder:
    """Any causal LM, by its own forward pass and transformers' growing cache."""

    def __init__(self, model: PreTrainedModel):
        self.model, self.cache = model, DynamicCache(config=model.config)

    def prefill(self, ids: Tensor, seen: Tensor) -> Tensor:
        self.seen, positions = seen, (seen.cumsum(1) - 1).clamp(min=0)
        self.position = positions[:, -1:]
        return self.model(
            input_ids=ids, attention_mask=seen, position_ids=positions, past_key_values=self.cache, use_cache=True, logits_to_keep=1
        ).logits[:, -1]

    def select(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.seen, self.position = self.seen[rows], self.position[rows]

    def step(self, tokens: Tensor) -> Tensor:
        self.position = self.position + 1
        self.seen = torch.cat([self.seen, self.seen.new_ones(len(self.seen), 1)], 1)
        return self.model(
            input_ids=tokens[:, None], attention_mask=self.seen, position_ids=self.position, past_key_values=self.cache, use_cache=True
        ).logits[:, -1]


class Qwen3Decoder:
    """Qwen3 with full attention on CPU. Weights are fused when it is made: make a new one after every update."""

    def __init__(self, model: Qwen3ForCausalLM, capacity: int):
        c = model.config
        self.heads, self.kv_heads, self.size, self.eps, self.capacity = (
            c.num_attention_heads, c.num_key_value_heads or c.num_attention_heads, c.head_dim, c.rms_norm_eps, capacity,
        )  # fmt: skip
        self.embed, self.norm, self.head = model.model.embed_tokens.weight, model.model.norm.weight, model.lm_head.weight
        self.layers = []
        for layer in model.model.layers:
            a, m = layer.self_attn, layer.mlp
            self.layers.append((
                layer.input_layernorm.weight, torch.cat([a.q_proj.weight, a.k_proj.weight, a.v_proj.weight]),
                torch.cat([a.q_norm.weight.expand(self.heads, -1), a.k_norm.weight.expand(self.kv_heads, -1)])[:, None],
                a.o_proj.weight, layer.post_attention_layernorm.weight, torch.cat([m.gate_proj.weight, m.up_proj.weight]), m.down_proj.weight,
            ))  # fmt: skip
        angles = torch.outer(torch.arange(capacity).float(), model.model.rotary_emb.inv_freq.float())
        self.cos = torch.cat([angles, angles], -1).cos().to(self.embed.dtype)
        self.sin = torch.cat([-angles, angles], -1).sin().to(self.embed.dtype)  # the sign of rotate_half is in here
        self.length = 0

    def prefill(self, ids: Tensor, seen: Tensor) -> Tensor:
        rows, width = ids.shape
        self.keys = [self.embed.new_empty(rows, self.kv_heads, self.capacity, self.size) for _ in self.layers]
        self.values = [torch.empty_like(k) for k in self.keys]
        self.mask = self.embed.new_zeros(rows, 1, 1, self.capacity)
        self.mask[:, 0, 0, :width].masked_fill_(seen == 0, float("-inf"))
        positions = (seen.cumsum(1) - 1).clamp(min=0)
        self.position = positions[:, -1]
        causal = self.mask.new_full((width, width), float("-inf")).triu(1)
        mask = self.mask[..., :width] + causal
        mask.diagonal(dim1=-2, dim2=-1).zero_()  # a padding token sees itself, or its softmax would be over nothing
        return self._forward(ids, positions, mask)

    def select(self, rows: Tensor) -> None:
        for cache in (self.keys, self.values):
            for i, old in enumerate(cache):
                cache[i] = old.new_empty(len(rows), *old.shape[1:])
                cache[i][:, :, : self.length] = old[rows, :, : self.length]
        self.mask, self.position = self.mask[rows], self.position[rows]

    def step(self, tokens: Tensor) -> Tensor:
        self.position = self.position + 1
        return self._forward(tokens[:, None], self.position[:, None], self.mask[..., : self.length + 1])

    def _forward(self, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        rows, width = ids.shape
        start, end = self.length, self.length + width
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        half, both = self.size // 2, self.heads + self.kv_heads
        x = F.embedding(ids, self.embed)
        for i, (input_norm, qkv, qk_norm, out, mlp_norm, gate_up, down) in enumerate(self.layers):
            h = F.linear(F.rms_norm(x, x.shape[-1:], input_norm, self.eps), qkv).view(rows, width, -1, self.size).transpose(1, 2)
            qk = F.rms_norm(h[:, :both], (self.size,), None, self.eps) * qk_norm
            qk = qk * cos + torch.cat([qk[..., half:], qk[..., :half]], -1) * sin
            keys, values = self.keys[i], self.values[i]
            keys[:, :, start:end] = qk[:, self.heads :]
            values[:, :, start:end] = h[:, both:]
            mixed = F.scaled_dot_product_attention(
                qk[:, : self.heads], keys[:, :, :end], values[:, :, :end], attn_mask=mask, enable_gqa=self.heads != self.kv_heads
            )
            x = x + F.linear(mixed.transpose(1, 2).reshape(rows, width, -1), out)
            gate, up = F.linear(F.rms_norm(x, x.shape[-1:], mlp_norm, self.eps), gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down)
        self.length = end
        return F.linear(F.rms_norm(x[:, -1], x.shape[-1:], self.norm, self.eps), self.head)
