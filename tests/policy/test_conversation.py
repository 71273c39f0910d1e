"""A chat template's text behind a turn of the model's, without that turn being written again."""

from typing import Any

import pytest

from fst_bench.core.types import Sample, SampleRequest
from fst_bench.policy import PolicySettings
from fst_bench.policy.conversation import prefixes
from fst_bench.policy.loading import load_tokenizer
from fst_bench.policy.template import Template

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


def replied(chat_template: str | None = None, last: str = "<|end|>") -> tuple[str, Any]:
    """Return what follows an answer that ended with the token `last`, once the tool has replied."""
    tokenizer = load_tokenizer("embedded:tiny")
    tokenizer.chat_template = chat_template or tokenizer.chat_template
    template = Template(tokenizer, PolicySettings())
    answer = Sample([9, *tokenizer.convert_tokens_to_ids(["7", last])], [False, True, True], [0.0, 0.0], "7", True)
    (prefix,) = prefixes(template, [SampleRequest(MESSAGES, 0, after=answer)], {tokenizer.eos_token_id}, 500, 24)
    assert prefix.tokens[:3] == answer.tokens and prefix.mask == [False, True, True] + [False] * len(prefix.tokens[3:])
    return tokenizer.decode(prefix.tokens[3:], skip_special_tokens=False), prefix.tokens[3:]


def test_the_embedded_models_template_has_replies() -> None:
    assert replied()[0] == "<|tool|>Ana Corvex.<|assistant|>"


def test_a_template_in_qwen3s_form() -> None:
    text, tokens = replied(QWEN3)
    assert text == "\n<|user|>\n<tool_response>\nAna Corvex.\n</tool_response><|end|>\n<|assistant|>\n"
    tokenizer = load_tokenizer("embedded:tiny")
    assert [t for t in tokens if t in tokenizer.all_special_ids] == tokenizer.convert_tokens_to_ids(
        ["<|user|>", "<|end|>", "<|assistant|>"]
    )


def test_an_answer_that_a_stop_string_ended_gets_its_end_token() -> None:
    assert replied(QWEN3, last="7")[0] == "<|end|>" + replied(QWEN3)[0]


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (
            loop("{% if m.role == 'tool' %}{{ raise_exception('only user and assistant') }}{% endif %}{{ m.content }}"),
            "cannot write a reply of the role tool: only user and assistant",
        ),
        (loop("{% if m.role != 'tool' %}{{ m.content }}{% endif %}"), "leaves out a reply of the role tool"),
        (loop("{% if m.role != 'assistant' %}{{ m.content }}{% endif %}"), "leaves out the model's own turn"),
    ],
)
def test_a_template_without_replies_is_named_in_one_line(template: str, complaint: str) -> None:
    tokenizer = load_tokenizer("embedded:tiny")
    tokenizer.chat_template = template
    loaded = Template(tokenizer, PolicySettings())  # other tasks need no replies
    with pytest.raises(ValueError, match=complaint) as error:
        loaded.check_replies()
    assert "\n" not in str(error.value)
