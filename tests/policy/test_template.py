"""What a chat template does to a conversation is known when the model is loaded, and every text stays a text."""

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from itertools import takewhile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing

import fst_bench
from fst_bench.core.types import THOUGHTS, Completion, Message
from fst_bench.harness.config import resolve
from fst_bench.harness.loop import Callback
from fst_bench.method.lab import conversation
from fst_bench.policy import PolicySettings
from fst_bench.policy.loading import load_tokenizer
from fst_bench.policy.models import model_folder
from fst_bench.policy.template import BREAK, TURN, Template, encodable
from fst_bench.tasks import load_task
from fst_bench.tasks.base import answer_of
from fst_bench.tasks.stream import Stream, stream_files

TINY = (Path(model_folder("embedded:tiny")) / "chat_template.jinja").read_text()
OPEN = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
GEMMA = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "<|{{ m.role }}|>\n{{ m.content | trim }}<|end|>\n{% endfor %}" + OPEN
)
DROPS = TURNS.replace("in messages", "in messages if m.role != 'system'") + OPEN
MISTRAL = (
    "{% set text = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>"
    "{% if loop.last and text %}{{ text + '\n\n' }}{% endif %}{{ m.content }}{% endfor %}" + OPEN
)
CHATML = (
    "{% if messages[0].role != 'system' %}<|system|>system\nYou are a helpful model.<|end|>\n{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.role + '\n' + m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>assistant\n{% endif %}"
)
R1 = TINY.replace("'<|assistant|>' }}", "'<|assistant|><think>\n' }}")
PLAIN = PolicySettings(template="plain")


def made(chat_template: str | None, settings: PolicySettings | None = None, **tokens: str) -> Template:
    """Return the template of the embedded model's tokenizer with another chat template and other special tokens."""
    tokenizer = load_tokenizer("embedded:tiny")
    tokenizer.chat_template = chat_template
    for name, token in tokens.items():
        setattr(tokenizer, name, token)
    return Template(tokenizer, settings or PolicySettings(), "m")


def written(template: Template, *texts: str) -> str:
    """Return what the model reads of (context,) problem: the tokens of the prompt as text."""
    *context, problem = texts
    (prompt,) = template.prompts([conversation("".join(context), problem)])
    return template.tokenizer.decode(prompt.tokens, skip_special_tokens=False)


# --- what a template writes


def test_the_shipped_streams_prompts_are_what_they_were() -> None:
    """Digest by transformers' own rendering and tokens, before a template was looked at."""
    template = made(TINY)
    digests = {}
    for name in ("continual-5", "continual-4-formats-given", "paper-3", "protocol-drift", "single-hover-search"):
        config, spec = resolve(name, "base", "tiny")
        stream = Stream(spec, 0, config.difficulty, config.stage_problems, config.data)
        contexts = ("", config.seed_prompt, "Work step by step.\nPut the final answer inside \\boxed{}.")
        problems = [stream.problem(i).prompt for stage in stream.stages for i in range(stage.start, stage.start + 3)]
        prompts = template.prompts([conversation(context, text) for text in problems for context in contexts])
        digests[name] = hashlib.sha256(json.dumps([p.tokens for p in prompts]).encode()).hexdigest()[:12]
    assert template.notes == [] and len(stream_files()) > len(digests)
    assert digests == {
        "continual-5": "22a4e3355764",
        "continual-4-formats-given": "e155475265b9",
        "paper-3": "c686371cd73b",
        "protocol-drift": "9a735af82303",
        "single-hover-search": "757c9624a40e",
    }


@pytest.mark.parametrize(
    ("chat_template", "note", "with_context", "without"),
    [
        (TINY, None, "<|system|>C<|user|>P<|assistant|>", "<|user|>P<|assistant|>"),
        (
            GEMMA,
            "accepts no system role (System role not supported)",
            "<|user|>\nC\n\nP<|end|>\n<|assistant|>",
            "<|user|>\nP<|end|>\n<|assistant|>",
        ),
        (DROPS, "leaves the system role out", "<|user|>C\n\nP<|end|><|assistant|>", "<|user|>P<|end|><|assistant|>"),
        (MISTRAL, None, "<|user|>C\n\nP<|assistant|>", "<|user|>P<|assistant|>"),
        (
            CHATML,
            None,
            "<|system|>system\nC<|end|>\n<|user|>user\nP<|end|>\n<|assistant|>assistant\n",
            "<|system|>system\nYou are a helpful model.<|end|>\n<|user|>user\nP<|end|>\n<|assistant|>assistant\n",
        ),
    ],
)
def test_a_context_reaches_the_model(chat_template: str, note: str | None, with_context: str, without: str) -> None:
    template = made(chat_template)
    assert written(template, "C", "P") == with_context and written(template, "P") == without
    if note is None:
        assert template.notes == []
    else:
        (said,) = template.notes
        assert note in said and "\n" not in said


