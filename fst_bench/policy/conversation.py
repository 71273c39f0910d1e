"""Conversations as tokens, the same for every backend: the prefix of a request, and the sample that it becomes.

What was sampled is never tokenised again: where a conversation continues, the reply's tokens are appended to the
tokens that exist.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from jinja2 import TemplateError

from fst_bench.core.errors import NotFinite
from fst_bench.core.types import Completion, Message, Prefix, Sample, SampleRequest
from fst_bench.policy.interface import LanguageModel

TURN = "\ue000"
"""Placeholder for a turn of the model's, behind which a template writes a reply."""


def prefixes(
    tokenizer: Any,
    requests: Sequence[SampleRequest],
    end: set[int],
    max_model_len: int,
    max_tokens: int,
    thinking: bool = True,
) -> list[Prefix]:
    """Return where each request's sampling starts.

    Raises ValueError where a first prompt leaves no room for `max_tokens`, or the chat template cannot write a reply.
    """
    first_prompts = iter(
        tokenise(tokenizer, [r.messages for r in requests if r.after is None], max_model_len - max_tokens, thinking)
    )
    found = []
    for request in requests:
        if (before := request.after) is None:
            prompt = next(first_prompts)
            found.append(Prefix(prompt, [False] * len(prompt), [], max_tokens))
        else:
            assert request.n == 1, "a conversation continues one by one"
            assert before.finished, "a conversation continues from an answer that has ended"
            reply = reply_tokens(tokenizer, request.messages, end, thinking)
            tokens = before.tokens + reply
            max_new_tokens = min(max_tokens - before.sampled, max_model_len - len(tokens))
            found.append(Prefix(tokens, before.mask + [False] * len(reply), before.logprobs, max_new_tokens))
    return found


def tokenise(
    tokenizer: Any, conversations: Sequence[tuple[Message, ...]], max_prompt_tokens: int, thinking: bool = True
) -> list[list[int]]:
    """Return conversations as tokens, up to the opening of the model's turn.

    `thinking` is for templates that know `enable_thinking`. Raises ValueError where a conversation is longer than
    `max_prompt_tokens`.
    """
    if not conversations:
        return []
    texts = tokenizer.apply_chat_template(
        [list(messages) for messages in conversations],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=thinking,
    )
    prompts: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    longest = max(map(len, prompts))
    if longest > max_prompt_tokens:
        raise ValueError(
            f"a prompt of {longest} tokens leaves no room: "
            f"the model has {max_prompt_tokens} positions before max_tokens"
        )
    return prompts


def reply_tokens(tokenizer: Any, messages: Sequence[Message], end: set[int], thinking: bool = True) -> list[int]:
    """Return what the template writes after the model's last turn: the last of `messages`, and the next turn's opening.

    Some templates write a turn in another way once it is not the last one (Qwen3 drops its empty thought), so a
    conversation is not the beginning of a longer one. The reply is rendered alone, behind a turn that is a placeholder.
    Raises ValueError where the template cannot write a message of that role, or leaves it out.
    """
    role, content = messages[-1]["role"], messages[-1]["content"]
    try:
        text = tokenizer.apply_chat_template(
            [*messages[:-2], {"role": "assistant", "content": TURN}, messages[-1]],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=thinking,
        )
    except TemplateError as error:
        raise ValueError(f"the model's chat template cannot write a reply of the role {role}: {error}") from None
    _, placeholder, reply = text.rpartition(TURN)
    if not placeholder or content.strip() not in reply:
        raise ValueError(f"the model's chat template leaves out a reply of the role {role}")
    tokens: list[int] = tokenizer(reply, add_special_tokens=False)["input_ids"]
    return tokens[1:] if set(tokens[:1]) & end else tokens  # the model has ended its turn itself


def with_prompt(
    model: LanguageModel,
    tokenizer: Any,
    samples: Sequence[Sample],
    conversations: Sequence[tuple[Message, ...]],
    max_prompt_tokens: int,
    thinking: bool,
) -> list[Sample]:
    """Return `Policy.with_prompt`: other tokens before the first sampled one, the same from there on."""
    moved = []
    prompts = tokenise(tokenizer, conversations, max_prompt_tokens, thinking)
    for prompt, s in zip(prompts, samples, strict=True):
        first = s.mask.index(True)
        moved.append(replace(s, tokens=prompt + s.tokens[first:], mask=[False] * len(prompt) + s.mask[first:]))
    return [replace(s, logprobs=logprobs) for s, logprobs in zip(moved, model.logprobs(moved), strict=True)]


def samples_from(
    tokenizer: Any,
    requests: Sequence[SampleRequest],
    begun: Sequence[Prefix],
    completions: Sequence[Sequence[Completion]],
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
        texts = tokenizer.batch_decode(
            [completion.tokens[:-1] if completion.finished else completion.tokens for completion in group],
            skip_special_tokens=False,
        )
        found.append(
            [
                Sample(
                    tokens=prefix.tokens + completion.tokens,
                    mask=prefix.mask + [True] * len(completion.tokens),
                    logprobs=prefix.logprobs + completion.logprobs,
                    text=text,
                    finished=completion.finished,
                )
                for completion, text in zip(group, texts, strict=True)
            ]
        )
    return found
