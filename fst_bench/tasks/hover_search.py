"""hover-search: hover with its passages behind a search tool; is the claim supported, and by which passages? VERDICT: ... EVIDENCE: titles.

Problem number i of a split is hover's problem number i, in the same split. The prompt has one line that says how to search, `shown` of the passages
(none, unless asked for) and the claim. A search is Qwen3's own tool call in a turn of the model's,

    <tool_call>
    {"name": "search", "arguments": {"query": "Ana Corvex"}}
    </tool_call>

and the tool replies with at most `results` of this problem's passages, the best first by BM25 (more `chains` are more to search in), or with
one line `Error: ...` about a call that cannot be answered; the conversation goes on in both cases. A turn without a call is the answer.
After `turns` calls a further one is told so, and the one after that is not answered: it ends the conversation in place of an answer.

The reward is for the answer alone, as in hover. The feedback also says which calls failed, and whether nothing was searched.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from fst_bench.core.types import Problem, Score
from fst_bench.tasks.base import TAIL, Split, answer_of
from fst_bench.tasks.hover import Hover, HoverDifficulty, Passage

OPEN, CLOSE = "<tool_call>", "</tool_call>"
NOTHING = "Nothing was found."
OVER = "no more calls are answered, give the answer now."
WORD = re.compile(r"\w+")
MAX_QUERY = 1_000
"""Characters of a query."""

ERRORS = {
    "a call is one JSON object between <tool_call> and </tool_call>.": "The call was expected as a JSON object between its tags, and it was no JSON.",
    "one call at a time.": "The calls were expected to be made one at a time, and several came at once.",
    "there is no tool of that name, only search.": "The tool was expected by its name search, and another name was given.",
    "search takes one argument, query, which is a text.": "The arguments were expected to be a query that is a text, and nothing else.",
    f"the query needs words, at most {MAX_QUERY} characters of them.": "The query was expected in a few words, and it had none or too many.",
    OVER: "The answer was expected after fewer searches, and more calls came than are answered.",
}
"""What the tool says of a call that cannot be answered -> how the feedback says it."""
NO_JSON, SEVERAL, NO_TOOL, NO_QUERY, NO_WORDS, _ = ERRORS
UNSEARCHED = "The passages were expected to be searched with the tool, and nothing was searched."
UNANSWERED = "The answer was expected after the last search, and a call stood in its place."


def search(query: str) -> str:
    """A call of the tool."""
    return f"{OPEN}{json.dumps({'name': 'search', 'arguments': {'query': query}})}{CLOSE}"


HOW = f"To search the passages, write {search('words')} and wait for the reply."


class CallError(ValueError):
    """A call that cannot be answered; its text is one of `ERRORS`."""


class HoverSearchDifficulty(HoverDifficulty):
    results: Annotated[int, Field(ge=1, le=60)] = 3
    """Passages that a search finds at most."""
    turns: Annotated[int, Field(ge=1, le=20)] = 4
    """Calls that are answered."""
    shown: Annotated[int, Field(ge=0, le=60)] = 0
    """Passages that stand in the prompt, drawn at random: with some of them a model that cannot search yet is right sometimes."""


class HoverSearch(Hover):
    name = "hover-search"
    Difficulty = HoverSearchDifficulty
    levels = [
        {"chains": 1, "hops": 1, "style": "bare"},
        {"chains": 3, "hops": 2, "style": "bare", "shown": 3},
        {},
        {"chains": 15, "hops": 4},
    ]

    def problem(self, split: Split, seed: int, index: int) -> Problem:
        """Hover's problem of that number: no problem that is held out or was pretrained on there is trained on here."""
        same = Hover(self.difficulty).problem(split, seed, index)
        passages: list[Passage] = same.data["passages"][: self.difficulty.shown]
        lines = [HOW, *([self.context(passages)] if passages else []), f"Claim: {same.data['claim']}"]
        lines += [self.protocol] if self.difficulty.format_given else []
        return replace(same, id=same.id.replace(Hover.name, self.name), prompt="\n".join(lines))

    def respond(self, problem: Problem, turns: Sequence[str]) -> str | None:
        if len(turns) > self.difficulty.turns + 1:
            return None
        try:
            query = query_of(turns[-1])
            if query is not None and len(turns) > self.difficulty.turns:
                raise CallError(OVER)
        except CallError as error:
            return f"Error: {error}"
        return None if query is None else self.found(problem, query)

    def found(self, problem: Problem, query: list[str]) -> str:
        """The tool's reply to the words of a query."""
        passages: list[Passage] = problem.data["passages"]
        scores = bm25([words(self.context([passage])) for passage in passages], query)
        best = sorted(
            (i for i, score in enumerate(scores) if score > 0), key=lambda i: -scores[i]
        )  # stable: of equal ones the first
        return self.context([passages[i] for i in best[: self.difficulty.results]]) if best else NOTHING

    def wrong_texts(self, problem: Problem) -> list[str]:
        return [*super().wrong_texts(problem), search(problem.data["claim"])]

    def verify(self, problem: Problem, text: str, before: Sequence[str] = ()) -> Score:
        verdict = super().verify(problem, text)
        heard = [self.respond(problem, before[: i + 1]) for i in range(len(before))]
        notes = [feedback for error, feedback in ERRORS.items() if f"Error: {error}" in heard]
        if calls(text):
            notes.append(UNANSWERED)
        elif not before:
            notes.append(UNSEARCHED)
        return replace(verdict, feedback=" ".join([verdict.feedback, *notes]))


def calls(text: str) -> list[str]:
    """What follows each call's opening tag in a turn, a thought's aside."""
    return (answer_of(text) or "")[-TAIL:].split(OPEN)[1:]


def query_of(text: str) -> list[str] | None:
    """The words of the query in a turn, None where it has no call. CallError where it cannot be answered."""
    found = calls(text)
    if not found:
        return None
    if len(found) > 1:
        raise CallError(SEVERAL)
    body, closed, _ = found[0].partition(CLOSE)
    try:
        call: Any = json.loads(body)
    except (ValueError, RecursionError):
        call = None
    if not closed or not isinstance(call, dict):
        raise CallError(NO_JSON)
    if call.get("name") != "search":
        raise CallError(NO_TOOL)
    match call.get("arguments"):
        case {"query": str(query), **others} if not others:
            if len(query) > MAX_QUERY or not words(query):
                raise CallError(NO_WORDS)
            return words(query)
    raise CallError(NO_QUERY)


def words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def bm25(passages: Sequence[list[str]], query: list[str]) -> list[float]:
    """Of each passage, the sum over the query's words of ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + 1.5 * (0.25 + 0.75 * length / mean length)).

    N passages, n of them with the word, f times in this one: Okapi BM25 with Lucene's weight, which is never negative, and k1 = 1.5, b = 0.75.
    Rounded, so that the last bits of a sum order nothing.
    """
    mean = sum(map(len, passages)) / len(passages)
    holding = {word: sum(word in passage for passage in passages) for word in query}
    weight = {word: math.log(1 + (len(passages) - n + 0.5) / (n + 0.5)) for word, n in holding.items()}

    def score(passage: list[str]) -> float:
        slack = 1.5 * (0.25 + 0.75 * len(passage) / mean)
        return sum(weight[word] * (f := passage.count(word)) / (f + slack) for word in query)

    return [round(score(passage), 6) for passage in passages]
