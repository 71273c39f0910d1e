"""The extractive reflector reads gepa's own reflection prompt, and nothing else."""

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from gepa.strategies.instruction_proposal import InstructionProposalSignature as Signature
from hypothesis import given
from hypothesis import strategies as st

from fst_bench.core.types import SampleRequest
from fst_bench.fast import gepa_adapter
from fst_bench.fast.bank import MAX_SENTENCES, WORDINGS, bank, chosen, likeness, sentences
from fst_bench.fast.demonstrations import Demonstrations
from fst_bench.fast.reflectors import BasePolicy, extractive, instructions, load_reflector
from fst_bench.harness.config import load_preset
from fst_bench.method.ledger import Ledger
from fst_bench.method.reflection import SENTENCE, ReflectionFailure, caught, prompt_in, replies, said
from fst_bench.method.settings import BasePolicySettings, FastSettings
from fst_bench.policy import PolicySettings
from fst_bench.policy.loading import load_tokenizer
from fst_bench.policy.template import Template
from fst_bench.policy.torch.backend import TorchPolicy
from fst_bench.tasks import TASKS, load_task
from fst_bench.tasks.base import CORRECT
from fst_bench.tasks.base import WRONG as VERDICT_ALONE


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
    reflector = BasePolicy(policy, ledger, BasePolicySettings())
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
    together, alone = (BasePolicy(policy, Ledger(), BasePolicySettings()) for _ in range(2))
    found = together.reflect_many(prompts, range(5))
    expected = [alone.reflect_many([prompt], [i])[0] for i, prompt in enumerate(prompts)]
    assert [i for i, reply in enumerate(found) if str(reply) == "reflection prompt too long"] == list(long)
    assert list(map(str, found)) == list(map(str, expected)) and together.ledger.counts() == alone.ledger.counts()


def test_the_base_policys_replies_have_a_length_and_stops_of_their_own(policy: TorchPolicy) -> None:
    def replies_of(**settings: Any) -> list[str]:
        reflector = BasePolicy(policy, Ledger(), BasePolicySettings(**settings))
        return [str(reply) for reply in reflector.reflect_many(["Write a new instruction."] * 8, range(8))]

    usual = replies_of()
    cut = [replies_of(max_tokens=n).count("reply cut off") for n in (3, 200)]
    assert cut[0] > usual.count("reply cut off") >= cut[1]
    ended = dict(zip(usual, replies_of(stop=[" "]), strict=True))
    ended.pop("reply cut off", None)
    assert all(short == reply.split(" ")[0] for reply, short in ended.items()) and len(ended) > 3
    policy.settings.stop = (" ",)  # ends answers, and no replies
    try:
        assert replies_of() == usual
    finally:
        policy.settings.stop = None


# --- worked examples

TEMPLATE = Template(load_tokenizer("embedded:tiny"), PolicySettings())
RIGHT, WRONG = "The answer is correct.", "The box says 4, but the right value is 5."


def rollouts(*given: tuple[str, str, str]) -> list[dict[str, str]]:
    return [{"Inputs": p, "Generated Outputs": a, "Feedback": f} for p, a, f in given]


def demonstrated(current: str, records: list[dict[str, str]], seeds: Iterable[int], max_tokens: int = 512) -> set[str]:
    """The prompts that the reflector proposes, as gepa's round reads them."""
    reflector = Demonstrations(TEMPLATE, max_tokens)
    prompt = gepa_adapter.reflection_prompt(current, records)
    found = [replies(reflector, [prompt], [seed])[0] for seed in seeds]
    assert list(map(str, found)) == [str(replies(reflector, [prompt], [seed])[0]) for seed in seeds]
    return {str(reply) if isinstance(reply, ReflectionFailure) else prompt_in(reply) for reply in found}


def test_a_right_answer_becomes_a_worked_example() -> None:
    records = rollouts(("1 + 1 = ?", "\\boxed{2}", RIGHT), ("2 + 3 = ?", "\\boxed{4}", WRONG))
    one = "Problem: 1 + 1 = ?\nSolution: \\boxed{2}"
    assert demonstrated("Solve it.", records, range(9)) == {f"Solve it.\n\n{one}"}
    # it is an example already: nothing to add, and one cannot change places with itself
    assert demonstrated(f"Solve it.\n\n{one}", records, range(9)) == {"no right answer to show"}
    assert demonstrated("Solve it.", records[1:], range(9)) == {"no right answer to show"}


def test_examples_are_added_dropped_replaced_and_reordered() -> None:
    a, b, c = (f"Problem: {x}\n{x}\nSolution: say {x}\nand {x}" for x in "abc")
    records = rollouts(("c\nc", "say c\nand c", RIGHT))
    found = demonstrated(f"Solve.\n\n{a}\n\n{b}", records, range(80))
    orders = ["abc", "cb", "ac", "a", "b", "ba"]
    examples = dict(zip("abc", (a, b, c), strict=True))
    assert found == {"\n\n".join(["Solve.", *(examples[x] for x in order)]) for order in orders}


