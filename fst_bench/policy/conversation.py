"""Conversations as tokens, the same for every backend: where sampling starts, how far it may go, and the Sample it becomes.

What was sampled is never tokenised again: where a conversation goes on, the reply's tokens are put behind the tokens that are there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from jinja2 import TemplateError

from fst_bench.errors import NotFinite

from .base import Ask, Message, Policy, Sample

TURN = "\ue000"
"""Stands for a turn of the model's where a template is asked what it writes after one."""
Drawn = tuple[list[int], list[float], bool]
"""Sampled tokens, their log-probabilities, and whether the last one ends the turn."""


@dataclass(frozen=True)
class Start:
    """Where an ask's sampling starts. `room` is the most tokens it may sample; without any, nothing is."""

    tokens: list[int]
    mask: list[bool]
    logprobs: list[float]
    room: int


def starts(tokenizer: Any, asks: Sequence[Ask], end: set[int], positions: int, max_tokens: int, thinking: bool = True) -> list[Start]:
    """ValueError where a first prompt leaves no room for `max_tokens`, or the chat template cannot write a reply."""
    fresh = iter(written(tokenizer, [ask.messages for ask in asks if ask.after is None], positions - max_tokens, thinking))
    found = []
    for ask in asks:
        if (said := ask.after) is None:
            prompt = next(fresh)
            found.append(Start(prompt, [False] * len(prompt), [], max_tokens))
        else:
            assert ask.n == 1 and said.finished, "a conversation goes on one by one, from an answer that was ended"
            reply = reply_tokens(tokenizer, ask.messages, end, thinking)
            tokens = said.tokens + reply
            room = min(max_tokens - said.sampled, positions - len(tokens))
            found.append(Start(tokens, said.mask + [False] * len(reply), said.logprobs, room))
    return found


def written(tokenizer: Any, conversations: Sequence[tuple[Message, ...]], room: int, thinking: bool = True) -> list[list[int]]:
    """The conversations as tokens. ValueError where one is longer than `room`. `thinking` is for templates that know `enable_thinking`."""
    if not conversations:
        return []
    texts = tokenizer.apply_chat_template(
        [list(messages) for messages in conversations], tokenize=False, add_generation_prompt=True, enable_thinking=thinking
    )  # fmt: skip
    prompts: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    longest = max(map(len, prompts))
    if longest > room:
        raise ValueError(f"a prompt of {longest} tokens leaves no room: the model has {room} positions before max_tokens")
    return prompts


def reply_tokens(tokenizer: Any, messages: Sequence[Message], end: set[int], thinking: bool = True) -> list[int]:
    """What the template writes after the model's last turn: the last of `messages`, and the opening of the next turn.

    Some templates write a turn in another way once it is not the last one (Qwen3 drops its empty thought), so a conversation is not the
    beginning of a longer one. The rest is asked for alone, behind a turn that is a placeholder.
    """
    try:
        text = tokenizer.apply_chat_template(
            [*messages[:-2], {"role": "assistant", "content": TURN}, messages[-1]],
            tokenize=False, add_generation_prompt=True, enable_thinking=thinking,
        )  # fmt: skip
    except TemplateError as error:
        raise ValueError(f"the model's chat template cannot write a reply of the role {messages[-1]['role']}: {error}") from None
    _, found, rest = text.rpartition(TURN)
    if not found or messages[-1]["content"].strip() not in rest:
        raise ValueError(f"the model's chat template leaves out a reply of the role {messages[-1]['role']}")
    tokens: list[int] = tokenizer(rest, add_special_tokens=False)["input_ids"]
    return tokens[1:] if set(tokens[:1]) & end else tokens  # the model has ended its turn itself


def retold(
    policy: Policy, tokenizer: Any, samples: Sequence[Sample], conversations: Sequence[tuple[Message, ...]], room: int, thinking: bool
) -> list[Sample]:
    """See `Policy.retold`: other tokens before the first sampled one, the same from there on."""
    moved = []
    for prompt, s in zip(written(tokenizer, conversations, room, thinking), samples, strict=True):
        first = s.mask.index(True)
        moved.append(replace(s, tokens=prompt + s.tokens[first:], mask=[False] * len(prompt) + s.mask[first:]))
    return [replace(s, logprobs=logprobs) for s, logprobs in zip(moved, policy.logprobs(moved), strict=True)]


def samples_of(tokenizer: Any, asks: Sequence[Ask], begun: Sequence[Start], drawn: Sequence[Sequence[Drawn]]) -> list[list[Sample]]:
    """Each ask's samples, of what was drawn for those that had room. NotFinite where weights gave no number."""
    out: list[list[Sample]] = []
    groups = iter(drawn)
    for ask, start in zip(asks, begun, strict=True):
        if ask.after is not None and start.room < 1:
            out.append([replace(ask.after, finished=False)])
            continue
        group = next(groups)
        if not all(isfinite(lp) for _, logprobs, _ in group for lp in logprobs):
            raise NotFinite("a log-probability of a sampled token is not finite")
        texts = tokenizer.batch_decode([tokens[:-1] if ended else tokens for tokens, _, ended in group], skip_special_tokens=False)
        out.append([
            Sample(start.tokens + tokens, start.mask + [True] * len(tokens), start.logprobs + logprobs, text, ended)
            for (tokens, logprobs, ended), text in zip(group, texts, strict=True)
        ])  # fmt: skip
    return out
