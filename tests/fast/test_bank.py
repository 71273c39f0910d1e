"""The bank of instruction sentences: what is in it, what is like a feedback, and what a proposal changes."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_reflectors import proposal, reflection_prompt

from fst_bench.fast.bank import MAX_SENTENCES, WORDINGS, bank, chosen, likeness, sentences
from fst_bench.harness.config import load_preset
from fst_bench.method.reflection import SENTENCE, ReflectionFailure
from fst_bench.tasks import load_task
from fst_bench.tasks.base import CORRECT, WRONG

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
    uninformed = Counter(known[chosen([], [WRONG], random.Random(i))].family for i in range(2000))
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
    prompt = reflection_prompt(SEED, [CORRECT, WRONG])
    assert bank(prompt, 1) == bank(prompt, 1)
    assert len({bank(prompt, seed) for seed in range(20)}) > 10
    with pytest.raises(ReflectionFailure, match="no current instruction"):
        bank("nothing", 0)