def test_examples_have_a_budget_of_tokens() -> None:
    new = rollouts(("new", "yes", RIGHT))
    old = "\n\n".join(f"Problem: old {i}\nSolution: no" for i in range(3))
    one = len(TEMPLATE.encode(["Problem: old 1\nSolution: no"])[0])
    found = demonstrated(old, new, range(60), max_tokens=2 * one + 2)
    assert all(prompt.count("Problem:") <= 2 for prompt in found)
    assert "Problem: old 2\nSolution: no\n\nProblem: new\nSolution: yes" in found
    assert demonstrated("Solve.", new, range(5), max_tokens=3) == {"no right answer to show"}


@given(
    st.lists(st.tuples(st.text("ab#`\n :Problem", min_size=1), st.text("xy`\n #", min_size=1)), max_size=3),
    st.text("ab `#\n"),
)
def test_whatever_the_texts_hold_a_reply_is_a_prompt_or_a_failure(
    answered: list[tuple[str, str]], current: str
) -> None:
    records = rollouts(*((problem, answer, RIGHT) for problem, answer in answered))
    for prompt in demonstrated(current, records, [0]):
        assert prompt == "no right answer to show" or "Problem: " in prompt


def test_unknown_reflectors_are_named(policy: TorchPolicy) -> None:
    known = r"unknown reflector .extractve.: there are bank, base-policy, demonstrations, extractive, .*fast.reflection"
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


# --- the bank of instruction sentences: what is in it, what is like a feedback, and what a proposal changes

DIFFICULTY = load_preset("tiny")["difficulty"]
OWN = {"math": "boxed", "codeio": "json", "hover": "verdict", "star-graph": "boxed", "physics": "answer"}
SEED = "You are a helpful assistant. Solve the problem."


def test_the_bank_has_six_wordings_of_each_family() -> None:
    families = Counter(sentence.family for sentence in sentences())
    assert len(families) == 23 and set(families.values()) == {WORDINGS}
    texts = [sentence.text for sentence in sentences()]
    assert len(set(texts)) == len(texts)
    assert all(len(SENTENCE.split(text)) == 1 and text.endswith(".") for text in texts)
    assert all(sum(w**2 for w in sentence.vector.values()) == pytest.approx(1) for sentence in sentences())


@pytest.mark.parametrize("name", OWN)
def test_a_diagnosis_of_the_format_is_likest_to_a_sentence_for_it(name: str) -> None:
    task = load_task(name, **DIFFICULTY[name], feedback="diagnosis")
    feedback = task.verify(task.problem("train", 0, 0), "no idea").feedback
    assert max(sentences(), key=lambda s: likeness(s, feedback)).family == f"format {OWN[name]}"


def test_likeness_by_hand() -> None:
    """The words of a sentence that the text has, each at its weight; a word of every family weighs nothing."""
    sentence = next(s for s in sentences() if "####" in s.text)
    assert likeness(sentence, "nothing of it") == 0
    assert likeness(sentence, f"after #### {'x ' * 50}") == pytest.approx(
        sum(weight for word, weight in sentence.vector.items() if word in ("####", "after"))
    )


def test_half_of_what_is_added_is_like_the_feedback() -> None:
    feedback = "The answer was expected in \\boxed{}, and no value was found there."
    known = {sentence.text: sentence for sentence in sentences()}
    found = Counter(known[chosen([], [feedback], random.Random(i))].family for i in range(2000))
    assert 0.4 < found["format boxed"] / 2000 < 0.6 and len(found) == 23
    blind = Counter(known[chosen([], [], random.Random(i))].family for i in range(2000))
    assert all(0.02 < n / 2000 < 0.07 for n in blind.values()) and len(blind) == 23
    uninformed = Counter(known[chosen([], [VERDICT_ALONE], random.Random(i))].family for i in range(2000))
    assert uninformed["format boxed"] < 0.15 * 2000


@given(
    st.lists(st.sampled_from([s.text for s in sentences() if s.text not in SEED]), max_size=9, unique=True),
    st.integers(0, 10**6),
)
def test_a_proposal_is_the_prompt_after_one_change(kept: list[str], seed: int) -> None:
    current = " ".join([SEED, *kept])
    new = SENTENCE.split(
        proposal(bank(reflection_prompt(current, ["The box says 1, but the right value is 2."]), seed))
    )
    old, known = SENTENCE.split(current), {sentence.text for sentence in sentences()}
    assert 1 <= len(new) <= max(MAX_SENTENCES, 1) and len(set(new)) == len(new)
    added = [sentence for sentence in new if sentence not in old]
    assert len(added) <= 2 and set(added) <= known
    rest = [sentence for sentence in new if sentence in old]
    assert rest == [sentence for sentence in old if sentence in rest], "what stays keeps its order"
    assert added or len(new) == len(old) - 1 or len(old) > MAX_SENTENCES
    assert not added or new[-1] in added or len(old) > MAX_SENTENCES


def test_it_is_deterministic_and_needs_a_current_prompt() -> None:
    prompt = reflection_prompt(SEED, [CORRECT, VERDICT_ALONE])
    assert bank(prompt, 1) == bank(prompt, 1)
    assert len({bank(prompt, seed) for seed in range(20)}) > 10
    with pytest.raises(ReflectionFailure, match="no current instruction"):
        bank("nothing", 0)