@pytest.mark.parametrize(
    ("chat_template", "why"),
    [
        ("{{ raise_exception('no\nway') }}", "no"),
        ("{% for m in messages %}", "end of template"),
        ("{{ 'a' + 1 }}", "concatenate"),
        ("{{ messages[0].content.nothing.more }}", "nothing"),
        (TURNS.replace("{{ m.content }}", "") + OPEN, "leaves out the text of the user's turn"),
        # content as a list of parts, as models of images have it
        ("{% for m in messages %}{% for part in m.content %}{{ part['text'] }}{% endfor %}{% endfor %}", "leaves out"),
        (None, "has no chat template: a base model needs policy.template=plain"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(chat_template: str | None, why: str) -> None:
    with pytest.raises(ValueError) as error:
        made(chat_template)
    assert why in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_bos_comes_as_the_template_has_it_but_never_twice(times: int) -> None:
    template = made("{{ bos_token }}" * times + TINY, bos_token="<|pad|>")
    template.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|pad|> $A", special_tokens=[("<|pad|>", 0)]
    )
    assert template.tokenizer("7")["input_ids"][0] == 0  # the tokenizer would write one too
    assert written(template, "C", "P") == "<|pad|>" * min(times, 1) + "<|system|>C<|user|>P<|assistant|>"
    assert len(template.notes) == (times > 1)


def test_a_mark_of_turns_that_is_bos_stays() -> None:
    """As SmolLM2's, whose <|im_start|> is its BOS token."""
    assert written(made(TINY, bos_token="<|user|>"), "P") == "<|user|>P<|assistant|>"


def test_a_prompt_does_not_depend_on_the_day() -> None:
    template = made("{{ strftime_now('%d %b %Y') }}" + TINY)
    assert written(template, "P") == "26 Jul 2024<|user|>P<|assistant|>"


# --- thoughts


@pytest.mark.parametrize("tag", THOUGHTS)
@pytest.mark.parametrize("space", ["", "\n"])
def test_an_answer_begins_inside_the_thought_that_the_template_opened(tag: str, space: str) -> None:
    template = made(R1.replace("<think>\n", tag + space))
    (prompt,) = template.prompts([conversation("", "P")])
    assert prompt.opened == tag + space
    task = load_task("math")
    problem = task.problem("test", 0, 0)
    right = task.write(problem.answer)
    assert task.verify(problem, right).reward == 1
    cut_off = task.verify(problem, prompt.opened + right)
    assert (cut_off.reward, cut_off.status) == (0, "unparseable") and "never closed" in cut_off.feedback
    assert task.verify(problem, f"{prompt.opened}hm{THOUGHTS[tag]}{right}").reward == 1
    assert answer_of(f"{prompt.opened}7{THOUGHTS[tag]}\n8") == "\n8"


def test_a_thought_that_the_template_closed_is_not_open() -> None:
    qwen3 = TINY + "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    for thinking in (True, False):
        (prompt,) = made(qwen3, PolicySettings(thinking=thinking)).prompts([conversation("<think>", "<think>")])
        assert prompt.opened == ""


def test_a_later_turn_begins_inside_its_thought_too() -> None:
    turns = [{"role": "user", "content": "7"}, {"role": "assistant", "content": ""}, {"role": "tool", "content": "A"}]
    assert made(R1).reply(turns).opened == "<think>\n" and made(TINY).reply(turns).opened == ""


# --- base models

PLAIN_TEMPLATE = made(None, PLAIN.model_copy())


def test_plain_text_has_the_words_of_the_settings() -> None:
    template = made(None, PLAIN)
    assert written(template, "C", "P") == "C\n\nProblem: P\nSolution:"
    assert written(template, "P") == "Problem: P\nSolution:"
    assert (
        written(template, "{user}{system}\\1", "{system}{0}") == "{user}{system}\\1\n\nProblem: {system}{0}\nSolution:"
    )
    assert written(made(None, PLAIN.model_copy(update={"wording": "Q: {user}\n{system}\nA:"})), "7") == "Q: 7\nA:"
    with pytest.raises(ValueError, match="needs a chat template"):
        template.check_replies()
    with pytest.raises(ValueError):
        PolicySettings(template="plain", wording="Problem: {problem}")


def test_a_wording_without_a_context_has_it_in_the_problem() -> None:
    template = made(TINY, PolicySettings(template="plain", wording="Problem: {user}\nSolution:"))
    assert written(template, "C", "P") == "Problem: C\n\nP\nSolution:" and len(template.notes) == 1


def test_plain_text_begins_with_bos_where_the_tokenizer_writes_one() -> None:
    tokenizer = load_tokenizer("embedded:tiny")
    tokenizer.bos_token = "<|pad|>"
    assert written(Template(tokenizer, PLAIN), "P") == "Problem: P\nSolution:"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|pad|> $A", special_tokens=[("<|pad|>", 0)]
    )
    assert written(Template(tokenizer, PLAIN), "P") == "<|pad|>Problem: P\nSolution:"


@given(st.text("ab =\n\u00e9\U0001f600#7", min_size=1), st.data())
def test_a_stop_string_ends_an_answer_wherever_tokens_end(text: str, data: st.DataObject) -> None:
    """A stop string lies inside a token, in several, or in bytes of a character that has no token of its own."""
    begins = data.draw(st.integers(0, len(text) - 1))
    some = text[begins : begins + data.draw(st.integers(1, 4))]
    template = PLAIN_TEMPLATE
    stops = (some, data.draw(st.sampled_from(["=", "never there", "\n\n"])))
    (tokens,) = template.encode([text])
    decoded = [template.tokenizer.decode(tokens[:n]) for n in range(1, len(tokens) + 1)]
    n = next(i for i, begun in enumerate(decoded, 1) if any(stop in begun for stop in stops))
    assert [template.stopped(tokens[:i], stops) for i in range(1, n + 1)] == [False] * (n - 1) + [True]
    # an engine may notice late
    found, answer = template.answer(Completion(tokens, [0.0] * len(tokens), False), stops)
    assert found == Completion(tokens[:n], [0.0] * n, True)
    assert answer == text[: len(answer)] and text[len(answer) :].startswith(stops)
    assert not any(stop in answer for stop in stops)


# --- texts stay texts

PIECES = [
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<|",
    "|>",
    "end",
    "<",
    "<｜User｜>",
    " ",
    "\n",
    "7",
    TURN,
    BREAK,
    "é",
]


def special(template: Template, messages: tuple[Message, ...]) -> list[int]:
    (prompt,) = template.prompts([messages])
    return [token for token in prompt.tokens if token in template.tokenizer.added_tokens_decoder]


ONCE = {chat_template: made(chat_template) for chat_template in (TINY, CHATML, GEMMA)}


@pytest.mark.parametrize("chat_template", ONCE)
@given(st.lists(st.sampled_from(PIECES)).map("".join), st.lists(st.sampled_from(PIECES)).map("".join))
def test_no_text_becomes_a_control_token(chat_template: str, context: str, problem: str) -> None:
    template = ONCE[chat_template]
    harmless = special(template, conversation("C" if context else "", "P"))
    assert special(template, conversation(context, problem)) == harmless
    if chat_template == TINY:
        text = "".join(f"<|{m['role']}|>{encodable(m['content'])}" for m in conversation(context, problem))
        assert written(template, context, problem) == f"{text}<|assistant|>"


def test_a_mark_of_turns_that_is_not_called_special_stays_text() -> None:
    """As DeepSeek-R1's, whose marks are added tokens like any others; Gemma's long spaces are added tokens too."""
    tokenizer = load_tokenizer("embedded:tiny")
    tokenizer.add_tokens([AddedToken("<｜User｜>"), AddedToken("\n\n"), AddedToken("<tool_call>")])
    tokenizer.chat_template = TINY.replace("'<|' + m['role'] + '|>'", "'<｜User｜>\n\n'")
    template = Template(tokenizer, PolicySettings())
    mark, lines, call = tokenizer.convert_tokens_to_ids(["<｜User｜>", "\n\n", "<tool_call>"])
    found = special(template, conversation("", "a\n\n<｜User｜>\n\n<tool_call>"))
    assert found == [mark, lines, lines, lines, call, tokenizer.convert_tokens_to_ids("<|assistant|>")]


def test_a_tools_reply_is_a_text() -> None:
    turns = [
        {"role": "user", "content": f"7{TURN}"},
        {"role": "assistant", "content": f"<|end|>{TURN}"},
        {"role": "tool", "content": f"A<|user|>{TURN}\ud83d"},
    ]
    template = made(TINY)
    tokens = template.reply(turns).tokens
    assert template.tokenizer.decode(tokens) == "<|end|><|tool|>A<|user|>\ufffd\ufffd<|assistant|>"
    special = [t for t in tokens if t in template.tokenizer.all_special_ids]
    assert special == template.tokenizer.convert_tokens_to_ids(["<|end|>", "<|assistant|>"])


@given(st.text(st.characters(categories=["L", "Cs", "So"])))
def test_what_can_be_encoded_stays(text: str) -> None:
    clean = encodable(text)
    clean.encode()
    assert encodable(clean) == clean
    same = "".join(takewhile(lambda c: not "\ud800" <= c <= "\udfff", text))
    assert clean.startswith(same)


def test_lone_surrogates_become_one_character_each() -> None:
    assert encodable("a\udc80b\ud83dc\ud83d") == "a\ufffdb\ufffdc\ufffd"
    assert encodable("\ud83d\ude00") == "\U0001f600"  # as JSON escapes have it: a pair is a character


# --- whole runs


class Notes(Callback):
    """What was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def on_note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def model(tmp_path: Path) -> Callable[[str | None], str]:
    """Return a maker of folders with the embedded model and another chat template."""

    def folder(chat_template: str | None) -> str:
        made = tmp_path / "model"
        shutil.copytree(model_folder("embedded:tiny"), made)
        (made / "chat_template.jinja").unlink()
        if chat_template is not None:
            (made / "chat_template.jinja").write_text(chat_template)
        return str(made)

    return folder


@pytest.mark.parametrize(
    ("chat_template", "template", "notes"), [(GEMMA, "chat", 1), (R1, "chat", 0), (None, "plain", 0)]
)
def test_a_run(
    chat_template: str | None, template: str, notes: int, model: Callable[[str | None], str], tmp_path: Path
) -> None:
    callback = Notes()
    run = fst_bench.run(
        "single-math",
        "rl",
        tmp_path / "out",
        preset="smoke",
        callback=callback,
        model=model(chat_template),
        seed_prompt="Say <|end|>.",
        policy={"template": template},
        stage_problems=4,
        evaluation={"boundary": 2, "small": 2},
        batch=2,
    )
    assert len(callback.said) == notes
    rollouts = [json.loads(line) for line in (run.path / "rollouts.jsonl").read_text().splitlines()]
    texts = [row["text"] for row in rollouts]
    assert texts and all(text.startswith("<think>\n") == (chat_template == R1) for text in texts)
    if chat_template == R1:  # the embedded model closes no thought
        assert {row["status"] for row in rollouts if "</think>" not in row["text"]} == {"unparseable"}
    if template == "plain":
        assert not any("\n" in text for text in texts)


def test_what_a_template_cannot_do_is_said_before_a_run_is_made(
    model: Callable[[str | None], str], tmp_path: Path
) -> None:
    folder = model(GEMMA)
    start = partial(fst_bench.run, method="rl", out=tmp_path / "out", preset="smoke", model=folder)
    with pytest.raises(ValueError, match="cannot write a reply of the role tool: Conversation roles must alternate"):
        start("single-hover-search")
    with pytest.raises(ValueError, match="a task with a tool needs a chat template"):
        start("single-hover-search", policy={"template": "plain"})
    (Path(folder) / "chat_template.jinja").write_text("{{ raise_exception('never') }}")
    with pytest.raises(ValueError, match="cannot be used: never"):
        start("single-math")
    assert not (tmp_path / "out").exists()
