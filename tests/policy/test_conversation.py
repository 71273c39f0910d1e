"""A chat template's text behind a turn of the model's, without that turn being written again."""

from typing import Any

import pytest

from fst_bench.policy.conversation import reply_tokens
from fst_bench.policy.loading import load_tokenizer

MESSAGES = (
    {"role": "user", "content": "7"},
    {"role": "assistant", "content": "\ue000<think>?</think><|end|>"},
    {"role": "tool", "content": "Ana Corvex."},
)
QWEN3 = (
    "{% for m in messages %}"
    "{% if m.role == 'tool' %}<|user|>\n<tool_response>\n{{ m.content }}\n</tool_response><|end|>\n"
    "{% elif m.role == 'assistant' %}<|assistant|>\n"
    "{% if loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|end|>\n"
    "{% else %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""As Qwen3's: a tool's reply is a user's, and only the last turn of the model's has an empty thought in front."""


def loop(body: str) -> str:
    """Return the template that writes `body` for each message m."""
    return f"{{% for m in messages %}}{body}{{% endfor %}}"


def replied(template: str | None = None) -> tuple[str, Any]:
    tokenizer = load_tokenizer("embedded:tiny")
    tokenizer.chat_template = template or tokenizer.chat_template
    tokens = reply_tokens(tokenizer, MESSAGES, {tokenizer.eos_token_id})
    return tokenizer.decode(tokens, skip_special_tokens=False), tokens


def test_the_embedded_models_template_has_replies() -> None:
    assert replied()[0] == "<|tool|>Ana Corvex.<|assistant|>"


def test_a_template_in_qwen3s_form() -> None:
    text, tokens = replied(QWEN3)
    assert text == "\n<|user|>\n<tool_response>\nAna Corvex.\n</tool_response><|end|>\n<|assistant|>\n"
    tokenizer = load_tokenizer("embedded:tiny")
    assert [t for t in tokens if t in tokenizer.all_special_ids] == tokenizer.convert_tokens_to_ids(
        ["<|user|>", "<|end|>", "<|assistant|>"]
    )


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (
            loop("{% if m.role == 'tool' %}{{ raise_exception('only user and assistant') }}{% endif %}{{ m.content }}"),
            "cannot write a reply of the role tool: only user and assistant",
        ),
        (loop("{% if m.role != 'tool' %}{{ m.content }}{% endif %}"), "leaves out a reply of the role tool"),
        (loop("{% if m.role == 'tool' %}{{ m.content }}{% endif %}"), "leaves out a reply of the role tool"),
    ],
)
def test_a_template_without_replies_is_named_in_one_line(template: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        replied(template)
