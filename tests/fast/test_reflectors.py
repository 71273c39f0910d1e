"""The extractive reflector reads gepa's own reflection prompt, and nothing else."""

import pytest
from gepa.strategies.instruction_proposal import InstructionProposalSignature as Signature
from hypothesis import given
from hypothesis import strategies as st

from fst_bench.core.types import SampleRequest
from fst_bench.fast import gepa_adapter
from fst_bench.fast.reflectors import BasePolicy, extractive, instructions, load_reflector
from fst_bench.method.ledger import Ledger
from fst_bench.method.reflection import ReflectionFailure, caught, prompt_in, replies, said
from fst_bench.method.settings import FastSettings
from fst_bench.policy.torch.backend import TorchPolicy
from fst_bench.tasks import TASKS, load_task


def reflection_prompt(current: str, feedback: list[str]) -> str:
    records = [
        {"Inputs": "Start and apply in order: 1 +1", "Generated Outputs": "#### 2", "Feedback": text}
        for text in feedback
    ]
    rendered = Signature.prompt_renderer(
        {"current_instruction_doc": current, "dataset_with_feedback": records, "prompt_template": None}
    )
    assert isinstance(rendered, str)
    return rendered


def proposal(reply: str) -> str:
    return Signature.output_extractor(reply)["new_instruction"]


def test_rules_by_hand() -> None:
    text = (
        "The answer was expected in \\boxed{}, and no value was found there. "
        "It helps to handle a single operation before the next one."
    )
    assert instructions(text) == [
        ("Present the answer in \\boxed{}.", "Deliver the answer in \\boxed{}."),
        ("Handle a single operation before the next one.", "Always handle a single operation before the next one."),
    ]
    assert instructions("The box says 4, but the right value is 5.") == []


def test_it_adds_what_the_feedback_asks_for() -> None:
    prompt = reflection_prompt(
        "You are a helpful assistant.", ["The answer was expected after ANSWER:, and nothing was found there."] * 3
    )
    proposals = {proposal(extractive(prompt, seed)) for seed in range(20)}
    assert any("ANSWER:" in p and p.startswith("You are a helpful assistant.") for p in proposals)


def test_it_drops_a_sentence_when_the_feedback_asks_for_nothing() -> None:
    prompt = reflection_prompt("Be kind. Work step by step.", ["The answer is correct."])
    assert {proposal(extractive(prompt, seed)) for seed in range(10)} == {"Be kind.", "Work step by step."}


def test_it_is_deterministic_and_short() -> None:
    prompt = reflection_prompt(" ".join(f"Sentence {i}." for i in range(9)), ["It helps to retrace the route."])
    assert extractive(prompt, 1) == extractive(prompt, 1)
    assert proposal(extractive(prompt, 1)).count(".") <= 6


@pytest.mark.parametrize("name", TASKS)
def test_it_finds_an_instruction_in_every_tasks_feedback(name: str) -> None:
    task = load_task(name, **TASKS[name].levels[1])
    problem = task.problems("train", 0, 1)[0]
    wanted = 3 if name == "hover-search" else 2  # the protocol, the hint, and that there is a tool
    assert len(instructions(task.verify(problem, "no idea").feedback)) == wanted


def test_a_prompt_without_an_instruction_is_a_failure() -> None:
    with pytest.raises(ReflectionFailure):
        extractive("no fence in here", 0)


def test_the_base_policy_can_reflect(policy: TorchPolicy) -> None:
    ledger = Ledger()
    reflector = BasePolicy(policy, ledger)
    request = SampleRequest(({"role": "user", "content": "Write a new instruction."},), 0)
    ((sample,),) = policy.reference.sample([request])
    assert sample.finished
    assert [reflector.reflect_many(["Write a new instruction."], [0]) for _ in range(2)] == [[sample.text]] * 2
    assert ledger.reflection_prompt_tokens == 2 * (len(sample.tokens) - sample.sampled) > 0
    assert ledger.reflection_sampled_tokens == 2 * sample.sampled > 0
    spent = ledger.counts()
    (failure,) = reflector.reflect_many(["1 " * 3000], [0])
    assert isinstance(failure, ReflectionFailure) and "too long" in str(failure)
    assert ledger.counts() == spent and ledger.reflection_usd == 0.0


@pytest.mark.parametrize("long", [(), (0,), (2,), (1, 2), (0, 4), (0, 1, 2, 3, 4)])
def test_what_is_too_long_for_the_base_policy_fails_alone(policy: TorchPolicy, long: tuple[int, ...]) -> None:
    """Whatever is asked alongside it, a prompt gets the reply that it gets alone, and the ledger the same tokens."""
    prompts = ["1 " * 3000 if i in long else f"Write {i} new instructions." for i in range(5)]
    together, alone = BasePolicy(policy, Ledger()), BasePolicy(policy, Ledger())
    found = together.reflect_many(prompts, range(5))
    expected = [alone.reflect_many([prompt], [i])[0] for i, prompt in enumerate(prompts)]
    assert [i for i, reply in enumerate(found) if str(reply) == "reflection prompt too long"] == list(long)
    assert list(map(str, found)) == list(map(str, expected)) and together.ledger.counts() == alone.ledger.counts()


def test_unknown_reflectors_are_named(policy: TorchPolicy) -> None:
    known = r"unknown reflector 'extractve': there are base-policy, extractive, a LiteLLM .* fast.reflection.base_url"
    with pytest.raises(ValueError, match=known):
        load_reflector(FastSettings(reflector="extractve"), policy, Ledger())


# --- what a reflector says


def read(reply: str) -> str:
    """The new prompt in a reply, or the reason why there is none."""
    (found,) = replies(lambda prompt, seed: reply, ["a reflection prompt"], [0])
    return str(found if isinstance(found, ReflectionFailure) else caught(prompt_in, found))


