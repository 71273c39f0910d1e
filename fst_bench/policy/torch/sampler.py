"""Sampling from any transformers causal LM: prefill shared by the samples of one prompt, finished rows dropped.

The random numbers of a prompt's samples come from its own seed and are drawn before sampling starts, so dropping rows,
cutting the prompts into chunks or sampling others alongside changes no sample (up to rounding in the matrix products).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from fst_bench.core.types import Completion
from fst_bench.policy.interface import Progress
from fst_bench.policy.torch.decoders import new_decoder

Stopped = Callable[[list[int], tuple[str, ...]], bool]
"""(an answer's tokens, stop strings) -> whether it meets one of them with its last token."""
DROP_BELOW = 0.75
"""Finished rows are dropped once the unfinished ones are fewer than this share: each drop copies the cache."""


@torch.no_grad()
def decode(
    model: PreTrainedModel,
    prompts: list[list[int]],
    counts: list[int],
    seeds: list[int],
    *,
    temperature: float,
    max_new_tokens: list[int],
    end: set[int],
    stops: list[tuple[str, ...]],
    stopped: Stopped,
    pad: int,
    max_num_seqs: int,
    progress: Progress | None = None,
) -> list[list[Completion]]:
    """Return `counts[i]` completions of `prompts[i]`, sampled about `max_num_seqs` at a time.

    Those of prompt i have at most `max_new_tokens[i]` tokens; `seeds[i]` is the seed of their random numbers.
    Temperature 0 is greedy. A completion ends with one of the tokens `end`, or where `stopped` finds one of `stops[i]`;
    `pad` fills shorter prompts up.
    """
    uniforms = [
        torch.rand(count, longest, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for count, longest, seed in zip(counts, max_new_tokens, seeds, strict=True)
    ]
    found: dict[int, list[Completion]] = {}
    for batch in batches(prompts, counts, max_num_seqs):
        before = sum(counts[i] for i in found)
        whole = partial(_count, progress, sum(counts), before) if progress else None
        own, numbers, own_stops = [prompts[i] for i in batch], [uniforms[i] for i in batch], [stops[i] for i in batch]
        completions = iter(_decode_batch(model, own, numbers, temperature, end, own_stops, stopped, pad, whole))
        found |= {i: [next(completions) for _ in range(counts[i])] for i in batch}
    return [found[i] for i in range(len(prompts))]


def batches(prompts: list[list[int]], counts: list[int], max_num_seqs: int) -> list[list[int]]:
    """Return batches of prompts, by their numbers: as many whole prompts as fit into `max_num_seqs` completions.

    Where there are several, prompts of one length are together, since a batch is as long as its longest.
    """
    order = list(range(len(prompts)))
    if sum(counts) > max_num_seqs:
        order.sort(key=lambda i: len(prompts[i]))
    found: list[list[int]] = []
    total = max_num_seqs
    for i in order:
        if total + counts[i] > max_num_seqs:
            found.append([])
            total = 0
        found[-1].append(i)
        total += counts[i]
    return found


def _count(progress: Progress, total: int, before: int, whole: int) -> None:
    """Report the completions of a batch, and those of the batches before it."""
    progress(before + whole, total)


def _decode_batch(
    model: PreTrainedModel,
    prompts: list[list[int]],
    uniforms_of: list[Tensor],
    temperature: float,
    end: set[int],
    stops_of: list[tuple[str, ...]],
    stopped: Stopped,
    pad: int,
    whole: Callable[[int], None] | None,
) -> list[Completion]:
    """Return the completions of these prompts, one after the other.

    `uniforms_of[i]` (completions of prompt i, their most tokens) are the numbers in [0, 1) that choose the tokens.
    `whole` is called with the number of completions that have come to their end.
    """
    device = model.device
    uniforms = pad_sequence([row for block in uniforms_of for row in block], batch_first=True)
    max_new_tokens = torch.tensor([block.shape[1] for block in uniforms_of for _ in block])
    stops = [own for own, block in zip(stops_of, uniforms_of, strict=True) for _ in block]
    ids = pad_sequence(
        [torch.tensor(prompt) for prompt in prompts], batch_first=True, padding_value=pad, padding_side="left"
    ).to(device)
    seen = pad_sequence(
        [torch.ones(len(prompt), dtype=torch.long) for prompt in prompts], batch_first=True, padding_side="left"
    ).to(device)
    decoder = new_decoder(model, ids.shape[1] + uniforms.shape[1])
    logits = decoder.prefill(ids, seen)
    alive = torch.arange(len(uniforms))
    if len(uniforms) > len(prompts):
        prompt_of = torch.tensor([i for i, block in enumerate(uniforms_of) for _ in block], device=device)
        decoder.select(prompt_of)
        logits = logits[prompt_of]
    tokens: list[list[int]] = [[] for _ in uniforms]
    logprobs: list[list[float]] = [[] for _ in uniforms]
    finished = [False] * len(uniforms)
    for t in range(uniforms.shape[1]):
        logp = torch.log_softmax(logits.float() / (temperature or 1.0), -1)
        token = logp.argmax(-1) if temperature == 0 else _choose(logp, uniforms[alive, t].to(device))
        picked = logp.gather(1, token[:, None])[:, 0]
        for row, tok, lp in zip(alive.tolist(), token.tolist(), picked.tolist(), strict=True):
            if not finished[row]:
                tokens[row].append(tok)
                logprobs[row].append(lp)
                finished[row] = tok in end or stopped(tokens[row], stops[row])
        if whole:
            whole(sum(finished))
        full = max_new_tokens[alive] <= t + 1
        keep = [i for i, row in enumerate(alive.tolist()) if not finished[row] and not full[i]]
        if not keep:
            break
        # a row that is full may be at the model's last position, which has no next one
        if len(keep) < DROP_BELOW * len(alive) or full.any():
            index = torch.tensor(keep)
            alive, index = alive[index], index.to(device)
            decoder.select(index)
            token = token[index]
        logits = decoder.step(token)
    return [Completion(t, lp, f) for t, lp, f in zip(tokens, logprobs, finished, strict=True)]


def _choose(logp: Tensor, uniform: Tensor) -> Tensor:
    """Return (rows,) the token at `uniform` (rows,) of the cumulative distribution of `logp` (rows, vocabulary).

    The distribution is not truncated, or the ratio to the learner would be biased.
    """
    cumulative = torch.softmax(logp.double(), -1).cumsum(-1)
    return torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:]).clamp(max=logp.shape[1] - 1)[:, 0]
