"""hover-search: its problems are hover's, its tool is BM25 over their passages, and no text of a model's upsets it."""

import json
import math
import re
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fst_bench.fast.reflectors import instructions
from fst_bench.tasks import Problem, Task, load_task
from fst_bench.tasks.base import SPLIT_SHARE, Split
from fst_bench.tasks.hover_search import ERRORS, MAX_QUERY, NOTHING, OVER, UNANSWERED, UNSEARCHED, bm25

SPLITS: tuple[Split, ...] = get_args(Split)
FACT = re.compile(r"(?:\[(\w+)\] \1 (?:works at|is based in|lies in|is ruled by the) |(\w+) )(\w+)\.")


def call(query: str) -> str:
    """A search as Qwen3 writes it."""
    return f"<tool_call>\n{json.dumps({'name': 'search', 'arguments': {'query': query}})}\n</tool_call>"


def made(**difficulty: Any) -> tuple[Task, Problem]:
    task = load_task("hover-search", **({"chains": 3, "hops": 2, "style": "bare"} | difficulty))
    return task, task.problem("test", 0, 0)


def solve(task: Task, problem: Problem) -> list[str]:
    """Return the turns of a solver that follows the claim from search to search: it reads prompt and replies only."""
    found, claimed = re.search(r"Claim: (\w+) works (?:at|in|under the) (\w+)\.$", problem.prompt).groups()  # type: ignore[union-attr]
    turns, titles = [], []
    while True:
        turns.append(call(found))
        reply = task.respond(problem, turns)
        assert reply is not None
        links = {title or bare: value for title, bare, value in FACT.findall(reply.removeprefix("Facts: "))}
        if found not in links:
            break
        titles.append(found)
        found = links[found]
    verdict = "SUPPORTED" if found == claimed else "REFUTED"
    return [*turns, f"VERDICT: {verdict} EVIDENCE: {'; '.join(titles)}"]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    chains=st.integers(1, 15),
    hops=st.integers(1, 4),
    style=st.sampled_from(["prose", "bare"]),
    results=st.integers(2, 5),
    split=st.sampled_from(SPLITS),
    index=st.integers(0, 1000),
)
def test_whoever_searches_finds_the_answer(
    chains: int, hops: int, style: str, results: int, split: Split, index: int
) -> None:
    task = load_task("hover-search", chains=chains, hops=hops, style=style, results=results, turns=hops + 1)
    problem = task.problem(split, 7, index)
    *before, answer = solve(task, problem)
    assert len(before) == hops + 1
    verdict = task.verify(problem, answer, before)
    assert (verdict.reward, verdict.status, verdict.feedback) == (1.0, "ok", "The answer is correct.")
    assert task.respond(problem, [*before, answer]) is None


@pytest.mark.parametrize("difficulty", [{"chains": 3, "hops": 2, "style": "bare"}, {}, {"chains": 15, "hops": 4}])
def test_its_problems_are_hovers_and_so_are_its_splits(difficulty: dict[str, Any]) -> None:
    hover, search = load_task("hover", **difficulty), load_task("hover-search", **difficulty)
    for split in SPLITS:
        for index in range(5):
            one, other = hover.problem(split, 3, index), search.problem(split, 3, index)
            assert (one.answer, one.data) == (other.answer, other.data)
            assert one.id.removeprefix("hover-") == other.id.removeprefix("hover-search-")
            assert int(other.id.removeprefix("hover-search-")[:8], 16) % 20 in SPLIT_SHARE[split]
            assert other.prompt.splitlines()[1:] == one.prompt.splitlines()[-1:], (
                "the claim, and nothing of the passages"
            )


@pytest.mark.parametrize("style", ["prose", "bare"])
def test_shown_passages_stand_in_the_prompt(style: str) -> None:
    shown = [made(style=style, shown=n)[1].prompt for n in range(8)]
    counts = [
        len(FACT.findall(prompt.partition("\n")[2].partition("Claim:")[0].removeprefix("Facts: "))) for prompt in shown
    ]
    assert counts == [0, 1, 2, 3, 4, 5, 6, 6]  # three chains of two hops are six
    assert shown[7].partition("\n")[2] == load_task("hover", chains=3, hops=2, style=style).problem("test", 0, 0).prompt


def test_a_conversation_by_hand() -> None:
    task, problem = made()
    assert problem.prompt.splitlines()[1] == "Claim: Hana works in Seoul."
    assert task.respond(problem, [call("Hana")]) == "Facts: Hana Nimbo."
    assert task.respond(problem, [call("Hana"), "Now the firm. " + call("nimbo!")]) == "Facts: Hana Nimbo. Nimbo Seoul."
    assert task.respond(problem, [call("Zoe")]) == NOTHING
    assert (
        task.respond(problem, [call("Hana Astra Kim Tycho Nora")]) == "Facts: Kim Astra. Nora Tycho. Hana Nimbo."
    )  # two words of each of two
    assert task.respond(problem, ["VERDICT: SUPPORTED EVIDENCE: Hana; Nimbo"]) is None
    thought = f"<think>{call('Astra')}</think>"
    assert (
        task.respond(problem, [thought + call("Hana")]) == "Facts: Hana Nimbo."
        and task.respond(problem, [thought]) is None
    )
    prose, same = made(style="prose")
    assert prose.respond(same, [call("Hana")]) == "[Hana] Hana works at Nimbo."