F = "```"
BLOCK = f"{F}\nBe brief.\n{F}"
IN_THOUGHT, IN_FENCE = "reply ends inside its thought", "reply ends inside its fence"


@pytest.mark.parametrize(
    "reply",
    [
        "Be brief.",
        BLOCK,
        f"Sure:\n\n{F}markdown\r\nBe brief.\r\n{F}\r\nI hope that it helps!",
        f"The instruction:{F}\nBe brief.\n{F}",
        f"{F}Be brief.{F}",
        "~~~text\nBe brief.\n~~~",
        "````\nBe brief.\n````",
        f"{F}text\nold\n{F}\nBetter:\n{F}text\nBe brief.\n{F}",
        # thoughts, with drafts in them
        f"<think>\n{F}\ndraft\n{F}\nNo.</think>\n\n{BLOCK}",
        f"<thinking>{F}</thinking>{BLOCK}",
        f"[THINK]<think>[/THINK]{BLOCK}",
        f"Hm.<think>a</think><think>b</think>\n{BLOCK}",
        f"I begin with\n{F}\ndraft\n{F}\nNo.\n</think>\n{BLOCK}",  # the template had begun the thought
        f"<|channel|>analysis<|message|>{F}draft{F}<|end|><|start|>assistant<|channel|>final<|message|>{BLOCK}",
        "<think>x</think>Be brief.",
    ],
)
def test_the_prompt_in_a_reply(reply: str) -> None:
    assert read(reply) == "Be brief."


@pytest.mark.parametrize(
    ("reply", "prompt"),
    [
        (f"{F}\nBe\n{F}python\nx\n{F}\nbrief.\n{F}", f"Be\n{F}python\nx\n{F}\nbrief."),
        (f"{F}\nBe\n{F}\nx\n{F}\nbrief.\n{F}", f"Be\n{F}\nx\n{F}\nbrief."),
        (f"````text\nBe\n{F}python\nx\nbrief.\n````", f"Be\n{F}python\nx\nbrief."),
        (f"~~~\nBe\n{F}\nbrief.\n~~~", f"Be\n{F}\nbrief."),
        (f"{F}\nUse {F}python here.\n{F}\nBye", f"Use {F}python here."),
        (f"{F}\nThink in <think> and </think>.\n{F}", "Think in <think> and </think>."),
        (f"{F}\nClose it with </think>.\n{F}", "Close it with </think>."),
        (f"{F}\n\ud83d\ude00 \ud83d \x00\x1b[1m\n{F}", "\U0001f600 \ufffd \ufffd\ufffd[1m"),
        (f"{F}\n{F}", ""),
        ("<think>x</think>", ""),
    ],
)
def test_a_prompt_may_hold_fences_and_tags(reply: str, prompt: str) -> None:
    assert read(reply) == prompt


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (f"<think>\n{BLOCK}", IN_THOUGHT),
        (f"<think>a</think><think>{BLOCK}", IN_THOUGHT),
        ("<|channel|>analysis<|message|>I would say: be brief.", IN_THOUGHT),
        (f"Here it is:\n{F}", IN_FENCE),
        (f"{F}\nBe bri", IN_FENCE),
        (f"{F}text\nBe bri", IN_FENCE),
        (f"{F}\nBe\n{F}python\nx\n{F}\nbri", IN_FENCE),
        (f"{F}\nBe\n{F}python\nx", IN_FENCE),
        (f"~~~\nBe\n{F}\nbri", IN_FENCE),
    ],
)
def test_what_was_cut_off_is_no_prompt(reply: str, reason: str) -> None:
    assert read(reply) == reason


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="`~<["), min_size=1))
def test_a_plain_block_is_read_as_gepa_reads_it(text: str) -> None:
    for reply in (text, f"{F}\n{text}\n{F}", f"So:\n{F}text\n{text}\n{F}\nBye."):
        assert read(reply) == Signature.output_extractor(reply.strip())["new_instruction"].strip()


PIECES = ["word", "```", "````", "~~~", "```text\n", "\n", " ", "\r", "\x00", "\x1b", "\ud800", "\udfff", "<think>"]
PIECES += [
    "</think>",
    "[THINK]",
    "[/THINK]",
    "<|channel|>analysis",
    "<|channel|>final<|message|>",
    "<|im_end|>",
    "<|user|>",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(st.characters(), max_size=3), max_size=25).map("".join))
def test_whatever_is_said_is_a_text_or_a_failure(reply: str) -> None:
    prompt = read(reply)
    assert prompt.encode().decode() == prompt and not {"\x00", "\x1b", "\r"} & set(prompt)
    if not set("`~<[") & set(reply):
        assert prompt == said(reply).strip()  # nothing is lost


@given(
    st.text("ab. `\n", max_size=30).map(str.strip),
    st.lists(st.text("x`\n", max_size=12), min_size=1, max_size=3),
    st.integers(0, 99),
)
def test_a_reflection_prompt_holds_its_blocks_whole(current: str, answers: list[str], seed: int) -> None:
    """Fences in the prompt or in answers end no block, and without any it is gepa's own, as runs have it."""
    records = [{"Inputs": "1 +1", "Generated Outputs": a, "Feedback": "The answer is correct."} for a in answers]
    prompt = gepa_adapter.reflection_prompt(current, records)
    if F not in current + "".join(answers):
        parts = {"current_instruction_doc": current, "dataset_with_feedback": records, "prompt_template": None}
        assert prompt == Signature.prompt_renderer(parts)
    kept = [s for s in current.replace("\n", " ").split(". ") if s]
    if len(kept) == 1 and "." not in current.replace("\n", " ")[:-1]:  # one sentence: nothing can be left out
        assert read(extractive(prompt, seed)) == current
