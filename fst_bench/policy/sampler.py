"""Sampling from any transformers causal LM: prefill shared by the samples of one prompt, finished rows dropped.

The random numbers of a prompt's samples come from its own seed and are drawn before sampling starts, so dropping
rows, cutting the prompts into chunks or sampling others beside it changes no sample (up to rounding in the matrix products).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

DROP_BELOW = 0.75
"""Finished rows are dropped once the unfinished ones are fewer than this share: each drop copies the cache."""


class RoomyLayer(DynamicLayer):
    """transformers' growing cache layer with room for the whole answer: a new token is written, not concatenated."""

    def __init__(self, capacity: int):
        super().__init__()
        self.capacity = capacity
        self.room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self.room is None:
            self.room = (self._empty(key_states, len(key_states)), self._empty(value_states, len(value_states)))
        for room, states in zip(self.room, (key_states, value_states), strict=True):
            room[:, :, start:end] = states
        self.keys, self.values = (room[:, :, :end] for room in self.room)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        assert self.room is not None and self.keys is not None and self.values is not None
        length = self.get_seq_length()
        fresh = tuple(self._empty(room, len(indices)) for room in self.room)
        for new, old in zip(fresh, (self.keys, self.values), strict=True):
            new[:, :, :length] = old[indices]
        self.room = (fresh[0], fresh[1])
        self.keys, self.values = (room[:, :, :length] for room in self.room)

    def _empty(self, like: Tensor, rows: int) -> Tensor:
        return like.new_empty(rows, like.shape[1], self.capacity, like.shape[3])


def new_cache(model: PreTrainedModel, capacity: int) -> Cache:
    """A cache for `capacity` tokens; models with other than full attention keep transformers' own."""
    if set(getattr(model.config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        return DynamicCache(config=model.config)
    return Cache(layers=[RoomyLayer(capacity) for _ in range(model.config.num_hidden_layers)])


@dataclass(frozen=True)
class Decoded:
    """Sampled tokens with their log-probabilities; the last token is the end token where `finished`."""

    tokens: list[int]
    logprobs: list[float]
    finished: bool


@torch.no_grad()
def decode(
    model: PreTrainedModel, prompts: list[list[int]], counts: list[int], seeds: list[int], *, temperature: float, max_tokens: int,
    end: set[int], pad: int, rows: int,
) -> list[list[Decoded]]:  # fmt: skip
    """`counts[i]` continuations of `prompts[i]`; temperature 0 is greedy; about `rows` are sampled at a time."""
    uniforms = torch.cat([
        torch.rand(count, max_tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for count, seed in zip(counts, seeds, strict=True)
    ])  # fmt: skip
    results: list[list[Decoded]] = []
    first, start = 0, 0
    while first < len(prompts):  # as many whole prompts as fit into `rows`
        last, total = first + 1, counts[first]
        while last < len(prompts) and total + counts[last] <= rows:
            total += counts[last]
            last += 1
        flat = _decode_rows(model, prompts[first:last], counts[first:last], uniforms[start : start + total], temperature, end, pad)
        for count in counts[first:last]:
            results.append(flat[:count])
            flat = flat[count:]
        first, start = last, start + total
    return results


def _decode_rows(
    model: PreTrainedModel, prompts: list[list[int]], counts: list[int], uniforms: Tensor, temperature: float, end: set[int], pad: int
) -> list[Decoded]:
    device = model.device
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad, device=device)
    seen = torch.zeros((len(prompts), width), dtype=torch.long, device=device)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(prompt)
        seen[i, width - len(prompt) :] = 1
    cache = new_cache(model, width + uniforms.shape[1])
    positions = (seen.cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=seen, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    repeats = torch.tensor(counts, device=device)
    alive = torch.arange(len(uniforms))
    chosen = torch.repeat_interleave(torch.arange(len(prompts), device=device), repeats)
    cache.batch_select_indices(chosen)
    logits, seen, position = logits[chosen, -1], seen[chosen], positions[chosen, -1]
    tokens: list[list[int]] = [[] for _ in uniforms]
    logprobs: list[list[float]] = [[] for _ in uniforms]
    finished = [False] * len(uniforms)
    for t in range(uniforms.shape[1]):
        logp = torch.log_softmax(logits.float(), -1)
        token = _choose(logp, uniforms[alive, t].to(device), temperature)
        picked = logp.gather(1, token[:, None])[:, 0]
        for row, tok, lp in zip(alive.tolist(), token.tolist(), picked.tolist(), strict=True):
            if not finished[row]:
                tokens[row].append(tok)
                logprobs[row].append(lp)
                finished[row] = tok in end
        keep = [i for i, row in enumerate(alive.tolist()) if not finished[row]]
        if t + 1 == uniforms.shape[1] or not keep:
            break
        if len(keep) < DROP_BELOW * len(alive):
            index = torch.tensor(keep)
            alive, index = alive[index], index.to(device)
            cache.batch_select_indices(index)
            token, seen, position = token[index], seen[index], position[index]
        position = position + 1
        seen = torch.cat([seen, seen.new_ones(len(seen), 1)], 1)
        logits = model(input_ids=token[:, None], attention_mask=seen, position_ids=position[:, None], past_key_values=cache, use_cache=True).logits[
            :, -1
        ]
    return [Decoded(t, lp, f) for t, lp, f in zip(tokens, logprobs, finished, strict=True)]


def _choose(logp: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """The token at `uniform` of the cumulative distribution; the untruncated distribution, or rho would be biased."""
    if temperature == 0:
        return logp.argmax(-1)
    cumulative = torch.softmax(logp.double() / temperature, -1).cumsum(-1)
    return torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:]).clamp(max=logp.shape[1] - 1)[:, 0]