@pytest.mark.parametrize(
    ("turn", "error"),
    [
        ("<tool_call>", 0),
        ("<tool_call>\nAna\n</tool_call>", 0),
        ('<tool_call>["search"]</tool_call>', 0),
        ('<tool_call>{"name": "search", "arguments": {"query": "Ana"}}', 0),
        ('<tool_call>{"name": "search", "arguments": {"query": "Ana"}} and</tool_call>', 0),
        ("<tool_call>" + "[" * 20_000 + "</tool_call>", 0),
        ("<tool_call>" + '{"name":' * 4_000 + "</tool_call>", 0),
        ("<tool_call>" + "9" * 30_000 + "</tool_call>", 0),
        (call("Ana") + call("Bob"), 1),
        ("<tool_call>" * 2_000_000, 1),
        ('<tool_call>{"name": "open", "arguments": {"query": "Ana"}}</tool_call>', 2),
        ('<tool_call>{"query": "Ana"}</tool_call>', 2),
        ('<tool_call>{"name": ["search"], "arguments": {"query": "Ana"}}</tool_call>', 2),
        ('<tool_call>{"name": "search"}</tool_call>', 3),
        ('<tool_call>{"name": "search", "arguments": "Ana"}</tool_call>', 3),
        ('<tool_call>{"name": "search", "arguments": {"query": ["Ana"]}}</tool_call>', 3),
        ('<tool_call>{"name": "search", "arguments": {"query": "Ana", "n": 99}}</tool_call>', 3),
        (call(""), 4),
        (call(" ... "), 4),
        (call("\ud800"), 4),
        (call("Ana" * MAX_QUERY), 4),
    ],
)
def test_a_call_that_cannot_be_answered_gets_one_line(turn: str, error: int) -> None:
    task, problem = made()
    said, feedback = list(ERRORS.items())[error]
    assert task.respond(problem, [turn]) == f"Error: {said}"
    verdict = task.verify(problem, "VERDICT: SUPPORTED EVIDENCE: Zoe", [turn, call("Ana"), turn])
    assert verdict.feedback.count(feedback) == 1 and UNSEARCHED not in verdict.feedback
    assert not [other for other in ERRORS.values() if other != feedback and other in verdict.feedback]


def test_calls_have_an_end() -> None:
    task, problem = made(turns=2)
    turns = [call("Hana")] * 4
    assert [task.respond(problem, turns[:n]) for n in range(1, 5)] == [
        "Facts: Hana Nimbo.",
        "Facts: Hana Nimbo.",
        f"Error: {OVER}",
        None,
    ]
    right = task.write(problem.answer)
    assert (
        task.verify(problem, right, turns[:3]).reward == 1.0
        and ERRORS[OVER] in task.verify(problem, right, turns[:3]).feedback
    )
    ended = task.verify(problem, turns[3], turns[:3])
    assert (ended.reward, ended.status) == (0.0, "unparseable") and UNANSWERED in ended.feedback


def test_the_feedback_says_that_nothing_was_searched_and_reflection_understands_all_of_it() -> None:
    task, problem = made()
    for text in (task.write(problem.answer), "no idea"):
        assert (
            UNSEARCHED in task.verify(problem, text).feedback
            and UNSEARCHED not in task.verify(problem, text, [call("Zoe")]).feedback
        )
    assert all(len(instructions(sentence)) == 1 for sentence in (*ERRORS.values(), UNSEARCHED, UNANSWERED))


TURNS = st.lists(
    st.text() | st.sampled_from([call("Hana"), "<tool_call>", "</tool_call>", call(""), '{"name": "search"}']),
    min_size=1,
    max_size=7,
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(pieces=st.lists(TURNS, min_size=1, max_size=8))
@example([["<tool_call>" + "{" * 2_000_000 + "</tool_call>"]])
def test_any_turns(pieces: list[list[str]]) -> None:
    """The reply is one of few things, the same each time, and holds nothing that was said."""
    task, problem = made()
    turns = ["".join(turn) for turn in pieces]
    reply = task.respond(problem, turns)
    facts = {f"{title} {value}." for title, value, _ in problem.data["passages"]}
    assert (
        reply in {None, NOTHING} | {f"Error: {error}" for error in ERRORS}
        or set(re.findall(r"\w+ \w+\.", reply[7:])) <= facts
    )
    assert reply == task.respond(problem, turns)
    verdict = task.verify(problem, turns[-1], turns[:-1])
    assert verdict.reward == 0.0 and verdict.feedback.isprintable() and len(verdict.feedback) < 1_000


def test_bm25_by_hand() -> None:
    """Three passages, mean length 2: words in one of three weigh ln(1 + 2.5/1.5), in two of three ln(1 + 1.5/2.5)."""
    passages = [["ana", "corvex"], ["corvex", "lima"], ["bob", "bob"]]
    rare, common = math.log(1 + 2.5 / 1.5), math.log(1 + 1.5 / 2.5)
    once, twice = 1 / (1 + 1.5), 2 / (2 + 1.5)
    assert bm25(passages, ["ana"]) == pytest.approx([rare * once, 0, 0], abs=1e-6)
    assert bm25(passages, ["corvex"]) == pytest.approx([common * once, common * once, 0], abs=1e-6)
    assert bm25(passages, ["bob", "lima", "nobody"]) == pytest.approx([0, rare * once, rare * twice], abs=1e-6)
    longer = bm25(
        [["ana"], ["corvex", "lima", "oslo"]], ["ana", "corvex"]
    )  # in one of two, mean length 2: shorter is better
    assert longer == pytest.approx(
        [math.log(2) / (1 + 1.5 * (0.25 + 0.75 / 2)), math.log(2) / (1 + 1.5 * (0.25 + 0.75 * 3 / 2))], abs=1e-6
    )
