"""hover from HoVer (the parquet copy vincentkoc/hover-parquet): is the claim supported, and by which articles?

Columns: claim, supporting_facts (a list of {key: title, value: sentence} or, as HoVer's own files have it, of
[title, sentence]; a mapping of two lists is the same), label, num_hops. Protocol: VERDICT: ... EVIDENCE: titles. The
claim comes without passages, as in the data: titles are answered from memory.

Our own definitions, where data set and paper are silent:

- Right is the verdict AND the exact set of titles, each once; the sentences of an article are not asked for. A verdict
  alone would start at 50 %.
- "Hard" is 3 hops or more (`hops`, the least number of hops).
- The verdicts are the data's own SUPPORTED and NOT_SUPPORTED, and not REFUTED as in the procedural task: the data set
  merged claims that are refuted with claims that cannot be decided. A space for the underscore is the same. As class
  labels 1 is SUPPORTED, 0 is NOT_SUPPORTED.
- Titles are compared in Unicode's composed form (NFC), white space as one space; case and punctuation count, except
  what the procedural task leaves aside, too: quotes around a title, curly quotes, a full stop behind it, HTML's &amp;.
- A title with a semicolon, which separates titles, makes its row unusable; so does a row without a label, as in the
  hub's test split.
- Of the hub's own splits only `train` is read, so its validation split stays unseen by training.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from fst_bench.core.types import Problem, Score
from fst_bench.tasks.base import CORRECT, clip
from fst_bench.tasks.data.base import FromRows, Item, RowDifficulty, cell, item, squeeze, structure, text_of
from fst_bench.tasks.data.read import Unusable
from fst_bench.tasks.hover import Hover, plain_title, plain_verdict, read_labels, unescaped

LABELS = {"SUPPORTED": "SUPPORTED", "NOT_SUPPORTED": "NOT_SUPPORTED", "1": "SUPPORTED", "0": "NOT_SUPPORTED"}
VERDICTS = ("SUPPORTED", "NOT_SUPPORTED")


class HoverRowsDifficulty(RowDifficulty):
    hops: Annotated[int, Field(ge=1, le=4)] = 3


class HoverRows(FromRows, Hover):
    Difficulty = HoverRowsDifficulty  # type: ignore[assignment]  # other parameters than the procedural ones
    columns = ("claim", "supporting_facts", "label", "num_hops")
    stem = "hover"
    hub = "vincentkoc/hover-parquet"
    protocol = "Write VERDICT: SUPPORTED or NOT_SUPPORTED and then EVIDENCE: with the titles, separated by semicolons."
    hint = "It helps to name the article behind each part of the claim before the verdict."
    levels = [{"hops": 2}, {}, {"hops": 4}]

    @classmethod
    def usable(cls, row: Mapping[str, Any]) -> Sequence[Item | Unusable]:
        claim = text_of(row, "claim")
        label = LABELS.get(underscored(whole(cell(row, "label"))))
        if label is None:
            raise Unusable("label is neither SUPPORTED nor NOT_SUPPORTED")
        hops = whole(cell(row, "num_hops"))
        if not (hops.isascii() and hops.isdigit() and len(hops) < 4 and int(hops) > 0):
            raise Unusable("num_hops is not a number of hops")
        return [
            item(
                cls.name,
                squeeze(claim),
                {"claim": claim, "verdict": label, "titles": titles_of(row), "hops": int(hops)},
            )
        ]

    @classmethod
    def question(cls, content: Mapping[str, Any]) -> list[Any]:
        return [squeeze(content["claim"])]

    @classmethod
    def agree(cls, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        return all(one[part] == other[part] for part in ("verdict", "titles"))

    def wanted(self, content: Mapping[str, Any]) -> bool:
        return content["hops"] >= self.difficulty.hops

    def ask(self, content: Mapping[str, Any]) -> tuple[str, str]:
        prompt = f"Claim: {content['claim']}\nDoes Wikipedia support it, and in which articles is that found?"
        return prompt, f"{content['verdict']}: {'; '.join(content['titles'])}"

    def check(self, problem: Problem, text: str) -> Score:
        given = read_labels(text)
        if given is None:
            diagnosis = "The answer was expected with the labels VERDICT: and EVIDENCE:, and they were not found."
            return Score(0.0, self.teach(diagnosis, text), "unparseable")
        verdict, titles = (
            underscored(plain_verdict(given[0])),
            [normal(title) for title in given[1] if plain_title(title)],
        )
        keys = [plain_title(title) for title in titles]
        shown = clip(f"{given[0]}: {'; '.join(given[1])}")
        if verdict not in VERDICTS:
            return Score(
                0.0,
                self.teach(f"The verdict {clip(given[0], 20)!r} is none of {', '.join(VERDICTS)}.", text),
                "unparseable",
                shown,
            )
        right = {plain_title(title): title for title in problem.data["titles"]}
        said = []
        if verdict != problem.data["verdict"]:
            said.append(f"The verdict is {verdict}, but the claim is {problem.data['verdict']}.")
        if missing := [title for key, title in right.items() if key not in keys]:
            said.append(f"The evidence lacks {named(missing)}.")
        if surplus := {key: title for key, title in zip(keys, titles, strict=True) if key not in right}:
            said.append(f"The claim does not rest on {named(surplus.values())}.")
        if len(set(keys)) < len(keys):
            said.append("Each title is to be given once.")
        return (
            Score(0.0, self.teach(" ".join(said), text), "wrong", shown) if said else Score(1.0, CORRECT, "ok", shown)
        )

    def wrong_texts(self, problem: Problem) -> list[str]:
        verdict, titles = problem.data["verdict"], "; ".join(problem.data["titles"])
        other = next(v for v in VERDICTS if v != verdict)
        return [
            problem.answer,
            self.write(f"{other}: {titles}"),
            self.write(f"{verdict}: {titles}; No such article 271828"),
            self.write(f"{verdict}: No such article 271828"),
            self.write(f"{verdict}: {titles}; {titles}"),
            self.write(f"REFUTED: {titles}"),
            f"VERDICT: {verdict}",
            f"EVIDENCE: {titles} VERDICT: {verdict}",
        ]


def titles_of(row: Mapping[str, Any]) -> list[str]:
    """Return the titles of the supporting articles, sorted, each once.

    Raise Unusable where one is missing or could not be answered.
    """
    facts = structure(row, "supporting_facts")
    keys = None
    if isinstance(facts, dict):
        keys = facts.get("key")
    elif isinstance(facts, list):
        keys = [title_of(fact) for fact in facts]
    if not isinstance(keys, list) or not keys or not all(isinstance(key, str) and key.strip() for key in keys):
        raise Unusable("supporting_facts names no titles")
    titles = sorted({normal(unescaped(key)) for key in keys})
    if any(";" in title for title in titles):
        raise Unusable("a title with a semicolon")
    return titles


def title_of(fact: Any) -> Any:
    """Return the title of {key: title, value: sentence} or [title, sentence]; None of anything else."""
    if isinstance(fact, dict):
        return fact.get("key")
    return fact[0] if isinstance(fact, list | tuple) and len(fact) == 2 else None


def normal(title: str) -> str:
    """Return a title in Unicode's composed form, white space as one space."""
    return squeeze(unicodedata.normalize("NFC", title))


def whole(value: Any) -> str:
    """Return a cell as text; a column of integers with gaps is read as floats."""
    return str(value).strip().removesuffix(".0")


def underscored(verdict: str) -> str:
    """Return a verdict with underscores for its white space."""
    return "_".join(verdict.split())


def named(titles: Iterable[str]) -> str:
    """Return the first few titles, in one line."""
    return clip("; ".join(titles), 200)
