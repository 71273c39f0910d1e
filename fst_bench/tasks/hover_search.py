"""hover-search: hover with its passages behind a search tool. Protocol: as hover's, VERDICT: ... EVIDENCE: titles.

Problem number i of a split is hover's problem number i, in the same split. The prompt has one line on how to search,
`shown` of the passages (none by default) and the claim. A search is Qwen3's own tool call in a turn of the model,

    <tool_call>
    {"name": "search", "arguments": {"query": "Ana Corvex"}}
    </tool_call>

and the tool replies with at most `results` of this problem's passages, the best first by BM25 (more `chains` are more
to search in), or with one line `Error: ...` about a call that cannot be answered; the conversation continues in both
cases. A turn without a call is the answer. After `turns` calls a further one gets an error, and the one after that is
not answered: it ends the conversation in place of an answer.

The reward is for the answer alone, as in hover. The feedback also names the calls that failed, and notes if nothing was
searched.
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
    "a call is one JSON object between <tool_call> and </tool_call>.": (
        "The call was expected as a JSON object between its tags, and it was no JSON."
    ),
    "one call at a time.": "The calls were expected to be made one at a time, and several came at once.",
    "there is no tool of that name, only search.": (
        "The tool was expected by its name search, and another name was given."
    ),
    "search takes one argument, query, which is a text.": (
        "The arguments were expected to be a query that is a text, and nothing else."
    ),
    f"the query needs words, at most {MAX_QUERY} characters of them.": (
        "The query was expected in a few words, and it had none or too many."
    ),
    OVER: "The answer was expected after fewer searches, and more calls came than are answered.",
}
"""The tool's error for a call that cannot be answered -> its sentence in the feedback."""
NO_JSON, SEVERAL, NO_TOOL, NO_QUERY, NO_WORDS, _ = ERRORS
UNSEARCHED = "The passages were expected to be searched with the tool, and nothing was searched."
UNANSWERED = "The answer was expected after the last search, and a call stood in its place."


def search(query: str) -> str:
    """Return a call of the tool."""
    return f"{OPEN}{json.dumps({'name': 'search', 'arguments': {'query': query}})}{CLOSE}"


HOW = f"To search the passages, write {search('words')} and wait for the reply."


class CallError(ValueError):
    """A call that cannot be answered; its text is one of `ERRORS`."""


class HoverSearchDifficulty(HoverDifficulty):
    results: Annotated[int, Field(ge=1, le=60)] = 3
    """Most passages that a search finds."""
    turns: Annotated[int, Field(ge=1, le=20)] = 4
    """Calls that are answered."""
    shown: Annotated[int, Field(ge=0, le=60)] = 0
    """Passages in the prompt, drawn at random: with some of them a model that cannot search yet is right sometimes."""


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
        """Return hover's problem of that number: none that is held out or pretrained on there is trained on here."""
        if self.parts:
            return super().problem(split, seed, index)
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
        """Return the tool's reply to the words of a query."""
        passages: list[Passage] = problem.data["passages"]
        scores = bm25([words(self.context([passage])) for passage in passages], query)
        # a stable sort: of passages with equal scores the first
        best = sorted((i for i, score in enumerate(scores) if score > 0), key=lambda i: -scores[i])
        return self.context([passages[i] for i in best[: self.difficulty.results]]) if best else NOTHING

    def wrong_texts(self, problem: Problem) -> list[str]:
        return [*super().wrong_texts(problem), search(problem.data["claim"])]

    def verify(self, problem: Problem, text: str, before: Sequence[str] = ()) -> Score:
        score = super().verify(problem, text, before)
        if problem.level:  # scored at its level, with that one's notes
            return score
        if self.difficulty.feedback == "verdict":
            return score
        replies = [self.respond(problem, before[: i + 1]) for i in range(len(before))]
        notes = [feedback for error, feedback in ERRORS.items() if f"Error: {error}" in replies]
        if calls(text):
            notes.append(UNANSWERED)
        elif not before:
            notes.append(UNSEARCHED)
        return replace(score, feedback=" ".join([score.feedback, *notes]))


def calls(text: str) -> list[str]:
    """Return the text after each call's opening tag in a turn, thinking aside."""
    return (answer_of(text) or "")[-TAIL:].split(OPEN)[1:]


def query_of(text: str) -> list[str] | None:
    """Return the words of the query in a turn, None without a call. Raise CallError where it cannot be answered."""
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
    """Return the words of a text in lower case."""
    return WORD.findall(text.lower())


def bm25(passages: Sequence[list[str]], query: list[str]) -> list[float]:
    """Return the Okapi BM25 score of each passage, with k1 = 1.5, b = 0.75 and Lucene's weight, never negative.

    score = sum over the query's words of ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + 1.5 * (0.25 + 0.75 * L / mean L))

    N is the number of passages, n the number of those with the word, f its count in this passage, L the passage's
    length. Scores are rounded, so that the last bits of a sum order nothing.
    """
    mean = sum(map(len, passages)) / len(passages)
    holding = {word: sum(word in passage for passage in passages) for word in query}
    weight = {word: math.log(1 + (len(passages) - n + 0.5) / (n + 0.5)) for word, n in holding.items()}

    def score(passage: list[str]) -> float:
        slack = 1.5 * (0.25 + 0.75 * len(passage) / mean)
        return sum(weight[word] * (f := passage.count(word)) / (f + slack) for word in query)

    return [round(score(passage), 6) for passage in passages]
