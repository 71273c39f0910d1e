"""Sampling from any transformers causal LM: prefill shared by the samples of one prompt, finished rows dropped.

The random numbers of a prompt's samples come from its own seed and are drawn before sampling starts, so dropping
rows, cutting the prompts into chunks or sampling others beside it changes no sample (up to rounding in the matrix products).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from .decoders import new_decoder

DROP_BELOW = 0.75
"""Finished rows are dropped once the unfinished ones are fewer than this share: each drop copies the cache."""


@dataclass(frozen=True)
class Decoded:
    """Sampled tokens with their log-probabilities; the last token is the end token where `finished`."""

    tokens: list[int]
    logprobs: list[float]
    finished: bool


@torch.no_grad()
def decode(
    model: PreTrainedModel, prompts: list[list[int]], counts: list[int], seeds: list[int], *, temperature: float, rooms: list[int],
    end: set[int], pad: int, rows: int,
) -> list[list[Decoded]]:  # fmt: skip
    """`counts[i]` continuations of `prompts[i]`, of at most `rooms[i]` tokens; temperature 0 is greedy; about `rows` are sampled at a time."""
    uniforms = [
        torch.rand(count, room, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for count, room, seed in zip(counts, rooms, seeds, strict=True)
    ]
    results: list[list[Decoded]] = []
    first = 0
    while first < len(prompts):  # as many whole prompts as fit into `rows`
        last, total = first + 1, counts[first]
        while last < len(prompts) and total + counts[last] <= rows:
            total += counts[last]
            last += 1
        flat = _decode_rows(model, prompts[first:last], counts[first:last], uniforms[first:last], temperature, end, pad)
        for count in counts[first:last]:
            results.append(flat[:count])
            flat = flat[count:]
        first = last
    return results


def _decode_rows(
    model: PreTrainedModel, prompts: list[list[int]], counts: list[int], drawn: list[Tensor], temperature: float, end: set[int], pad: int
) -> list[Decoded]:
    device = model.device
    rooms = torch.tensor([block.shape[1] for block in drawn]).repeat_interleave(torch.tensor(counts))
    uniforms = torch.cat([F.pad(block, (0, int(rooms.max()) - block.shape[1])) for block in drawn])
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad, device=device)
    seen = torch.zeros((len(prompts), width), dtype=torch.long, device=device)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(prompt)
        seen[i, width - len(prompt) :] = 1
    decoder = new_decoder(model, width + uniforms.shape[1])
    logits = decoder.prefill(ids, seen)
    alive = torch.arange(len(uniforms))
    chosen = torch.repeat_interleave(torch.arange(len(prompts), device=device), torch.tensor(counts, device=device))
    if len(chosen) > len(prompts):
        decoder.select(chosen)
        logits = logits[chosen]
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
        full = rooms[alive] <= t + 1
        keep = [i for i, row in enumerate(alive.tolist()) if not finished[row] and not full[i]]
        if not keep:
            break
        if len(keep) < DROP_BELOW * len(alive) or full.any():  # a row that is full may stand at the model's last position
            index = torch.tensor(keep)
            alive, index = alive[index], index.to(device)
            decoder.select(index)
            token = token[index]
        logits = decoder.step(token)
    return [Decoded(t, lp, f) for t, lp, f in zip(tokens, logprobs, finished, strict=True)]


def _choose(logp: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """The token at `uniform` of the cumulative distribution; the untruncated distribution, or rho would be biased."""
    if temperature == 0:
        return logp.argmax(-1)
    cumulative = torch.softmax(logp.double() / temperature, -1).cumsum(-1)
    return torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:]).clamp(max=logp.shape[1] - 1)[:, 0]
