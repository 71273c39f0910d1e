"""Conversations as tokens, the same for every backend: the prefix of a request, and the sample that it becomes.

What was sampled is never tokenised again: where a conversation continues, the reply's tokens are appended to the
tokens that exist.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

from fst_bench.core.errors import NotFinite
from fst_bench.core.types import Completion, Message, Prefix, Sample, SampleRequest
from fst_bench.policy.interface import LanguageModel
from fst_bench.policy.template import Rendered, Template


def prefixes(template: Template, requests: Sequence[SampleRequest], end: set[int], max_model_len: int) -> list[Prefix]:
    """Return where each request's sampling starts.

    Raises ValueError where a first prompt leaves no room for an answer, or the template cannot write a reply.
    """
    own = template.settings.max_tokens
    most = max((r.max_tokens or own for r in requests), default=own)
    first_prompts = iter(tokenise(template, [r.messages for r in requests if r.after is None], max_model_len - most))
    found = []
    for request in requests:
        max_tokens = request.max_tokens or own
        stops = template.settings.stops if request.stops is None else request.stops
        if (before := request.after) is None:
            prompt, opened = next(first_prompts)
            found.append(Prefix(prompt, [False] * len(prompt), [], max_tokens, opened, stops))
        else:
            assert request.n == 1, "a conversation continues one by one"
            assert before.finished, "a conversation continues from an answer that has ended"
            reply, opened = template.reply(request.messages)
            if before.tokens[-1] in end and set(reply[:1]) & end:
                reply = reply[1:]  # the model has ended its turn itself
            tokens = before.tokens + reply
            max_new_tokens = min(max_tokens - before.sampled, max_model_len - len(tokens))
            mask = before.mask + [False] * len(reply)
            found.append(Prefix(tokens, mask, before.logprobs, max_new_tokens, opened, stops))
    return found


def tokenise(
    template: Template, conversations: Sequence[tuple[Message, ...]], max_prompt_tokens: int
) -> list[Rendered]:
    """Return conversations as tokens, up to the opening of the model's turn.

    Raises ValueError where a conversation is longer than `max_prompt_tokens`.
    """
    if not conversations:
        return []
    prompts = template.prompts(conversations)
    longest = max(len(prompt.tokens) for prompt in prompts)
    if longest > max_prompt_tokens:
        raise ValueError(
            f"a prompt of {longest} tokens leaves no room: "
            f"the model has {max_prompt_tokens} positions before max_tokens"
        )
    return prompts


def with_prompt(
    model: LanguageModel,
    template: Template,
    samples: Sequence[Sample],
    conversations: Sequence[tuple[Message, ...]],
    max_prompt_tokens: int,
) -> list[Sample]:
    """Return `Policy.with_prompt`: other tokens before the first sampled one, the same from there on."""
    moved = []
    prompts = tokenise(template, conversations, max_prompt_tokens)
    for (prompt, _), s in zip(prompts, samples, strict=True):
        first = s.mask.index(True)
        moved.append(replace(s, tokens=prompt + s.tokens[first:], mask=[False] * len(prompt) + s.mask[first:]))
    return [replace(s, logprobs=logprobs) for s, logprobs in zip(moved, model.logprobs(moved), strict=True)]


def samples_from(
    template: Template,
    requests: Sequence[SampleRequest],
    begun: Sequence[Prefix],
    completions: Sequence[Sequence[Completion]],
    temperature: float,
) -> list[list[Sample]]:
    """Return each request's samples. `completions` are those of the requests whose prefix left room for a token.

    Raises NotFinite where a log-probability is infinite or not a number.
    """
    found: list[list[Sample]] = []
    groups = iter(completions)
    for request, prefix in zip(requests, begun, strict=True):
        if request.after is not None and prefix.max_new_tokens < 1:
            found.append([replace(request.after, finished=False)])
            continue
        group = next(groups)
        if not all(isfinite(logprob) for completion in group for logprob in completion.logprobs):
            raise NotFinite("a log-probability of a sampled token is not finite")
        found.append(
            [
                Sample(
                    tokens=prefix.tokens + completion.tokens,
                    mask=prefix.mask + [True] * len(completion.tokens),
                    logprobs=prefix.logprobs + completion.logprobs,
                    text=prefix.opened + text,
                    finished=completion.finished,
                    temperature=temperature or 1.0,
                )
                for completion, text in (template.answer(completion, prefix.stops) for completion in group)
            ]
        )
    return found
