"""The extractive reflector reads gepa's own reflection prompt, and nothing else."""

import pytest
from gepa.strategies.instruction_proposal import InstructionProposalSignature as Signature

from fst_bench.core.types import SampleRequest
from fst_bench.fast.reflectors import BasePolicy, extractive, instructions, load_reflector
from fst_bench.method.ledger import Ledger
from fst_bench.method.reflection import ReflectionFailure
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
    assert reflector.reflect_many(["Write a new instruction."], [3]) == reflector.reflect_many(
        ["Write a new instruction."], [3]
    )
    request = SampleRequest(({"role": "user", "content": "Write a new instruction."},), 3)
    ((sample,),) = policy.reference.sample([request])
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
    assert [i for i, reply in enumerate(found) if isinstance(reply, ReflectionFailure)] == list(long)
    assert list(map(str, found)) == list(map(str, expected)) and together.ledger.counts() == alone.ledger.counts()


def test_unknown_reflectors_are_named(policy: TorchPolicy) -> None:
    known = r"unknown reflector 'extractve': there are base-policy, extractive, a LiteLLM .* fast.reflection.base_url"
    with pytest.raises(ValueError, match=known):
        load_reflector(FastSettings(reflector="extractve"), policy, Ledger())
